"""The table of `jaxnmt train CONFIG --explain-sharding`: how a run's state lies on its devices."""

from __future__ import annotations

import dataclasses
import math

import jax

from jaxnmt import Experiment
from jaxnmt.lab.figures import Table
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.sharding import make_mesh, owner_of
from jaxnmt.training.step import TrainPrograms

_REST = "(counters)"


def bytes_per_device(x: jax.ShapeDtypeStruct) -> int:
    """Return the bytes that a device holds of an array."""
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def explain(experiment: Experiment, vocabularies: tuple[int, int]) -> Table:
    """Return each parameter's shape, its layout, and the bytes that each device holds of it, and of its optimizer state and EMA.

    Args:
        vocabularies: sizes of source and target.

    Raises:
        UserError: the mesh does not fit the devices, or an axis does not divide a dimension.
    """
    mesh = make_mesh(experiment.mesh)
    model = build_model(experiment.model, *vocabularies, experiment.task)
    state = TrainPrograms(model, experiment, mesh).abstract
    params = {path_name(path): x for tree in (state.frozen, state.params) for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    beside = dict.fromkeys([*params, _REST], 0)
    for path, x in jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, params=None, frozen=None)):
        beside[owner_of(path_name(path), params) or _REST] += bytes_per_device(x)
    rows = []
    for name, x in params.items():
        shape, layout = " x ".join(map(str, x.shape)), _spec(x.sharding.spec, x.ndim)
        rows.append((name, shape, layout, f"{bytes_per_device(x):,}", f"{beside[name]:,}"))
    held = sum(map(bytes_per_device, params.values()))
    numbers = f"{sum(math.prod(x.shape) for x in params.values()):,}"
    rows += [(_REST, "", "", "", f"{beside[_REST]:,}"), ("all", numbers, "", f"{held:,}", f"{sum(beside.values()):,}")]
    title = f"{mesh.size} device(s): {', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}"
    note = f"Bytes on each device, {(held + sum(beside.values())) / 2**20:,.1f} MiB in all. A batch's rows lie over data and fsdp."
    return Table(title, ("parameter", "shape", "laid over", "bytes", "optimizer, average"), rows, note)


def _spec(spec: jax.sharding.PartitionSpec, rank: int) -> str:
    axes = (*spec, *[None] * (rank - len(spec)))
    return ", ".join(" and ".join(axis) if isinstance(axis, tuple) else axis or "-" for axis in axes) if any(axes) else "whole"
