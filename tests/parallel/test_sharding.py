"""How parameters and optimizer states lie on a mesh, on the abstract: no device but the CPU's is needed."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from jaxnmt.config import Mesh, Optimizer, Recurrent, Training, replace
from jaxnmt.config.files import load_config, shipped_configs
from jaxnmt.errors import UserError
from jaxnmt.lab.laws.subject import batch_of, model_of, random_pairs
from jaxnmt.models.encoder_decoder import EncoderDecoder
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel import sharding
from jaxnmt.parallel.axes import UNDECLARED, path_name
from jaxnmt.parallel.platform import Platform
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.state import initial_state
from jaxnmt.training.step import ShardedUpdate

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


def by_name(tree):
    return {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("name", OURS)
def test_every_parameter_of_ours_declares_its_axes(name):
    axes = by_name(build_model(OURS[name], 29, 29).axes)
    assert not [path for path, letters in axes.items() if UNDECLARED in letters]
    assert {path for path, letters in axes.items() if letters.startswith("L")} == {path for path in axes if "/layers/" in path}


D, H = "fsdp", "tensor"
LAYOUTS = {
    "shared_embedding/table": (H, D),
    "encoder_positions/table": (None, D),
    "encoder/layer_0/self_attention/qkv/kernel": (D, None, H, None),
    "encoder/layer_0/self_attention/qkv/bias": (None, H, None),
    "encoder/layer_0/self_attention/out/kernel": (H, None, D),
    "encoder/layer_0/self_attention/out/bias": (None,),
    "encoder/layer_0/self_attention_norm/scale": (None,),
    "decoder/layer_0/cross_attention/q/kernel": (D, H, None),
    "decoder/layer_0/cross_attention/kv/kernel": (D, None, H, None),
    "decoder/layer_0/mlp/wi/kernel": (D, H),
    "decoder/layer_0/mlp/wi/bias": (H,),
    "decoder/layer_0/mlp/wo/kernel": (H, D),
    "decoder/layer_0/mlp/wo/bias": (None,),
}
RECURRENT_LAYOUTS = {
    "output_embedding/table": (H, D),
    "encoder/layer_0/input/kernel": (D, None, None),
    "encoder/backward_layer_0/recurrent/kernel": (D, None, None),
    "encoder/layer_0/input/bias": (None, None),
    "decoder/layer_0/recurrent_norm_scale": (None,),
    "decoder/combine/kernel": (D, None),
    "decoder/cross_attention/keys_dense/kernel": (D, None),
    "decoder/cross_attention/place_kernel/kernel": (D, None),
    "decoder/cross_attention/place_scorer": (None,),
    "bridge/kernel": (D, None, None, None),
    "bridge/bias": (None, None, None),
}


def specs_of(model):
    return {name: tuple(s.spec) for name, s in by_name(sharding.param_shardings(model.shapes, model.axes, GRID)).items()}


def test_heads_width_and_vocabulary_lie_over_the_tensor_axis_and_vectors_are_whole():
    config = replace(tiny.BASE, positions="learned")
    specs, scanned = (specs_of(build_model(replace(config, scan_layers=scan), 29, 29)) for scan in (False, True))
    assert {name: specs[name] for name in LAYOUTS} == LAYOUTS
    stacked = {name.replace("layer_0", "layers"): (None,) * ("layer_0" in name) + spec for name, spec in LAYOUTS.items()}
    assert {name: scanned[name] for name in stacked} == stacked


def test_recurrent_kernels_lie_over_fsdp_on_their_input_side_and_never_over_tensor():
    specs = specs_of(build_model(RUNGS["normalised"], 29, 29))
    assert {name: specs[name] for name in RECURRENT_LAYOUTS} == RECURRENT_LAYOUTS
    assert {name for name, spec in specs.items() if "tensor" in spec} == {f"{x}_embedding/table" for x in ("source", "target", "output")}


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


def test_an_undeclared_parameter_is_whole_everywhere_and_others_of_the_same_model_are_not():
    specs = specs_of(build_model(Own(), 29, 29))
    assert specs.pop("target_embedding/table") == specs.pop("output_embedding/table") == ("tensor", "fsdp")
    assert set(specs) == {f"encoder/{layer}/{name}" for layer in ("kv", "out") for name in ("kernel", "bias")}
    assert all(set(spec) <= {None} for spec in specs.values())


def around(model, optimizer, **fields):
    """-> a state, the shardings of its parameters, and those of its optimizer state."""
    rule = make_optimizer(Optimizer(name=optimizer, **fields), model.axes)
    state = jax.eval_shape(lambda: initial_state(model, rule, Training()))
    params = sharding.param_shardings(state.params, model.axes, GRID)
    return rule, state, params, sharding.state_shardings(state.opt_state, state.params, params)


@pytest.mark.parametrize("optimizer", ["adam", "adafactor", "muon"])
@pytest.mark.parametrize("name", ["rotary", "scanned"])
def test_optimizer_states_lie_like_their_parameters(name, optimizer):
    _, state, params, laid = around(tiny.model_of(VARIANTS[name]), optimizer)
    specs, shapes = {name: s.spec for name, s in by_name(params).items()}, {name: x.shape for name, x in by_name(state.params).items()}
    matched = 0
    for (path, s), leaf in zip(by_name(laid).items(), jax.tree.leaves(state.opt_state), strict=True):
        owner = next((known for known in specs if path.endswith(f"/{known}")), None)
        if owner and leaf.shape == shapes[owner]:
            assert s.spec == specs[owner], path
            matched += 1
        else:
            assert leaf.ndim <= 1 or owner, path
    assert matched >= len(specs) / 2


@pytest.mark.parametrize("optimizer", ["adam", "adafactor", "muon"])
def test_any_optimizer_takes_a_users_parameters(optimizer):
    rule, state, _, laid = around(build_model(Own(), 29, 29), optimizer, weight_decay=0.0 if optimizer == "adam" else 0.1)
    updates, _ = jax.eval_shape(rule.update, state.params, state.opt_state, state.params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, state.params)
    assert PartitionSpec("tensor", "fsdp") in {s.spec for s in jax.tree.leaves(laid)}


def test_a_mesh_axis_splits_one_dimension_of_a_parameter_and_must_divide_it():
    assert sharding.param_spec("x", "DD", (16, 24), GRID) == PartitionSpec("fsdp", None)
    assert sharding.param_spec("x", "-F", (15, 24), GRID) == PartitionSpec(None, "tensor")
    with pytest.raises(UserError, match=r"mesh.tensor 2 does not divide 25.*wi/kernel \(16, 25\)"):
        sharding.param_spec("wi/kernel", "DF", (16, 25), GRID)


@pytest.mark.parametrize("mesh", [Mesh(data=2), Mesh(data=-1, fsdp=2), Mesh(data=-1, fsdp=-1)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(mesh):
    with pytest.raises(UserError, match="does not fit 1 device"):
        sharding.make_mesh(mesh)


def test_devices_along_data_share_the_longest_dimension_that_they_can_split():
    def spread(shape, *spec, mesh=GRID):
        made = sharding.shard_over_data(jax.sharding.NamedSharding(mesh, PartitionSpec(*spec)), shape)
        return tuple(made.spec)

    assert spread((512, 256), None, "tensor") == ("data", "tensor")
    assert spread((512, 1024), "fsdp", "tensor") == ("fsdp", ("tensor", "data"))  # 256 and 512 are left of them
    assert spread((3, 512, 129), None, "fsdp") == (None, ("fsdp", "data"), None)
    layers = jax.sharding.NamedSharding(GRID, PartitionSpec())
    assert sharding.shard_over_data(layers, (4096, 64), "LD").spec == PartitionSpec(None, ("data",))
    assert spread((257, 257)) == () and spread((64,)) == ()  # cannot be split, and too small
    wide = jax.sharding.AbstractMesh((4, 1, 1), sharding.AXES)
    assert spread((512, 256), "fsdp", "tensor", mesh=wide) == ("data", "tensor")
    alone = jax.sharding.AbstractMesh((1, 2, 2), sharding.AXES)
    assert spread((512, 256), "fsdp", None, mesh=alone) == ("fsdp", None)


def test_kernels_with_heads_are_spread_along_them_and_sent_with_the_input_last_where_heads_are_an_axis(monkeypatch):
    monkeypatch.setattr(sharding, "platform_of", lambda mesh: Platform(branches=False, logits=0, keeps_heads=True))
    wide = jax.sharding.AbstractMesh((4, 1, 1), sharding.AXES)
    spread = lambda shape, axes: sharding.shard_over_data(jax.sharding.NamedSharding(wide, PartitionSpec()), shape, axes).spec  # noqa: E731
    assert spread((512, 3, 8, 64), "D3HK") == PartitionSpec(None, None, ("data",), None)
    assert spread((8, 64, 512), "HKD") == PartitionSpec(("data",), None, None)
    assert spread((512, 3, 6, 64), "D3HK") == PartitionSpec(("data",), None, None, None)  # of 6 heads, 4 devices have no equal part
    mesh = sharding.make_mesh(Mesh(data=1), jax.devices()[:1])
    whole = jax.sharding.NamedSharding(mesh, PartitionSpec("fsdp", None, "tensor"))
    kernel = jnp.arange(6 * 3 * 2 * 5.0).reshape(6, 3, 2, 5)
    jaxpr = jax.make_jaxpr(lambda x: sharding.gather_over_data(x, whole, "D3HK"))(kernel)
    sent = next(equation for equation in jaxpr.eqns if equation.primitive.name == "sharding_constraint")
    assert sent.invars[0].aval.shape == (3, 2, 5, 6) and sent.params["sharding"].spec == PartitionSpec(None, "tensor", None, "fsdp")
    for axes in ("D3HK", "LDHK", "HKLD", "DFVP"):
        np.testing.assert_array_equal(sharding.gather_over_data(kernel, whole, axes), kernel)


def test_an_adafactor_vector_keeps_the_axes_it_still_has():
    spec = PartitionSpec("fsdp", "tensor")
    assert sharding._inherit((16,), (16, 24), spec) == PartitionSpec("fsdp")
    assert sharding._inherit((24,), (16, 24), spec) == PartitionSpec("tensor")
    assert sharding._inherit((1,), (16, 24), spec) == PartitionSpec()


def test_tables_are_gathered_in_bfloat16_and_predictions_are_the_same():
    """The gathered table is float32 again, so that its gradient is."""
    model = model_of(replace(tiny.BASE, dtype="bfloat16"))
    params = tiny.params_of(model)
    mesh = sharding.make_mesh(Mesh(data=1), jax.devices()[:1])
    compute = sharding.param_shardings(params, model.axes, mesh)
    gather = ShardedUpdate(model, model.axes, compute, compute).gather
    sent = {
        tuple(equation.outvars[0].aval.shape): equation.outvars[0].aval.dtype
        for equation in jax.make_jaxpr(gather)(params).jaxpr.eqns
        if equation.primitive.name == "sharding_constraint"
    }
    read, table = jax.jit(gather)(params), params["shared_embedding"]["table"]
    assert sent[table.shape] == jnp.bfloat16 and read["shared_embedding"]["table"].dtype == jnp.float32
    np.testing.assert_array_equal(read["shared_embedding"]["table"], table.astype(jnp.bfloat16).astype(jnp.float32))
    tokens = batch_of(random_pairs(3), [[0], [1], [2]], 8, 8)
    tiny.assert_close(*(model.decode(each, model.encode(each, tokens), tokens) for each in (params, read)), atol=0)
