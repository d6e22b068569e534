"""The parameters with which a new run begins, if `config.Init` names another run: which of those it takes, and why not the others."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import jax

from jaxnmt.config import Experiment
from jaxnmt.config.files import to_json, tupled
from jaxnmt.data.tokenizer import Tokenizer, load_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.models.parameters import parameter_count
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel import distributed
from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.sharding import replicated
from jaxnmt.runs import directory
from jaxnmt.training.saved import CheckpointReader

_TABLES: dict[str, dict[str, str]] = {
    "source_embedding": {"source_embedding": "encoder", "shared_embedding": "encoder"},
    "target_embedding": {"target_embedding": "decoder", "shared_embedding": "decoder"},
    "output_embedding": {"output_embedding": "decoder", "target_embedding": "decoder", "shared_embedding": "decoder"},
    "shared_embedding": {"shared_embedding": "all", "source_embedding": "encoder", "target_embedding": "decoder"},
    "embed_output": {"embed_output": "decoder"},
}
"""For each embedding table: the tables of another run that can initialise it if embeddings are tied differently, the best first,
and the side whose vocabulary they have."""
_SAME_SHAPES = ("num_encoder_layers", "num_decoder_layers", "tie_embeddings", "dtype", "scan_layers", "remat", "causal", "variational")
"""Settings that may differ: a parameter that both models have means the same in both."""
_MOST = 6  # modules that a message names


class Taken(NamedTuple):
    """What a new run takes from another.

    Attributes:
        params: arrays by their parameter's path in the new model, layers one by one.
        record: for metrics.jsonl: the run, the checkpoint, its checksum, and how many parameters.
        line: for people.
    """

    params: dict[str, jax.Array]
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
        UserError: the run or checkpoint does not exist, a parameter has another shape, or nothing can be taken.
    """
    run, only = directory.folder(experiment.init.from_), experiment.init.only
    settings, known, reader = directory.settings(run), load_tokenizer(run / "tokenizer"), CheckpointReader(run)
    found = reader.find(distributed.broadcast_decision("init.from", reader.find(experiment.init.checkpoint).which))
    shapes = reader.shapes(found)
    ours, theirs = ({path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)} for tree in (like, shapes))
    different = _different(settings["model"], to_json(experiment)["model"])
    same = {"decoder": known.target_difference(tokenizer) is None, "encoder": known.source_difference(tokenizer) is None}
    encoder = ("encoder_positions", *(part for part in model.source_side if "/" not in part))
    origins: dict[str, str] = {}
    for name, x in ours.items():
        for origin, side in _origins(name, encoder):
            wanted = only == "all" or side in (only, "all")
            means_the_same = name == origin and name.partition("/")[0] not in _TABLES or same["decoder" if side == "decoder" else "encoder"]
            if name not in origins and origin in theirs and wanted and means_the_same:
                if theirs[origin].shape == x.shape:
                    origins[name] = origin
                elif origin == name:
                    shaped = f"{name} has the shape {theirs[name].shape} there and {x.shape} here"
                    raise UserError(f"init.from {run}: {shaped}{different}: give both models the same width")
    if not origins:
        raise UserError(
            f"init.from {run}: nothing of it{'' if only == 'all' else f', init.only {only},'} has a place in this model: it has "
            f"{_listed(_modules(theirs, ()))}, this model {_listed(_modules(ours, ()))}"
        )
    layouts = {origin: ours[name].sharding for name, origin in origins.items()}

    def struct(path, x) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layouts.get(path_name(path), replicated(mesh)))

    params = reader.params(found, jax.tree_util.tree_map_with_path(struct, shapes))
    read = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    taken = {name: read[origin] for name, origin in origins.items()}
    count, new = parameter_count(taken), _modules(ours, taken)
    line = f"{count:,} of {parameter_count(like):,} parameters are from {found.name} of {run}{different}"
    record = {"from": str(run), "checkpoint": found.which, "checksum": found.checksum, "parameters": count}
    return Taken(taken, record, f"{line}; new: {_listed(new)}" if new else line)


def _origins(name: str, encoder: Collection[str]) -> Iterable[tuple[str, str]]:
    """Return the parameters of another run that may serve as one of ours, the best first, each with its side: encoder, decoder, or all."""
    module, _, rest = name.partition("/")
    if module in _TABLES:
        return [(f"{table}/{rest}", side) for table, side in _TABLES[module].items()]
    return [(name, "encoder" if module in encoder else "decoder")]


def _different(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return "; model.emb_dim is 128 there and 256 here" for the settings that give parameters other shapes or another meaning."""
    pairs = [(name, tupled(theirs.get(name, value)), tupled(value)) for name, value in ours.items() if name not in _SAME_SHAPES]
    differ = [(name, there, here) for name, there, here in pairs if there != here and not isinstance(here, float)]  # such as dropout
    return "".join(f"; model.{name} is {there} there and {here} here" for name, there, here in differ)


def _modules(names: Iterable[str], without: Iterable[str]) -> list[str]:
    """Return the largest modules that have no parameter in `without`."""
    begun = {prefix for name in without for prefix in _prefixes(name)}
    return list(dict.fromkeys(next(p for p in _prefixes(name) if p not in begun) for name in names if name not in begun))


def _prefixes(name: str) -> list[str]:
    return list(itertools.accumulate(name.split("/"), "{}/{}".format))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
