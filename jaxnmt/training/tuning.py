"""Which parameters a run trains: all; those that no pattern of `training.freeze` matches; or adapters of some kernels (`lora.py`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxnmt import config as cfg
from jaxnmt.config.tuning import rate_factors
from jaxnmt.errors import UserError
from jaxnmt.models.parameters import unscanned
from jaxnmt.models.seq2seq import Seq2Seq, build_model
from jaxnmt.parallel.axes import is_kernel, path_name
from jaxnmt.training import lora
from jaxnmt.training.paths import by_path, factors, layer_paths, matching


class Tuning(NamedTuple):
    """Which parameters of a model are trained.

    Attributes:
        axes: letters of the axes of those that are, nested in dicts.
        frozen: letters of the axes of the model's other parameters, nested likewise; None if all are trained.
        scale: what a product of adapters is multiplied by; 0: there are no adapters.
    """

    axes: Any
    frozen: Any = None
    scale: float = 0.0


def tuning_of(config: cfg.Training, model: Seq2Seq) -> Tuning:
    """Return which of a model's parameters are trained.

    Raises:
        UserError: a pattern matches nothing, or a part of a stack of layers; or all parameters are frozen.
    """
    if not config.freeze and not config.lora.rank:
        return Tuning(model.axes)
    letters, paths = by_path(model.axes), _paths(model)
    if config.lora.rank:
        kernels = {path_name(path) for path, axes in jax.tree_util.tree_leaves_with_path(model.axes) if is_kernel(path, axes)}
        possible = {name: each for name, each in paths.items() if name in kernels}
        chosen = matching("training.lora.paths", config.lora.paths, possible, "kernel")
        adapters = {f"{name}/{part}": axes for name in chosen for part, axes in lora.adapter_axes(letters[name]).items()}
        return Tuning(unflatten_dict(adapters, sep="/"), model.axes, config.lora.alpha / config.lora.rank)
    frozen = matching("training.freeze", config.freeze, paths)
    if len(frozen) == len(paths):
        raise UserError(f"training.freeze {' '.join(config.freeze)} freezes all parameters, and nothing is left to train: freeze fewer")
    trained, rest = ({name: axes for name, axes in letters.items() if (name in frozen) is choice} for choice in (False, True))
    return Tuning(unflatten_dict(trained, sep="/"), unflatten_dict(rest, sep="/"))


def trained_paths(config: cfg.Training, model: Seq2Seq) -> set[str] | None:
    """Return the paths of the model's parameters whose gradients a step computes, those of kernels with adapters too; None: all."""
    tuning = tuning_of(config, model)
    if tuning.frozen is None:
        return None
    return {"/".join(path) for path in lora.pairs_by_path(tuning.axes)} if tuning.scale else set(by_path(tuning.axes))


def _paths(model: Seq2Seq) -> dict[str, list[str]]:
    shapes = by_path(model.shapes)
    return {name: layer_paths(name, axes, shapes[name].shape) for name, axes in by_path(model.axes).items()}


def split(params: Any, tuning: Tuning, model: Seq2Seq, config: cfg.Training) -> tuple[Any, Any]:
    """Return the parameters that are trained, and the frozen ones (None if all are trained), before the first step.

    Args:
        params: all of the model's.
    """
    if tuning.frozen is None:
        return params, None
    if not tuning.scale:
        return part_of(params, tuning.axes), part_of(params, tuning.frozen)
    letters, shapes, paths = by_path(model.axes), by_path(model.shapes), _paths(model)
    adapters = {
        path: lora.initial_adapter(config.seed, paths[name], letters[name], shapes[name].shape, config.lora.rank)
        for path in lora.pairs_by_path(tuning.axes)
        for name in ["/".join(path)]
    }
    return unflatten_dict(adapters), params


def part_of(params: Any, like: Any) -> Any:
    """Return those parameters that `like`, a tree of some of them, has."""
    flat = by_path(params)
    return unflatten_dict({name: flat[name] for name in by_path(like)}, sep="/")


def join(one: Any, other: Any) -> Any:
    """Return the parameters of both trees in one; those of the second where both have them."""
    return unflatten_dict(by_path(one) | by_path(other), sep="/")


def rates(config: cfg.Training, params: Any, axes: Any) -> Any:
    """Return what the learning rate of each trained parameter is multiplied by, or None if nothing is.

    Args:
        params, axes: shapes and letters of the trained parameters.

    Raises:
        UserError: a pattern of `training.rates` matches nothing.
    """
    if not config.rates:
        return None
    letters, shapes = by_path(axes), by_path(params)
    paths = {name: layer_paths(name, letters[name], x.shape) for name, x in shapes.items()}
    found = factors("training.rates", rate_factors(config.rates), paths)
    along = lambda name, factor: factor if np.ndim(factor) == 0 else factor.reshape(-1, *[1] * (len(letters[name]) - 1))  # noqa: E731
    return unflatten_dict({name: along(name, factor) for name, factor in found.items()}, sep="/")


def check(experiment: cfg.Experiment) -> None:
    """Check the patterns of an experiment's settings against its model.

    Raises:
        UserError: as `tuning_of` and `rates`.
    """
    config = experiment.training
    for form in (unscanned(experiment.model), experiment.model):
        model = build_model(form, 128, 128, experiment.task)  # no path depends on the vocabulary
        tuning = tuning_of(config, model)
        trained = jax.eval_shape(lambda model=model, tuning=tuning: split(model.init(jax.random.key(0)), tuning, model, config)[0])
        rates(config, trained, tuning.axes)
