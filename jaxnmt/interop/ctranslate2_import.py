"""Read a model folder of CTranslate2 that `jaxnmt export` has written, or that has the same names, numbers and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.config import checks
from jaxnmt.data.pieces import Pieces
from jaxnmt.data.tokenizer import Tokenizer, load_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.interop import ctranslate2, ctranslate2_binary
from jaxnmt.interop import ctranslate2_layout as layout
from jaxnmt.interop.untrusted import SETTINGS_SIZE, VOCABULARY_SIZE, read_bytes, read_json
from jaxnmt.parallel import compiler

_FIRST = "encoder/layer_0"
_TYPES = (np.float32, np.int8)
"""The types of weights that are read."""


class Imported(NamedTuple):
    """A model of other software.

    Attributes:
        experiment: the settings of the run that it becomes.
        tokenizer: its tokenizer.
        params: its parameters by path, float32.
    """

    experiment: cfg.Experiment
    tokenizer: Tokenizer
    params: dict[str, np.ndarray]


def is_folder(folder: Path) -> bool:
    """Return whether a folder has a model of CTranslate2."""
    return (folder / ctranslate2.MODEL).exists() and any(folder.glob("*_vocabulary.json"))


def read(folder: Path) -> Imported:
    """Read a model folder. Memory is bounded by the size of its files.

    Raises:
        UserError: a file is missing or damaged; or `export` would write this model differently.
    """
    path, tokenizer = folder / ctranslate2.MODEL, _tokenizer(folder)
    found = ctranslate2_binary.read(path)
    if other := next((array.dtype for array in found.arrays.values() if array.ndim and array.dtype not in _TYPES), None):
        raise UserError(
            f"{path} has weights in {other}, and float32 and int8 are read: convert the model again with --quantization float32"
        )
    arrays = found.arrays | {alias: found.arrays[name] for alias, name in found.aliases.items()}
    is_int8 = any(array.dtype == np.int8 and array.ndim == 2 for array in arrays.values())
    try:
        model = _architecture(arrays, found.aliases, tokenizer)
        experiment = cfg.Experiment(model=model, decoding=cfg.Decoding(**ctranslate2.SEARCH))
        checks.validate(experiment)
        modules = _parameters(model, arrays, tokenizer)
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is no model that jaxnmt has: {why}. Use CTranslate2 itself for it") from None
    expected = ctranslate2.variables(model, modules, tokenizer, is_int8, 0)
    if problem := _difference(found, expected):
        raise UserError(f"{path} is no model that jaxnmt has: {problem}. Use CTranslate2 itself for it")
    params = {"/".join(filter(None, (module, name))): x for module, each in modules.items() for name, x in each.items()}
    return Imported(experiment, tokenizer, params)


def _tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer, and check that config.json and the vocabularies of CTranslate2 are its."""
    own = folder / "tokenizer"
    if not own.is_dir():
        raise UserError(f"{folder} has no tokenizer/, which `jaxnmt export` writes: copy the tokenizer of the run there")
    described = read_json(own / "tokenizer.json", SETTINGS_SIZE)
    names = described.get("files")
    if not isinstance(names, list) or len(names) not in (1, 2) or not all(isinstance(x, str) and Path(x).name == x for x in names):
        raise UserError(f"{own / 'tokenizer.json'} does not name files of its folder: copy the tokenizer of the run there")
    if not isinstance(described.get("joiner"), str) or described.get("normalization", "none") not in ("nfc", "none"):
        raise UserError(f"{own / 'tokenizer.json'} has another joiner or normalization than text: copy the tokenizer of the run there")
    models = [str(Path(name).with_suffix(f".{Pieces.model_suffix}")) for name in names if Path(name).suffix == f".{Pieces.suffix}"]
    for name in (*names, *models):
        read_bytes(own / name, VOCABULARY_SIZE)
    tokenizer = load_tokenizer(own)
    settings = read_json(folder / ctranslate2.CONFIG)
    for name, value in ctranslate2.settings(tokenizer).items():
        if settings.get(name) != value:
            raise UserError(f"{folder / ctranslate2.CONFIG}: {name} is {settings.get(name)!r}, and of a model of jaxnmt {value!r}")
    for name, pieces in ctranslate2.vocabularies(tokenizer).items():
        try:
            listed = json.loads(read_bytes(folder / name, VOCABULARY_SIZE))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{folder / name} is not JSON: {str(error)[:200]}") from None
        if listed != pieces:
            raise UserError(f"{folder / name} does not list the tokens of {own}: copy both from one export")
    return tokenizer


def _architecture(arrays: dict[str, np.ndarray], aliases: dict[str, str], tokenizer: Tokenizer) -> cfg.Transformer:
    """Return the model that the arrays are of.

    Raises:
        KeyError, ValueError, IndexError: they are of no model of ours.
    """
    number = lambda name: int(_ranked(arrays, name, 0))  # noqa: E731
    counts = {side: sum(f"{side}/layer_{i}/ffn/linear_0/weight" in arrays for i in range(len(arrays))) for side in ("encoder", "decoder")}
    hidden, width = _ranked(arrays, f"{_FIRST}/ffn/linear_0/weight", 2).shape
    gated = f"{_FIRST}/ffn/linear_0_noact/weight" in arrays
    names = {code: name for name, code in layout.ACTIVATIONS.items() if name != "swiglu"}
    shared = {
        name for name in ("decoder/projection/weight", "encoder/embeddings_0/weight") if aliases.get(name) == "decoder/embeddings/weight"
    }
    kind, places = _positions(arrays, width)
    bias = _ranked(arrays, "decoder/projection/bias", 1)
    return cfg.Transformer(
        emb_dim=width,
        num_heads=number("encoder/num_heads"),
        head_dim=number(head_dim) if (head_dim := f"{_FIRST}/self_attention/head_dim") in arrays else 0,
        mlp_dim=hidden,
        num_encoder_layers=counts["encoder"],
        num_decoder_layers=counts["decoder"],
        norm_order="pre" if number("encoder/pre_norm") else "post",
        norm="layernorm" if f"{_FIRST}/ffn/layer_norm/beta" in arrays else "rmsnorm",
        activation="swiglu" if gated else names[number("encoder/activation")],  # type: ignore[arg-type]
        positions=kind,  # type: ignore[arg-type]
        max_positions=places,
        scale_embeddings=bool(number("encoder/scale_embeddings")),
        tie_embeddings={0: "none", 1: "decoder", 2: "all"}[len(shared)],  # type: ignore[arg-type]
        output_bias=not np.array_equal(bias, layout.output_bias(tokenizer.target_vocab_size, None)),
    )


def _ranked(arrays: dict[str, np.ndarray], name: str, rank: int) -> np.ndarray:
    """Return an array that has this many axes.

    Raises:
        KeyError, ValueError: it is missing, or has others.
    """
    if arrays[name].ndim != rank:
        raise ValueError(f"{name!r} has {arrays[name].ndim} axes, not {rank}")
    return arrays[name]


def _positions(arrays: dict[str, np.ndarray], width: int) -> tuple[str, int]:
    """Return the kind of positions, and the number of learned ones."""
    default = cfg.Transformer().max_positions
    if f"{_FIRST}/self_attention/rotary_dim" in arrays:
        return "rotary", default
    tables = [arrays[f"{side}/position_encodings/encodings"] for side in ("encoder", "decoder")]
    if not all(table.ndim == 2 and len(table) >= layout.POSITIONS and table.shape[1] == width for table in tables):
        raise ValueError(f"the tables of positions do not have {layout.POSITIONS:,} rows, or have other widths than the embeddings")
    for kind in ("none", "sinusoidal", "fairseq"):
        like = layout.positions(cfg.replace(cfg.Transformer(), positions=kind, emb_dim=width), None, 0)
        if np.array_equal(tables[0], like):
            return kind, default
    last = max(int(np.flatnonzero((table != table[-1]).any(1)).max(initial=-1)) for table in tables)
    return "learned", last + 2  # the last row is repeated


def _parameters(model: cfg.Transformer, arrays: dict[str, np.ndarray], tokenizer: Tokenizer) -> dict[str, dict[str, np.ndarray]]:
    """Return the parameters of each module by its path.

    Raises:
        KeyError, ValueError: an array is missing or has another size.
    """
    compiler.check()
    import jax

    from jaxnmt.models.seq2seq import build_model
    from jaxnmt.parallel.axes import path_name

    shapes: dict[str, dict[str, Any]] = {}
    built = build_model(model, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    for path, x in jax.tree_util.tree_leaves_with_path(built.shapes):
        module, _, name = path_name(path).rpartition("/")
        shapes.setdefault(module, {})[name] = x
    found = {}
    for ours, theirs, kind in layout.pairs(model):
        if ours not in found:
            named = {
                name: _float32(arrays, f"{theirs}/{name}") for name in ("weight", "bias", "gamma", "beta") if f"{theirs}/{name}" in arrays
            }
            found[ours] = layout.to_ours(kind, named, shapes[ours])
    for side in ("encoder", "decoder") if model.positions == "learned" else ():
        found[f"{side}_positions"] = {"table": arrays[f"{side}/position_encodings/encodings"][: model.max_positions].astype(np.float32)}
    if model.output_bias:
        bias, size = arrays["decoder/projection/bias"], shapes[""]["output_bias"].shape[0]
        found[""] = {"output_bias": np.pad(bias, (0, size - len(bias))).astype(np.float32)}
    return found


def _float32(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    array = arrays[name]
    return array.astype(np.float32) / arrays[f"{name}_scale"][:, None] if array.dtype == np.int8 else array


def _difference(found: ctranslate2_binary.Variables, expected: ctranslate2_binary.Variables) -> str:
    """Return what a file has that is not expected, or lacks, or has otherwise; "" if it is as expected."""
    for what, theirs, ours in (("array", found.arrays, expected.arrays), ("alias", found.aliases, expected.aliases)):
        if names := sorted(theirs.keys() ^ ours.keys()):
            return f"the {what} {names[0]!r} is {'there' if names[0] in theirs else 'missing'}"
    for name, array in found.arrays.items():
        other = expected.arrays[name]
        same = np.allclose if name.endswith("_scale") else np.array_equal  # a scale that was multiplied and divided is rounded
        if array.dtype != other.dtype or array.shape != other.shape or not same(array, other):
            return f"{name!r} has other values"
    return next((f"{alias!r} stands for {name!r}" for alias, name in found.aliases.items() if expected.aliases[alias] != name), "")
