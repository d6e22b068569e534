"""The parameters with which a new run begins, if `config.Init` names another run: which of those it takes, and why not the others."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.config import Experiment, Training
from jaxnmt.config.files import to_json, tupled
from jaxnmt.data.tokenizer import Tokenizer, load_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.models.parameters import parameter_count
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel import distributed
from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.numbers import at_least_float32
from jaxnmt.parallel.sharding import replicated
from jaxnmt.runs import directory
from jaxnmt.training.paths import by_path, modules_around
from jaxnmt.training.saved import CheckpointReader
from jaxnmt.training.state import Rows
from jaxnmt.training.tuning import tuning_of

_TABLES: dict[str, dict[str, str]] = {
    "source_embedding": {"source_embedding": "encoder", "shared_embedding": "encoder"},
    "target_embedding": {"target_embedding": "decoder", "shared_embedding": "decoder"},
    "output_embedding": {"output_embedding": "decoder", "target_embedding": "decoder", "shared_embedding": "decoder"},
    "shared_embedding": {"shared_embedding": "all", "source_embedding": "encoder", "target_embedding": "decoder"},
    "embed_output": {"embed_output": "decoder"},
    "output_bias": {"output_bias": "decoder"},
}
"""For each embedding table, or other parameter with a row for each token: the tables of another run that can initialise it if embeddings
are tied differently, the best first, and the side whose vocabulary they have."""
_SAME_SHAPES = ("num_encoder_layers", "num_decoder_layers", "tie_embeddings", "dtype", "scan_layers", "remat", "causal", "variational")
"""Settings that may differ: a parameter that both models have means the same in both."""
_MOST = 6  # modules that a message names


class Taken(NamedTuple):
    """What a new run takes from another.

    Attributes:
        params: arrays, or rows of tables, by their parameter's path in the new model, layers one by one.
        record: for metrics.jsonl: the run, the checkpoint, its checksum, and how many parameters.
        line: for people.
    """

    params: dict[str, jax.Array | Rows]
    record: dict[str, Any]
    line: str


def take(experiment: Experiment, model: Seq2Seq, like: Any, tokenizer: Tokenizer, mesh: jax.sharding.Mesh) -> Taken:
    """Read the parameters that a new run takes from the run `init.from`. Code of that run's own model is not executed.

    Args:
        model: the new run's, with its layers one by one.
        like: its parameters as ShapeDtypeStructs, with the layout in which they are read.
        tokenizer: the new run's.
        mesh: on which parameters that are not taken are replicated while they are read.

    Raises:
        UserError: the run or checkpoint does not exist, a parameter has another shape, nothing can be taken, or a parameter that is frozen
            would be random.
    """
    run, only = directory.folder(experiment.init.from_), experiment.init.only
    settings, known, reader = directory.settings(run), load_tokenizer(run / "tokenizer"), CheckpointReader(run)
    found = reader.find(distributed.broadcast_decision("init.from", reader.find(experiment.init.checkpoint).which))
    shapes = reader.shapes(found)
    ours, theirs = by_path(like), {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(shapes)}
    different = _different(settings["model"], to_json(experiment)["model"])
    origins = _origins(experiment, model, ours, theirs, _Vocabularies(known, tokenizer), different)
    if not origins:
        raise UserError(
            f"init.from {run}: nothing of it{'' if only == 'all' else f', init.only {only},'} has a place in this model: it has "
            f"{_listed(_modules(theirs, ()))}, this model {_listed(_modules(ours, ()))}"
        )
    new, frozen = _modules(ours, origins), _frozen(experiment.training, model)
    if stuck := _modules((name for name in ours if name in frozen and name not in origins), origins):
        raise UserError(f"{_freezes(experiment)} {_listed(stuck)}, which {run} does not have and which would stay random{different}")
    layouts = {each.name: ours[name].sharding for name, each in origins.items() if not each.mapped}

    def struct(path, x) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layouts.get(path_name(path), replicated(mesh)))

    params = reader.params(found, jax.tree_util.tree_map_with_path(struct, shapes))
    read = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    spelt = {side: known.spellings(tokenizer, side) for side in dict.fromkeys(each.mapped for each in origins.values()) if side}
    for name, each in origins.items():
        unknown = sum(not ids for ids in spelt[each.mapped]) if each.mapped and name in frozen else 0
        if unknown:
            raise UserError(
                f"{_freezes(experiment)} {name.partition('/')[0]}, and {run} cannot spell {unknown:,} tokens of this run's vocabulary, "
                "which would stay random: leave out init.vocabulary map, or train all of it"
            )
    taken = {
        name: _rows(read[each.name], spelt[each.mapped], ours[name].shape[0]) if each.mapped else read[each.name]
        for name, each in origins.items()
    }
    count = sum(x.size for x in taken.values())
    line = f"{count:,} of {parameter_count(like):,} parameters are from {found.name} of {run}{different}"
    line += "".join(f"; {_origin_of_tokens(side, spellings, known, tokenizer)}" for side, spellings in spelt.items())
    record = {"from": str(run), "checkpoint": found.which, "checksum": found.checksum, "parameters": count}
    record |= {"ancestors": ancestors} if (ancestors := directory.ancestry(run)) else {}
    return Taken(taken, record, f"{line}; new: {_listed(new)}" if new else line)


def _frozen(config: Training, model: Seq2Seq) -> set[str]:
    """Return the parameters that no step changes, by their paths; with adapters, all."""
    frozen = tuning_of(config, model).frozen
    return set() if frozen is None else set(by_path(frozen))


def _freezes(experiment: Experiment) -> str:
    return "training.lora.rank trains adapters alone, not" if experiment.training.lora.rank else "training.freeze freezes"


class _Vocabularies(NamedTuple):
    """The tokenizers of the other run and of the new one."""

    known: Tokenizer
    new: Tokenizer

    def are_equal(self, side: str) -> bool:
        """Return whether a side's tokens have the same ids in both."""
        kind = "target" if side == "decoder" else "source"
        return getattr(self.known, f"{kind}_difference")(self.new) is None

    def are_texts(self, side: str) -> bool:
        """Return whether a side's tokens are pieces of text in both: neither labels nor numbers of pictures."""
        return not any(each.has_labels if side == "decoder" else each.reads_pictures for each in self)


class _Origin(NamedTuple):
    """A parameter of the other run that is taken.

    Attributes:
        name: its path there.
        mapped: "source" or "target" if its rows are those of another vocabulary; otherwise "".
    """

    name: str
    mapped: str


def _origins(
    experiment: Experiment, model: Seq2Seq, ours: Mapping[str, Any], theirs: Mapping[str, Any], tokens: _Vocabularies, different: str
) -> dict[str, _Origin]:
    """Return where each parameter that the new run takes is from.

    Args:
        ours, theirs: shapes of the parameters of both models by their paths.
        different: for the message, settings in which the models differ.

    Raises:
        UserError: a parameter has another shape.
    """
    encoder = ("encoder_positions", *(part for part in model.source_side if "/" not in part))
    equal, texts = ({side: holds(side) for side in ("encoder", "decoder")} for holds in (tokens.are_equal, tokens.are_texts))
    maps, letters, only = experiment.init.vocabulary == "map", by_path(model.axes), experiment.init.only
    origins: dict[str, _Origin] = {}
    for name, x in ours.items():
        for origin, side in _candidates(name, encoder):
            whose = "decoder" if side == "decoder" else "encoder"
            is_taken = name == origin and name.partition("/")[0] not in _TABLES or equal[whose]
            is_mapped = maps and not is_taken and letters[name].startswith("V") and texts[whose]
            wanted = (only == "all" or side in (only, "all")) and (is_taken or is_mapped)
            if name not in origins and origin in theirs and wanted:
                if theirs[origin].shape[is_mapped:] == x.shape[is_mapped:]:
                    origins[name] = _Origin(origin, ("target" if side == "decoder" else "source") if is_mapped else "")
                elif origin == name:
                    shaped = f"{name} has the shape {theirs[name].shape} there and {x.shape} here"
                    raise UserError(f"init.from {experiment.init.from_}: {shaped}{different}: give both models the same width")
    return origins


def _rows(table_VD: jax.Array, spellings: Sequence[Sequence[int]], size: int) -> Rows:
    """Return the rows of a new table (size, D) that are means of rows of another run's.

    Args:
        table_VD: the other run's.
        spellings: for each new token, the tokens whose mean it is; if empty, its row is not known.
    """
    lengths = list(map(len, spellings))
    counts: np.ndarray = np.array(lengths + [0] * (size - len(lengths)), np.int32)
    old: np.ndarray = np.array(list(itertools.chain.from_iterable(spellings)), np.int32)
    new: np.ndarray = np.repeat(np.arange(size), counts)
    wide = table_VD.astype(at_least_float32(table_VD.dtype))
    sums = jax.ops.segment_sum(wide[old], new, size)
    return Rows(sums / np.maximum(counts, 1).reshape(-1, *[1] * (sums.ndim - 1)), jnp.asarray(counts > 0))


def _origin_of_tokens(side: str, spellings: Sequence[Sequence[int]], known: Tokenizer, tokenizer: Tokenizer) -> str:
    """Return "of 8,000 source tokens 6,120 keep their vectors, 1,871 are means of others, and 9 are random"."""
    old, new = (getattr(each, f"{side}_pieces") for each in (known, tokenizer))
    kept = sum(old(ids) == [piece] for ids, piece in zip(spellings, new(range(len(spellings))), strict=True))
    unknown = sum(not ids for ids in spellings)
    means = len(spellings) - kept - unknown
    return f"of {len(spellings):,} {side} tokens {kept:,} keep their vectors, {means:,} are means of others, and {unknown:,} are random"


def _candidates(name: str, encoder: Collection[str]) -> Iterable[tuple[str, str]]:
    """Return the parameters of another run that may serve as one of ours, the best first, each with its side: encoder, decoder, or all."""
    module, _, rest = name.partition("/")
    if module in _TABLES:
        return [(f"{table}/{rest}" if rest else table, side) for table, side in _TABLES[module].items()]
    return [(name, "encoder" if module in encoder else "decoder")]


def _different(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return "; model.emb_dim is 128 there and 256 here" for the settings that give parameters other shapes or another meaning."""
    pairs = [(name, tupled(theirs.get(name, value)), tupled(value)) for name, value in ours.items() if name not in _SAME_SHAPES]
    differ = [(name, there, here) for name, there, here in pairs if there != here and not isinstance(here, float)]  # such as dropout
    return "".join(f"; model.{name} is {there} there and {here} here" for name, there, here in differ)


def _modules(names: Iterable[str], without: Iterable[str]) -> list[str]:
    """Return the largest modules that have no parameter in `without`."""
    begun = {module for name in without for module in modules_around(name)}
    return list(dict.fromkeys(next(m for m in modules_around(name) if m not in begun) for name in names if name not in begun))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
