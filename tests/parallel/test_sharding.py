"""The table of sharding rules, on the abstract: no device but the CPU's is needed."""

import re

import jax
import pytest
import tiny
from jax.sharding import PartitionSpec

from jaxnmt.config import Mesh, Optimizer, Training, UserError, replace
from jaxnmt.parallel import sharding
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.state import initial_state

VARIANTS = tiny.VARIANTS | {"scanned": tiny.SCANNED, "learned_decoder": replace(tiny.VARIANTS["learned"], tie_embeddings="decoder")}
GRID = jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES)


@pytest.mark.parametrize("name", VARIANTS)
def test_exactly_one_rule_matches_every_parameter(name):
    params = jax.eval_shape(tiny.model_of(VARIANTS[name]).init, jax.random.key(0))
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        found = sharding.path_name(path)
        matches = [axes for pattern, axes in sharding._RULES if re.fullmatch(pattern, found)]
        assert len(matches) == 1, found
        assert x.ndim - len(matches[0]) == ("/layers/" in found), found


@pytest.mark.parametrize("optimizer", ["adam", "adafactor", "muon"])
@pytest.mark.parametrize("name", ["rotary", "scanned"])
def test_optimizer_states_lie_like_their_parameters(name, optimizer):
    rule = make_optimizer(Optimizer(name=optimizer))
    state = jax.eval_shape(lambda: initial_state(tiny.model_of(VARIANTS[name]), rule, Training()))
    params = jax.tree_util.tree_leaves_with_path(sharding.param_shardings(state.params, GRID))
    specs = {sharding.path_name(path): s.spec for path, s in params}
    shapes = {sharding.path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(state.params)}
    laid = jax.tree_util.tree_leaves_with_path(sharding.state_shardings(state.opt_state, state.params, GRID))
    matched = 0
    for (path, s), leaf in zip(laid, jax.tree.leaves(state.opt_state), strict=True):
        owner = next((known for known in specs if sharding.path_name(path).endswith(f"/{known}")), None)
        if owner and leaf.shape == shapes[owner]:
            assert s.spec == specs[owner], path
            matched += 1
        else:
            assert leaf.ndim <= 1 or owner, path
    assert matched >= len(specs) / 2


def test_rules_lay_heads_width_and_vocabulary_over_the_tensor_axis():
    assert sharding.param_spec("encoder/layer_0/mlp/wi/kernel", (16, 24), GRID) == PartitionSpec("fsdp", "tensor")
    assert sharding.param_spec("encoder/layers/mlp/wi/kernel", (3, 16, 24), GRID) == PartitionSpec(None, "fsdp", "tensor")
    assert sharding.param_spec("shared_embedding/table", (128, 16), GRID) == PartitionSpec("tensor", "fsdp")


def test_what_no_rule_knows_and_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="0 sharding rules match .*encoder/layer_0/new/kernel"):
        sharding.param_spec("encoder/layer_0/new/kernel", (16, 24), GRID)
    with pytest.raises(UserError, match="mesh.tensor 2 does not divide 25.*encoder/layer_0/mlp/wi/kernel"):
        sharding.param_spec("encoder/layer_0/mlp/wi/kernel", (16, 25), GRID)


@pytest.mark.parametrize("mesh", [Mesh(data=2), Mesh(data=-1, fsdp=2), Mesh(data=-1, fsdp=-1)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(mesh):
    with pytest.raises(UserError, match="does not fit 1 device"):
        sharding.make_mesh(mesh)


def test_an_adafactor_vector_keeps_the_axes_it_still_has():
    spec = PartitionSpec("fsdp", "tensor")
    assert sharding._inherit((16,), (16, 24), spec) == PartitionSpec("fsdp")
    assert sharding._inherit((24,), (16, 24), spec) == PartitionSpec("tensor")
    assert sharding._inherit((1,), (16, 24), spec) == PartitionSpec()
