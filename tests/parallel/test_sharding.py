"""The table of sharding rules, on the abstract: no device but the CPU's is needed."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import tiny
from jax.sharding import PartitionSpec

from jaxnmt.config import Mesh, Optimizer, Recurrent, Training, replace
from jaxnmt.config.files import load_config, shipped_configs
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import EncoderDecoder, build_model
from jaxnmt.parallel import sharding
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.state import initial_state

VARIANTS = tiny.VARIANTS | {"scanned": tiny.SCANNED, "learned_decoder": replace(tiny.VARIANTS["learned"], tie_embeddings="decoder")}
GRID = jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES)


RECURRENT = Recurrent(emb_dim=16, hidden_dim=16, num_encoder_layers=2, num_decoder_layers=2)
RUNGS = {
    "bag": replace(RECURRENT, encoder="bag", cell="rnn", context="fixed", tie_embeddings="all"),
    "fixed": replace(RECURRENT, cell="lstm", context="fixed", bidirectional="none", bridge="copy"),
    "bahdanau": replace(RECURRENT, cell="gru", context="bahdanau", tie_embeddings="decoder"),
    "normalised": replace(RECURRENT, cell="layernorm_lstm", bidirectional="first", window=3),
    **{score: replace(RECURRENT, score=score) for score in ("dot", "general", "concat", "location")},
}
OURS = VARIANTS | RUNGS | {f"config {name}": load_config(name).model for name in shipped_configs()}


@pytest.mark.parametrize("name", OURS)
def test_exactly_one_rule_matches_every_parameter_of_ours(name):
    vocabulary = 29
    params = jax.eval_shape(build_model(OURS[name], vocabulary, vocabulary).init, jax.random.key(0))
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        found = sharding.path_name(path)
        assert len(sharding.matching_rules(found, x.ndim)) == 1, found


@dataclasses.dataclass(frozen=True)
class Own:
    """A model with layers of linen's, two of which are called as ours are but have another rank."""

    emb_dim: int = 6

    def build(self, *sizes):
        return OwnModule(self, *sizes)


class OwnEncoder(nn.Module):
    @nn.compact
    def __call__(self, x_BSD):
        return nn.Dense(7, name="out")(nn.Conv(6, (3,), name="kv")(x_BSD))


class OwnModule(EncoderDecoder):
    def setup(self):
        self.make_embeddings(6)
        self.encoder = OwnEncoder()

    def encode(self, batch, noise=None):
        return self.encoder(jax.nn.one_hot(batch["encoder_input_tokens"], 5))

    def features(self, memory, batch, noise=None):
        return self.embed_target(batch["decoder_input_tokens"], self.dtype) + memory.mean((1, 2))[:, None, None]

    def start(self, memory, max_length): ...

    def step(self, memory, carry, token_B): ...


def test_a_parameter_without_a_rule_is_whole_everywhere_and_others_of_the_same_model_are_not():
    params = jax.eval_shape(build_model(Own(), 29, 29).init, jax.random.key(0))
    specs = {sharding.path_name(path): s.spec for path, s in jax.tree_util.tree_leaves_with_path(sharding.param_shardings(params, GRID))}
    assert specs.pop("target_embedding/table") == specs.pop("output_embedding/table") == PartitionSpec("tensor", "fsdp")
    assert set(specs) == {f"encoder/{layer}/{name}" for layer in ("kv", "out") for name in ("kernel", "bias")}
    assert all(set(spec) <= {None} for spec in specs.values())


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


@pytest.mark.parametrize("optimizer", ["adam", "adafactor", "muon"])
def test_any_optimizer_takes_a_users_parameters(optimizer):
    rule = make_optimizer(Optimizer(name=optimizer, weight_decay=0.1))
    state = jax.eval_shape(lambda: initial_state(build_model(Own(), 29, 29), rule, Training()))
    updates, _ = jax.eval_shape(rule.update, state.params, state.opt_state, state.params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, state.params)
    laid = jax.tree.leaves(sharding.state_shardings(state.opt_state, state.params, GRID))
    assert PartitionSpec("tensor", "fsdp") in {s.spec for s in laid}


def test_rules_lay_heads_width_and_vocabulary_over_the_tensor_axis():
    assert sharding.param_spec("encoder/layer_0/mlp/wi/kernel", (16, 24), GRID) == PartitionSpec("fsdp", "tensor")
    assert sharding.param_spec("encoder/layers/mlp/wi/kernel", (3, 16, 24), GRID) == PartitionSpec(None, "fsdp", "tensor")
    assert sharding.param_spec("shared_embedding/table", (128, 16), GRID) == PartitionSpec("tensor", "fsdp")


def test_what_two_rules_know_and_what_does_not_divide_is_refused(monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="2 sharding rules match .*encoder/layer_0/mlp/wi/kernel"):
        patch.setattr(sharding, "_RULES", sharding._RULES * 2)
        sharding.param_spec("encoder/layer_0/mlp/wi/kernel", (16, 24), GRID)
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
