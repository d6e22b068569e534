"""CTranslate2's model folder: written, read back to the bit, and refused if it is damaged or of another model."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import foreign
import jax
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import FIRST_TOKEN
from jaxnmt.errors import UserError
from jaxnmt.interop import ctranslate2, ctranslate2_binary, ctranslate2_layout
from jaxnmt.interop.engine import searching, with_engine

ARRAYS = {"b/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a/scale": np.ones(2, np.float32), "n": np.asarray(np.int16(4))}
FORMS = {
    "pre": {},
    "post": {"norm_order": "post", "positions": "none", "num_decoder_layers": 2, "output_bias": True, "activation": "gelu_exact"},
    "rotary": {
        **{"norm": "rmsnorm", "positions": "rotary", "activation": "swiglu", "tie_embeddings": "decoder", "head_dim": 6},
        **{"joint": False, "scale_embeddings": False},
    },
    "learned": {"positions": "learned", "max_positions": 40, "tie_embeddings": "none", "joint": False, "norm": "rmsnorm"},
}


def read_back(path: Path, data: bytes) -> ctranslate2_binary.Variables:
    path.write_bytes(data)
    return ctranslate2_binary.read(path)


@pytest.fixture
def model_file(tmp_path) -> Path:
    ctranslate2_binary.write(tmp_path / "model.bin", ARRAYS, {"c/weight": "b/weight"})
    return tmp_path / "model.bin"


def test_a_model_file_has_the_documented_bytes(model_file):
    name, kind = b"\x10\0TransformerSpec\0", b"\x02\0n\0" + b"\0" + b"\x02" + struct.pack("<I", 2) + b"\x04\0"
    assert model_file.read_bytes()[:30] == struct.pack("<I", 6) + name + struct.pack("<II", 7, 3)
    assert model_file.read_bytes().endswith(kind + struct.pack("<I", 1) + b"\x09\0c/weight\0\x09\0b/weight\0")
    found = ctranslate2_binary.read(model_file)
    tiny.assert_same(found.arrays, ARRAYS)
    assert found.aliases == {"c/weight": "b/weight"} and list(found.arrays) == sorted(ARRAYS)


def test_every_truncation_is_refused(model_file):
    whole = model_file.read_bytes()
    for length in range(len(whole)):
        with pytest.raises(UserError, match="model.bin"):
            read_back(model_file, whole[:length])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"TransformerSpec", b"WhisperSpec\0\0\0\0", "is version 6 with a 'WhisperSpec"),
        (struct.pack("<II", 2, 3), struct.pack("<II", 2**31, 2**31), "needs 18,446,744,073,709,551,616 bytes and promises 24"),
        (struct.pack("<II", 7, 3), struct.pack("<II", 7, 2**32 - 1), "damaged"),
        (b"a/scale", b"a/\xff\xfeale", "is not text"),
        (b"a/scale\0\x01", b"a/scale\0\xff", "has 255 axes"),
        (b"\x09\0b/weight\0" + b"\x02", b"\x09\0b/weight\0" + b"\x03", "damaged"),
        (struct.pack("<II", 2, 3) + b"\0", struct.pack("<II", 2, 3) + b"\x05", "is of type 5"),
        (b"c/weight\0\x09\0b/weight", b"c/weight\0\x09\0x/weight", "stands for 'x/weight', which is not there"),
        (b"\x09\0c/weight", b"\x09\0b/weight", "is there twice"),
    ],
)
def test_hostile_files_are_refused_and_cost_no_memory(old, new, says, model_file):
    data = model_file.read_bytes()
    assert data.count(old) >= 1
    tracemalloc.start()
    with pytest.raises(UserError, match="damaged|version") as refused:
        read_back(model_file, data.replace(old, new, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert says in str(refused.value) and peak < 2**20


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "README.md"}


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_back_goes_out_to_the_bit(form, tmp_path):
    run = foreign.run(tmp_path / "run", **FORMS[form])
    (tmp_path / "out").mkdir()
    ctranslate2.write(run, tmp_path / "out")
    back = jaxnmt.import_model(tmp_path / "out", tmp_path / "back")
    assert back.config.model == cfg.replace(run.config.model, dropout=back.config.model.dropout)  # which only training reads
    sizes = {"source_embedding": run.tokenizer.source_vocab_size}
    for name, x in foreign.arrays(run.params).items():
        is_table = "embedding" in name or name == "output_bias"  # which has rows that are no tokens
        tokens = slice(0, sizes.get(name.partition("/")[0], run.tokenizer.target_vocab_size)) if is_table else slice(None)
        tokens = slice(FIRST_TOKEN, tokens.stop) if name == "output_bias" else tokens  # no translation has PAD and BOS
        np.testing.assert_array_equal(foreign.arrays(back.params)[name][tokens], x[tokens], err_msg=name)
    (tmp_path / "again").mkdir()
    ctranslate2.write(back, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_int8_is_read_as_the_numbers_that_it_stands_for(tmp_path):
    run = jaxnmt.load(foreign.run(tmp_path / "run").folder, weights="int8")
    (tmp_path / "out").mkdir()
    ctranslate2.write(run, tmp_path / "out")
    back = jaxnmt.import_model(tmp_path / "out", tmp_path / "back")
    ours, found = (foreign.arrays(jax.tree.map(np.asarray, ctranslate2._float32(each.params))) for each in (run, back))
    tokens = run.tokenizer.target_vocab_size
    for name, x in ours.items():
        np.testing.assert_allclose(found[name][:tokens], x[:tokens], rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_row_is_quantised_by_its_largest_number():
    values, scale = ctranslate2_layout.quantised(np.array([[1.0, -2.0, 0.5], [0, 0, 0]], np.float32))
    assert values.tolist() == [[64, -127, 32], [0, 0, 0]] and scale.tolist() == [63.5, 1.0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "out").mkdir()
    ctranslate2.write(foreign.run(folder / "run"), folder / "out")
    return folder / "out"


WEIGHT = "encoder/layer_0/ffn/linear_0/weight"
CHANGES = {
    "no tokenizer": (lambda f: [path.unlink() for path in (f / "tokenizer").iterdir()], "has no tokenizer.json"),
    "names a file elsewhere": (
        lambda f: (f / "tokenizer/tokenizer.json").write_text('{"files": ["../../x"], "joiner": ""}'),
        "does not name files of its folder",
    ),
    "another epsilon": (lambda f: settings(f, layer_norm_epsilon=1e-6), "layer_norm_epsilon is 1e-06"),
    "starts otherwise": (lambda f: settings(f, decoder_start_token="</s>"), "decoder_start_token is '</s>'"),
    "vocabulary of another": (lambda f: (f / "shared_vocabulary.json").write_text("[1]"), "does not list the tokens"),
    "vocabulary nests": (lambda f: (f / "shared_vocabulary.json").write_text("[" * 10**5), "is not JSON"),
    "alibi": (lambda f: arrays(f, lambda a: a.update({"decoder/alibi": np.asarray(np.int8(1))})), "'decoder/alibi' has other values"),
    "more": (lambda f: arrays(f, lambda a: a.update({"decoder/q_norm/gamma": np.ones(3, np.float32)})), "'decoder/q_norm/gamma' is there"),
    "less": (lambda f: arrays(f, lambda a: a.pop("encoder/layer_0/ffn/layer_norm/gamma")), "is missing"),
    "heads": (lambda f: arrays(f, lambda a: a.update({"encoder/num_heads": np.asarray(np.int16(5))})), "not divisible"),
    "a NaN": (
        lambda f: arrays(f, lambda a: a.update({"encoder/layer_0/ffn/linear_1/bias": np.full(16, np.nan, np.float32)})),
        "other values",
    ),
    "float16": (
        lambda f: arrays(f, lambda a: a.update({WEIGHT: a[WEIGHT].astype(np.float16)})),
        "weights in float16, and float32 and int8 are read",
    ),
    "int16": (lambda f: arrays(f, lambda a: a.update({WEIGHT: a[WEIGHT].astype(np.int16)})), "weights in int16"),
    "heads in a row": (
        lambda f: arrays(f, lambda a: a.update({"encoder/num_heads": np.ones(1, np.int8)})),
        "'encoder/num_heads' has 1 axes, not 0",
    ),
    "one bias": (
        lambda f: arrays(f, lambda a: a.update({"decoder/projection/bias": np.asarray(np.float32(1))})),
        "'decoder/projection/bias' has 0 axes, not 1",
    ),
    "a flat weight": (lambda f: arrays(f, lambda a: a.update({WEIGHT: np.ones(3, np.float32)})), "has 1 axes, not 2"),
    "wide, and without positions": (lambda f: arrays(f, wide), "the tables of positions do not have 2,048 rows"),
    "no files of the tokenizer": (lambda f: described(f, files=[]), "does not name files of its folder"),
    "a joiner that is no text": (lambda f: described(f, joiner=[1]), "has another joiner or normalization"),
    "a normalization that is no text": (lambda f: described(f, normalization=[5]), "has another joiner or normalization"),
    "a tokenizer that nests": (lambda f: pieces(f, lambda name: name.write_text("[" * 10**5)), "is incomplete or damaged"),
    "a huge tokenizer": (
        lambda f: pieces(f, lambda name: os.truncate(name.with_suffix(".spm"), 2**34)),
        "joint.spm has 17,179,869,184 bytes",
    ),
    "shape": (lambda f: arrays(f, lambda a: a.update({"encoder/layer_0/ffn/linear_1/bias": np.ones(17, np.float32)})), "cannot hold"),
}


def wide(found) -> None:
    tables = [f"{side}/position_encodings/encodings" for side in ("encoder", "decoder")]
    found |= dict.fromkeys([WEIGHT, *(name for name in tables if name in found)], np.zeros((1, 40000), np.float32))


def described(folder: Path, **changes) -> None:
    path = folder / "tokenizer/tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pieces(folder: Path, change) -> None:
    """Give the folder the tokenizer of an imported run, and change it."""
    (folder / "tokenizer/joint.model").rename(folder / "tokenizer/joint.spm")
    (folder / "tokenizer/joint.pieces").write_text("{}")
    described(folder, files=["joint.pieces"])
    change(folder / "tokenizer/joint.pieces")


def settings(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def arrays(folder: Path, change) -> None:
    found = ctranslate2_binary.read(folder / "model.bin")
    changed = {name: np.array(x) for name, x in found.arrays.items()}
    change(changed)
    ctranslate2_binary.write(folder / "model.bin", changed, found.aliases)


@pytest.mark.parametrize("name", CHANGES)
def test_other_models_and_damaged_folders_are_refused(name, exported, tmp_path):
    for path, data in contents(exported).items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(data)
    change, says = CHANGES[name]
    change(tmp_path / "in")
    tracemalloc.start()
    with pytest.raises(UserError, match=".") as refused:
        jaxnmt.import_model(tmp_path / "in", tmp_path / "run")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert says in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": cfg.Recurrent()}, "its model is a Recurrent: use stablehlo"),
        ({"task": cfg.Classification()}, "trained for the task Classification: use safetensors"),
        ({"task": cfg.Language(), "model": cfg.Recurrent()}, "trained for the task Language: use safetensors"),
        ({"model": cfg.Transformer(causal=False)}, "sees no later words"),
    ],
)
def test_what_it_cannot_hold_is_refused_by_name(changes, says):
    run = SimpleNamespace(config=cfg.replace(cfg.Experiment(), **changes), weights="trained")
    assert says in ctranslate2.refusal(run)


def test_the_engine_searches_as_ctranslate2_does_and_refuses_what_it_lacks():
    found = searching(cfg.Decoding(beam_size=3))
    assert (found.beam_size, found.length_normalization, found.patience, found.min_length) == (3, "average", 1.0, 1)
    assert searching(cfg.Decoding(patience=2.0)).patience == 2.0
    for setting in ({"temperature": 1.0}, {"coverage_penalty": 0.2}, {"shortlist": 50}, {"length_normalization": "reward"}):
        with pytest.raises(UserError, match=next(iter(setting))):
            searching(cfg.Decoding(**setting))


def test_the_engine_needs_ctranslate2(tmp_path, monkeypatch):
    run = foreign.run(tmp_path / "run")
    assert with_engine(run, "jaxnmt") is run
    with pytest.raises(UserError, match="there is no engine 'ctranslate': choose one of jaxnmt, ctranslate2"):
        with_engine(run, "ctranslate")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed: pip install 'jaxnmt\[ctranslate2\]'"):
        with_engine(run, "ctranslate2")
