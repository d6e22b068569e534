"""Files that others made and that are not what they should be: refused by name, with bounded memory, and nothing is left behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tracemalloc

import foreign
import numpy as np
import pytest

import jaxnmt
from jaxnmt import cli
from jaxnmt.errors import UserError

pytest.importorskip("safetensors", reason="models are exchanged in the format safetensors")
from safetensors.numpy import load_file, save_file  # noqa: E402

MEMORY = 64 * 2**20
"""Bytes that reading a hostile folder may take."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    jaxnmt.export_model(foreign.run(folder / "run", norm_order="post"), folder / "good", "marian")
    jaxnmt.import_model(folder / "good", folder / "back")  # what is imported once is not counted below
    return folder / "good"


@pytest.fixture
def folder(good, tmp_path):
    shutil.copytree(good, tmp_path / "m")
    return tmp_path / "m"


def refused(folder) -> str:
    """Return the message, after checking what else is promised."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            jaxnmt.import_model(folder, folder.parent / "run")
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    return str(error.value)


# ---- numbers


def header(folder, change) -> None:
    """Write the file with another header, as `change` makes it."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    made = json.dumps(change(json.loads(data[8 : 8 + size]))).encode()
    path.write_bytes(struct.pack("<Q", len(made)) + made + data[8 + size :])


def tensors(folder, change) -> None:
    path = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(x) for name, x in change(load_file(path)).items()}, path)


Q, SHARED = "model.encoder.layers.0.self_attn.q_proj.weight", "model.shared.weight"
FC1, FC2 = "model.encoder.layers.0.fc1.weight", "model.encoder.layers.0.fc2.weight"

NUMBERS = {
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 3000), "is not a safetensors file, or is damaged"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "is not a safetensors file, or is damaged"),
    "a header of gigabytes": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**33) + b"{}"),
        "its header would have 8,589,934,592 bytes",
    ),
    "10^12 elements": (lambda f: header(f, lambda h: h | {Q: h[Q] | {"shape": [10**6, 10**6]}}), "is damaged"),
    "10^12 elements at their place": (
        lambda f: header(f, lambda h: h | {Q: {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}),
        "is damaged",
    ),
    "overlapping": (lambda f: header(f, lambda h: h | {Q: h[Q] | {"data_offsets": h[SHARED]["data_offsets"]}}), "is damaged"),
    "renamed": (lambda f: tensors(f, lambda t: {name.replace("q_proj", "quark"): x for name, x in t.items()}), "quark"),
    "missing": (lambda f: tensors(f, lambda t: {n: x for n, x in t.items() if n != Q}), f"has no tensor {Q}"),
    "one too many": (lambda f: tensors(f, lambda t: t | {"evil": np.zeros(3, np.float32)}), "has a tensor evil"),
    "swapped": (
        lambda f: tensors(f, lambda t: t | {FC1: t[FC2], FC2: t[FC1]}),
        "has the shape (16, 24), and by config.json it has (24, 16)",
    ),
    "swapped in the header": (lambda f: header(f, lambda h: h | {FC1: h[FC2], FC2: h[FC1]}), "has the shape (16, 24)"),
    "another shape": (lambda f: tensors(f, lambda t: t | {Q: t[Q][:8]}), f"the tensor {Q} has the shape (8, 16)"),
    "another type": (lambda f: tensors(f, lambda t: t | {Q: t[Q].astype(np.int64)}), f"the tensor {Q} has the type I64"),
    "NaN": (lambda f: tensors(f, lambda t: t | {Q: t[Q] * np.float32("nan")}), f"the tensor {Q} has NaN or infinite numbers"),
    "a copy that differs": (
        lambda f: tensors(f, lambda t: t | {"lm_head.weight": t[SHARED] + 1}),
        "lm_head.weight differs from model.shared",
    ),
    "positions that are no sinusoids": (
        lambda f: tensors(f, lambda t: t | {"model.encoder.embed_positions.weight": np.zeros((512, 16), np.float32)}),
        "model.encoder.embed_positions.weight differs from sinusoids",
    ),
    "no file": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "a pipe": (lambda f: ((f / "model.safetensors").unlink(), os.mkfifo(f / "model.safetensors")), "has no file model.safetensors"),
}


class Bomb:
    """Executes code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["JAXNMT_BOMB"],)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.npz"])
def test_pickles_are_refused_with_the_way_to_convert_them(name, folder, monkeypatch):
    monkeypatch.setenv("JAXNMT_BOMB", str(folder.parent / "exploded"))
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    message = refused(folder)
    assert name in message and "may execute code" in message and "save_pretrained" in message


# ---- numbers in several files

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def split(folder) -> None:
    """Put the numbers into two files and an index, as transformers does."""
    path = folder / "model.safetensors"
    found = load_file(path)
    places = {name: FIRST if index % 2 else SECOND for index, name in enumerate(sorted(found))}
    for file in (FIRST, SECOND):
        save_file({name: x for name, x in found.items() if places[name] == file}, folder / file)
    size = sum(x.nbytes for x in found.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))
    path.unlink()


def index(folder, change) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def places(folder, change) -> None:
    index(folder, lambda i: i | {"weight_map": change(i["weight_map"])})


def both_have(folder, name) -> None:
    """Put a tensor of one file into the other too."""
    one, other = (load_file(folder / file) for file in (FIRST, SECOND))
    all_of_them = one | other
    for file, mine in ((FIRST, one), (SECOND, other)):
        save_file(mine | {name: all_of_them[name]}, folder / file)


SEVERAL = {
    "no JSON": (lambda f: (f / "model.safetensors.index.json").write_text("{"), "index.json is not JSON"),
    "no map": (lambda f: index(f, lambda i: {}), "index.json has no weight_map"),
    "an empty map": (lambda f: places(f, lambda p: {}), "index.json has no weight_map"),
    "a list": (lambda f: places(f, lambda p: list(p)), "index.json has no weight_map"),
    "a number": (lambda f: places(f, lambda p: p | {Q: 1}), "index.json has no weight_map"),
    "outside": (lambda f: places(f, lambda p: p | {Q: "../m/" + p[Q]}), "which is not a safetensors file in the folder itself"),
    "absolute": (lambda f: places(f, lambda p: p | {Q: str(f / p[Q])}), "which is not a safetensors file in the folder itself"),
    "a pickle": (lambda f: places(f, lambda p: p | {Q: "pytorch_model.bin"}), "names 'pytorch_model.bin', which is not a safetensors"),
    "a file missing": (lambda f: (f / SECOND).unlink(), f"has no file {SECOND}"),
    "a file renamed": (lambda f: places(f, lambda p: p | {Q: "other.safetensors"}), "has no file other.safetensors"),
    "a folder": (lambda f: ((f / SECOND).unlink(), (f / SECOND).mkdir()), f"has no file {SECOND}"),
    "many files": (lambda f: places(f, lambda p: p | {f"x{i}": f"{i}.safetensors" for i in range(300)}), "names 302 files"),
    "a file twice": (lambda f: shutil.copy(f / FIRST, f / SECOND), "both have the tensor"),
    "a tensor twice": (lambda f: both_have(f, Q), f"both have the tensor {Q}"),
    "elsewhere": (lambda f: places(f, lambda p: p | {Q: FIRST if p[Q] == SECOND else SECOND}), f"has the tensor {Q}, which by"),
    "not in the map": (lambda f: places(f, lambda p: {n: x for n, x in p.items() if n != Q}), "index.json is nowhere"),
    "promised": (
        lambda f: tensors_of(f, lambda t: {n: x for n, x in t.items() if n != Q}),
        f"index.json has no tensor {Q}",
    ),
    "too many bytes": (lambda f: index(f, lambda i: i | {"metadata": {"total_size": 10**15}}), "promises 1000000000000000 bytes"),
    "no bytes": (lambda f: index(f, lambda i: i | {"metadata": {"total_size": "all"}}), "promises all bytes"),
    "truncated": (lambda f: os.truncate(f / FIRST, 3000), f"{FIRST} is not a safetensors file, or is damaged"),
}


def tensors_of(folder, change) -> None:
    for file in (FIRST, SECOND):
        save_file(change(load_file(folder / file)), folder / file)


@pytest.mark.parametrize("name", SEVERAL)
def test_numbers_in_several_files(name, folder):
    change, says = SEVERAL[name]
    split(folder)
    change(folder)
    message = refused(folder)
    assert says in message and str(folder) in message


def test_several_files_are_one_model(folder):
    one = foreign.arrays(jaxnmt.import_model(folder, folder.parent / "one").params)
    split(folder)
    index(folder, lambda i: i | {"weight_map": i["weight_map"] | {"lm_head.weight": FIRST}})  # a copy that the files leave out
    other = foreign.arrays(jaxnmt.import_model(folder, folder.parent / "several").params)
    assert one.keys() == other.keys() and all((x == other[name]).all() for name, x in one.items())


# ---- settings


def settings(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SETTINGS = {
    "no JSON": (lambda f: (f / "config.json").write_text("{'a': 1}"), "config.json is not JSON"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'), "config.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "config.json holds a JSON list"),
    "nested": (lambda f: (f / "config.json").write_text("[" * 200_000), "nests too deeply"),
    "huge": (lambda f: os.truncate(f / "config.json", 2**40), "config.json has 1,099,511,627,776 bytes"),
    "a name twice": (lambda f: (f / "config.json").write_text('{"d_model": 16, "d_model": 32}'), "the name 'd_model' occurs twice"),
    "half a character": (lambda f: (f / "config.json").write_text('{"d_model": "\\ud800"}'), "config.json is not JSON"),
    "a number of many digits": (lambda f: (f / "config.json").write_text('{"d_model": ' + "9" * 5000 + "}"), "config.json is not JSON"),
    "a missing setting": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "a folder": (lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()), "config.json is not a file"),
    "another model": (lambda f: settings(f, model_type="t5"), "model_type is t5; marian, pegasus, m2m_100 are read"),
    "a model of no kind": (lambda f: settings(f, model_type=["marian"]), "model_type is ['marian']"),
    "a wide one": (lambda f: settings(f, d_model=10**12), "d_model is 1000000000000; it must be a whole number from 1 to 65,536"),
    "a deep one": (lambda f: settings(f, encoder_layers=10**9), "encoder_layers is 1000000000"),
    "deeper than its numbers": (lambda f: settings(f, encoder_layers=200), "has no tensor model.encoder.layers.1.self_attn"),
    "a fraction": (lambda f: settings(f, d_model=16.0), "d_model is 16.0"),
    "true": (lambda f: settings(f, decoder_layers=True), "decoder_layers is True"),
    "negative": (lambda f: settings(f, encoder_ffn_dim=-1), "encoder_ffn_dim is -1"),
    "heads": (lambda f: settings(f, encoder_attention_heads=3, decoder_attention_heads=3), "d_model 16 is not divisible"),
    "unequal halves": (lambda f: settings(f, decoder_ffn_dim=48), "encoder_ffn_dim and decoder_ffn_dim differ"),
    "activation": (lambda f: settings(f, activation_function="quick_gelu"), "activation_function is quick_gelu"),
    "activation of no kind": (lambda f: settings(f, activation_function=["relu"]), "activation_function is ['relu']"),
    "scale": (lambda f: settings(f, scale_embedding="yes"), "scale_embedding is yes; it must be true or false"),
    "an id beyond": (lambda f: settings(f, pad_token_id=10**6), "pad_token_id is 1000000"),
    "another begin": (lambda f: settings(f, decoder_start_token_id=5), "decoder_start_token_id 5 is not pad_token_id"),
    "vocabulary": (lambda f: settings(f, vocab_size=40), "the vocabulary has 39 tokens, and config.json says 40"),
}


@pytest.mark.parametrize("name", NUMBERS | SETTINGS)
def test_numbers_and_settings(name, folder):
    change, says = (NUMBERS | SETTINGS)[name]
    change(folder)
    message = refused(folder)
    assert says in message and str(folder) in message


# ---- tokenizers


def vocabulary(folder, change) -> None:
    path = folder / "vocab.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


TOKENIZERS = {
    "no SentencePiece": (lambda f: (f / "source.spm").write_bytes(b"\x80\x04evil"), "source.spm is not a SentencePiece model"),
    "empty": (lambda f: (f / "target.spm").write_bytes(b""), "target.spm is not a SentencePiece model"),
    "huge": (lambda f: os.truncate(f / "source.spm", 2**34), "source.spm has 17,179,869,184 bytes"),
    "missing": (lambda f: (f / "target.spm").unlink(), "has no target.spm"),
    "no table": (lambda f: (f / "vocab.json").unlink(), "has neither vocab.json"),
    "a table that nests": (lambda f: (f / "vocab.json").write_text('{"a":' * 100_000), "nests too deeply"),
    "an id twice": (lambda f: vocabulary(f, lambda v: v | {"▁": 7}), "ids are 0 to"),
    "an id beyond": (lambda f: vocabulary(f, lambda v: v | {"new": 10**12}), "has the id 1000000000000"),
    "an id that is text": (lambda f: vocabulary(f, lambda v: v | {"new": "39"}), "has the id 39; ids are"),
    "half a character": (lambda f: (f / "vocab.json").write_text('{"\\ud800": 0}'), "vocab.json is not JSON"),
    "no unknown": (lambda f: vocabulary(f, lambda v: {("x" if t == "<unk>" else t): i for t, i in v.items()}), "has no token '<unk>'"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(name, folder):
    change, says = TOKENIZERS[name]
    change(folder)
    message = refused(folder)
    assert says in message and str(folder) in message


# ---- the command


def test_the_command_names_the_mistake_and_writes_nothing(good, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exists").mkdir()
    for words, says in {
        (str(good), "exists"): "exists exists: choose another folder",
        ("nothing", "run"): "nothing is not a folder",
        ("exists", "run"): "exists has no model.safetensors",
    }.items():
        assert cli.main(["import", *words]) == 2
        assert says in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["exists"]
