"""Exports to ONNX, by ONNX Runtime: each primitive, every rung's encoder and step, and whole translations."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import foreign
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.errors import UserError
from jaxnmt.interop import check, onnx
from jaxnmt.interop.formats import Source

library = pytest.importorskip("onnx", reason="ONNX is the format that is tested: pip install onnx onnxruntime")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the software that is compared with: pip install onnxruntime")

from jaxnmt.interop import onnx_loader, onnx_models, onnx_rules  # noqa: E402
from jaxnmt.interop.onnx_graph import Weights  # noqa: E402

TRANSLATING = {
    **{name: each for name, each in tiny.SUBJECTS.items() if type(each[1]) in (cfg.Translation, cfg.Denoising) and name != "scanned"},
    "gelu_exact": (cfg.replace(tiny.BASE, activation="gelu_exact"), cfg.Translation()),
    "window": (cfg.replace(tiny.RNN, window=2, score="general"), cfg.Translation()),
}
LAX, AT = jax.lax, jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS


def gathered(x, i):  # at two places of two axes, of each row's own matrix
    numbers = jax.lax.GatherDimensionNumbers((2,), (1,), (1,), (0,), (0,))
    return jax.lax.gather(x[..., None] * jnp.arange(3.0), i[..., None], numbers, (1, 1, 3), mode=AT)


FUNCTIONS = {  # of x float32 (B, S), positive; y float32 (B, S); i int32 (B, S) from 0 to 2; m bool (B, S)
    "arithmetic": lambda x, y, i, m: (
        x + y,
        x - y,
        x * y,
        x / y,
        -x,
        abs(y),
        LAX.max(x, y),
        LAX.min(x, y),
        i + i,
        i * i,
        LAX.max(i, 1 - i),
    ),
    "functions": lambda x, y, i, m: [
        f(x) for f in (jnp.exp, jnp.log, jnp.sqrt, jnp.sin, jnp.cos, jnp.tanh, LAX.logistic, LAX.erf, LAX.erfc)
    ],
    "powers": lambda x, y, i, m: (LAX.pow(x, y), x**3, LAX.integer_pow(x, -2), LAX.rsqrt(x), LAX.square(y), jnp.log1p(x), LAX.sign(y)),
    "comparisons": lambda x, y, i, m: (x < y, x <= y, x > y, x >= y, i == 1, i != 1, m & (x < y), m | (x < y), ~m),
    "choices": lambda x, y, i, m: (jnp.where(m, x, y), jnp.where(m, i, 7), LAX.is_finite(x / jnp.where(m, 0.0, y)), LAX.stop_gradient(x)),
    "types": lambda x, y, i, m: (i.astype(jnp.float32), (9 * y).astype(jnp.int32), m.astype(jnp.int32), jnp.copy(x)),
    "sums": lambda x, y, i, m: (x.sum(0), y.max(1), LAX.reduce_min(y, (0, 1)), i.sum(), i.max(0)),
    "products": lambda x, y, i, m: (
        jnp.einsum("BS,BS->B", x, y),
        jnp.einsum("BS,CS->BC", x, y),
        jnp.einsum("BST,BTU->BUS", x[:, :, None] * jnp.ones((1, 1, 3)), jnp.ones((x.shape[0], 3, 2))),
        jnp.tensordot(x[:, :, None] * jnp.arange(6.0).reshape(1, 1, 2, 3)[:, 0, :1], jnp.ones((1, 3)), ((2,), (1,))),
        jnp.einsum("BSKL,KLMN->BSMN", x[:, :, None, None] * jnp.arange(6.0).reshape(2, 3), jnp.arange(24.0).reshape(2, 3, 2, 2)),
    ),
    "shapes": lambda x, y, i, m: (
        x.reshape(-1),
        x.reshape(*x.shape, 1).squeeze(2),
        x[None, :, None],
        x.T,
        jnp.broadcast_to(x[:, None], (x.shape[0], 4, x.shape[1])),
        jnp.concatenate([x, y, x], 1),
        *jnp.split(x[..., None] * jnp.arange(5.0), [2], 2),
        jnp.broadcast_to(jnp.float32(3), x.shape),
    ),
    "counts": lambda x, y, i, m: (jnp.arange(x.shape[1]), LAX.broadcasted_iota(jnp.float32, x.shape, 0), x * x.shape[0], jnp.arange(4)),
    "slices": lambda x, y, i, m: (
        x[:, 0],
        x[:, -1],
        x[1:, 1:],
        x[..., None][:, :, :1],
        LAX.slice(x, (0, 1), (*x.shape[:1], 4), (1, 2)),
        LAX.dynamic_slice_in_dim(x, i[0, 0] + 2, 2, 1),
        LAX.dynamic_slice_in_dim(x, 99, 2, 1),
        LAX.dynamic_slice(x, (i[0, 0], i[0, 1]), (1, 2)),
    ),
    "updates": lambda x, y, i, m: (
        LAX.dynamic_update_slice_in_dim(x, y[:, :2], i[0, 0], 1),
        LAX.dynamic_update_slice(x, y[:1, :2], (i[0, 0], i[0, 1])),
        LAX.dynamic_update_slice_in_dim(x, y[:, :2], 99, 1),
    ),
    "gathers": lambda x, y, i, m: (x.T[i], x[i], jnp.take_along_axis(x, i, 1), gathered(x, i), jnp.arange(24.0).reshape(4, 3, 2)[i, i]),
    "scatters": lambda x, y, i, m: (
        jax.vmap(lambda x, i: jnp.zeros(4).at[i].add(x))(x, i),
        jax.vmap(lambda x, i: jnp.zeros((2, 4)).at[:, i].add(x * jnp.ones((2, 1))))(x, i),
        jnp.zeros((4, 3)).at[i[0]].add(x[0][:, None] * jnp.arange(3.0)),
    ),
    "scans": lambda x, y, i, m: (
        *LAX.scan(lambda c, z: (c * z[0] + y[:, 0], (c, c[0] > 1)), x[:, 0], (x.T, m.T)),
        *LAX.scan(lambda c, z: (c + z, c), jnp.zeros(x.shape[0]), x.T, reverse=True),
        LAX.scan(lambda c, z: (c + LAX.scan(lambda d, w: (d + w, None), z, x.T)[0], None), y[:, 0], x.T)[0],
    ),
    "calls": lambda x, y, i, m: (jax.jit(jnp.sin)(x), jax.nn.relu(y), jnp.logaddexp(x, y), jax.checkpoint(jnp.cos)(x)),
}


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x, y = random.uniform(0.5, 2, (3, 5)).astype(np.float32), random.standard_normal((3, 5)).astype(np.float32)
    return {"x": x, "y": y, "i": random.integers(0, 3, (3, 5), np.int32), "m": random.random((3, 5)) < 0.5}


def ran(model, inputs) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model)
    return onnx_loader.run(session, {each.name: inputs[each.name] for each in session.get_inputs()})


def as_model(function, folder):
    """Return the file of an ONNX model of a function, and the primitives that the function uses."""
    sizes = jax.export.symbolic_shape("b, s", constraints=["b >= 3", "s >= 5"])
    shapes = {name: jax.ShapeDtypeStruct(sizes, x.dtype) for name, x in arrays().items()}

    def named(params, inputs):
        return {f"out{n:02}": each for n, each in enumerate(jax.tree.leaves(function(**inputs)))}

    with Weights(folder) as weights:
        library.save(onnx_models.traced("function", named, {}, shapes, weights), str(folder / "f.onnx"))
    return folder / "f.onnx", set(primitives(jax.make_jaxpr(named)({}, shapes).jaxpr))


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            yield from primitives(inner) if hasattr(inner, "eqns") else ()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_primitive_computes_what_jax_does(name, tmp_path):
    model, _ = as_model(FUNCTIONS[name], tmp_path)
    wanted = jax.tree.leaves(FUNCTIONS[name](**{name: jnp.asarray(x) for name, x in arrays().items()}))
    found = ran(model, arrays())
    for each, x in zip(sorted(found), wanted, strict=True):
        assert found[each].dtype == x.dtype and found[each].shape == x.shape, each
        np.testing.assert_allclose(found[each], x, rtol=1e-5, atol=1e-6, err_msg=each)


def test_every_rule_is_tested(tmp_path):
    used = set().union(*(as_model(function, tmp_path)[1] for function in FUNCTIONS.values()))
    assert {*onnx_rules.RULES, *onnx_rules.SAME, *onnx_rules.LOGICAL} <= used


def test_what_has_no_rule_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="JAX's primitive sort, for which there is no rule: use --to stablehlo"):
        as_model(lambda x, y, i, m: jnp.sort(x), tmp_path)
    with pytest.raises(UserError, match="JAX's size floordiv"):
        as_model(lambda x, y, i, m: jnp.zeros((2, x.shape[1] // 2)), tmp_path)
    with pytest.raises(UserError, match="primitive and, for"):
        as_model(lambda x, y, i, m: i & 1, tmp_path)


@pytest.mark.parametrize("name", TRANSLATING)
def test_a_rungs_encoder_and_step_are_the_models(name, tmp_path):
    config, task = TRANSLATING[name]
    model = tiny.model_of(config, task=task)
    params = tiny.params_of(model)
    onnx_models.write(model, params, tmp_path)
    tokens = np.array([[5, 6, 7, 3, 2], [5, 4, 2, 0, 0], [2, 0, 0, 0, 0]], np.int32)
    memory = model.encode(params, {"encoder_input_tokens": tokens})
    carry = model.start(params, memory, 4)
    found = ran(tmp_path / "encoder.onnx", {"tokens": tokens})
    wanted = onnx_models.named(memory, "memory/") | onnx_models.named(model.start(params, memory, 1), "carry/")
    assert {name for name in wanted if name.startswith("carry/")} <= set(found) <= set(wanted)
    for each, x in found.items():
        np.testing.assert_allclose(x, wanted[each], rtol=1e-4, atol=1e-5, err_msg=each)
    beams = lambda tree: {each: np.asarray(x).reshape(3, 2, *x.shape[1:]) for each, x in tree.items()}  # noqa: E731
    carry = jax.tree.map(lambda x: jnp.repeat(x, 2, 0), carry)
    state = {each: x for each, x in found.items() if each.startswith("memory/")} | beams(onnx_models.named(carry, "carry/"))
    for token in (np.full((3, 2), 1, np.int32), np.array([[1, 4], [5, 6], [7, 2]], np.int32), np.array([[8, 3], [5, 5], [4, 9]], np.int32)):
        logits, carry = model.step(params, memory, carry, token.reshape(-1))
        made = ran(tmp_path / "step.onnx", {"token": token, **state})
        np.testing.assert_allclose(made["logits"].reshape(logits.shape), logits, rtol=1e-4, atol=1e-5)
        for each, x in beams(onnx_models.named(carry, "carry/")).items():
            state[each] = made[each.replace("carry/", "next/")]
            np.testing.assert_allclose(state[each], x, rtol=1e-4, atol=1e-5, err_msg=each)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    run = foreign.run(folder / "run")
    return run, folder / "out", jaxnmt.export_model(run, folder / "out", "onnx")


def test_an_export_translates_as_its_run(exported):
    _, folder, found = exported
    assert [(each.beam_size, each.same, each.sentences) for each in found] == [(1, 12, 12), (5, 12, 12)]
    assert "onnxruntime" in (folder / "README.md").read_text() and "jaxnmt" not in (folder / "translate.py").read_text()


def test_both_models_read_one_table(exported):
    run, folder, _ = exported
    models = [library.load(folder / f"{name}.onnx", load_external_data=False) for name in ("encoder", "step")]
    names = [{tensor.name for tensor in model.graph.initializer} for model in models]
    assert "params/shared_embedding/table" in names[0] & names[1]
    table = run.params["shared_embedding"]["table"]
    numbers = sum(x.size for x in jax.tree.leaves(run.params)) + 2048 * run.config.model.emb_dim  # and sinusoids
    assert (folder / "weights.bin").stat().st_size < 4 * numbers + table.nbytes // 2  # of alignment


SETTINGS = [
    {},
    {"length_normalization": "average", "length_penalty": 0.6, "patience": 1.0},
    {"length_normalization": "reward", "length_penalty": 0.5, "min_length": 3, "max_length_ratio": 0.5},
    {"length_penalty": 0.0, "patience": 2.0, "max_length_extra": 1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_loader_searches_as_the_run_does(settings, exported, tmp_path):
    run, folder, _ = exported
    changed = SimpleNamespace(
        config=cfg.replace(run.config, decoding=cfg.replace(run.config.decoding, **settings)), tokenizer=run.tokenizer
    )
    for name in ("encoder.onnx", "step.onnx", "weights.bin", "loader.py"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "search.json").write_text(json.dumps(onnx.settings(changed)))
    lines = foreign.lines(40, 9)
    sources = [Source(line, ids, (), 0) for line, ids in zip(lines, run.tokenizer.encode_source(lines), strict=True)]
    for beam_size in check.BEAMS:
        ours = run.translate(lines, **vars(changed.config.decoding) | {"beam_size": beam_size})
        assert onnx.runtime(changed, tmp_path).translate(sources, beam_size) == [list(each.tokens) for each in ours]


def test_a_run_in_bfloat16_is_written_in_float32(tmp_path):
    found = jaxnmt.export_model(foreign.run(tmp_path / "run", dtype="bfloat16"), tmp_path / "out", "onnx")
    assert [each.same for each in found] == [12, 12]
    types = {tensor.data_type for tensor in library.load(tmp_path / "out/step.onnx", load_external_data=False).graph.initializer}
    assert types <= {library.TensorProto.FLOAT, library.TensorProto.INT32, library.TensorProto.INT64, library.TensorProto.BOOL}


def test_a_corrupted_export_is_caught(tmp_path, monkeypatch):
    right = onnx_models.named

    def swapped(tree, prefix):
        found, first, second = right(tree, prefix), *(f"params/decoder/layer_0/{kind}_norm/scale" for kind in ("cross_attention", "mlp"))
        return found | {first: found[second], second: found[first]} if first in found else found

    monkeypatch.setattr(onnx_models, "named", swapped)
    with pytest.raises(UserError, match="the exported files translate differently"):
        jaxnmt.export_model(foreign.run(tmp_path / "run"), tmp_path / "out", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v.tsv"]


def test_without_onnxruntime_it_is_written_and_not_checked(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert jaxnmt.export_model(foreign.run(tmp_path / "run"), tmp_path / "out", "onnx") == []
    assert "pip install 'jaxnmt[onnx]'" in caplog.text


def test_the_loader_is_a_program(exported):
    run, folder, _ = exported
    lines = foreign.lines(3, 9)
    words = [sys.executable, folder / "translate.py", "2"]
    made = subprocess.run(words, input="\n".join([lines[0], "", *lines[1:]]), capture_output=True, text=True)
    first, *others = (each.text for each in run.translate(lines, beam_size=2))
    assert made.stdout.splitlines() == [first, "", *others]


def test_a_sentence_that_is_too_long_is_named(exported):
    run, folder, _ = exported
    with pytest.raises(ValueError, match="a sentence has 30 tokens, and the model reads 23"):
        onnx.runtime(run, folder).load(1)([[5] * 30])


def test_a_beam_may_be_larger_than_the_vocabulary(exported):
    run, folder, _ = exported
    lines = foreign.lines(3, 9)
    ours = run.translate(lines, beam_size=70)  # of 128 tokens, the first step has less than 140 candidates
    assert len(run.params["shared_embedding"]["table"]) == 128
    found = onnx.runtime(run, folder).load(70)(run.tokenizer.encode_source(lines))
    assert [run.tokenizer.target_pieces(ids) for ids in found] == [list(each.tokens) for each in ours]


@pytest.mark.parametrize(
    "word, line, says", [("0", "das", "a beam has 1 hypothesis or more, not 0"), ("1", "das " * 30, "a sentence has"), ("x", "das", "'x'")]
)
def test_a_mistake_is_answered_in_a_sentence(word, line, says, exported):
    made = subprocess.run([sys.executable, exported[1] / "translate.py", word], input=line, capture_output=True, text=True)
    assert made.returncode == 1 and made.stderr.startswith("translate.py: ") and says in made.stderr and made.stderr.count("\n") == 1
