"""Low-rank adapters apart from their base: in a folder that `jaxnmt export --to adapter` writes, or in the run that was fine-tuned.

OUT/adapter.safetensors    A and B of each adapted kernel by its path, such as `decoder/layer_0/mlp/wi/kernel/a`; see `training.lora`
OUT/adapter.json           rank, alpha, and what the adapter belongs to: the checksum of the base's parameters, its vocabulary, its model
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnmt.config.files import to_json, tupled
from jaxnmt.errors import UserError
from jaxnmt.interop.tensors import opened_file
from jaxnmt.interop.untrusted import read_json
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from jaxnmt.run import Run

SETTINGS, FACTORS = "adapter.json", "adapter.safetensors"
FORMAT = "jaxnmt adapter 1"
_ANY = ("type", "max_positions", "dtype", "scan_layers", "remat", "variational")
"""Model settings that may differ between base and adapter: they do not change what parameters mean. The class is compared by its name."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """What an adapter belongs to.

    Attributes:
        run: the name of the base's folder.
        checkpoint: of the base: its step, or "average".
        checksum: of the base's parameters.
        tokenizer: fingerprint of its vocabularies.
        task, model: classes and settings of the run that trained the adapter.
    """

    run: str
    checkpoint: int | str
    checksum: int
    tokenizer: str
    task: str
    model: Mapping[str, Any]

    def check(self, adapter: Path, base: Run) -> None:
        """Check that an adapter belongs to a run.

        Raises:
            UserError: the run has other parameters, another vocabulary, another task, or settings that change what parameters mean.
        """
        found = base._found
        if found.checksum != self.checksum:
            of = "average" if self.checkpoint == "average" else f"checkpoint {self.checkpoint}"
            raise UserError(
                f"{adapter} is an adapter of {of} of a run {self.run} (checksum {self.checksum}), and {base.folder} is used with "
                f"{found.name} (checksum {found.checksum}): use the run and the checkpoint that it was trained from"
            )
        if self.tokenizer != base.tokenizer.fingerprint():
            raise UserError(
                f"{adapter} was trained with another vocabulary than that of {base.folder}: use the run that it was trained from"
            )
        if different := self.difference(to_json(base.config)):
            raise UserError(f"{adapter} was trained with {different} in {base.folder}: its parameters mean something else there")

    def difference(self, base: Mapping[str, Any]) -> str | None:
        """Return the first setting that differs and changes what parameters mean, such as "model.activation gelu, which is relu".

        Args:
            base: the experiment of the base, as `config.files.to_json` returns it.
        """
        task = base.get("task", {"type": "Translation"})["type"]  # runs of earlier versions do not name it
        pairs = [("task", self.task, task), ("model", _name(self.model), _name(base["model"]))]
        names = [name for name in self.model if name in base["model"] and name not in _ANY]
        pairs += [(f"model.{name}", tupled(self.model[name]), tupled(base["model"][name])) for name in names]
        differ = (each for each in pairs if each[1] != each[2] and not any(isinstance(x, float) for x in each))  # such as dropout, 0 or 0.1
        return next((f"{name} {str(here)[:50]}, which is {there}" for name, here, there in differ), None)


def _name(model: Mapping[str, Any]) -> str:
    return str(model["type"]).rpartition(":")[2]


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank factors of some kernels, to be added to those of the base.

    Attributes:
        place: the folder that it is from.
        fit: what it belongs to.
        rank: of each product of factors.
        alpha: products are multiplied by alpha / rank.
        identity: a number that other factors do not have.
        shapes: of the factors by their paths, if they are known before they are read.
        read: returns the factors by their paths.
    """

    place: Path
    fit: Fit
    rank: int
    alpha: float
    identity: int
    read: Callable[[], Mapping[str, np.ndarray]]
    shapes: Mapping[str, tuple[int, ...]] | None = None

    def applied(self, params: Any, stacked: bool = False) -> Any:
        """Return parameters of the base with the adapter. Those without factors are the same arrays.

        Args:
            params: nested dicts of arrays, on one or several devices.
            stacked: whether their layers are stacked.

        Raises:
            UserError: a kernel does not exist in them, or has another shape; or a factor has NaN.
        """
        import jax
        from flax.traverse_util import flatten_dict, unflatten_dict

        from jaxnmt.models.parameters import stack_layers, unstack_layers
        from jaxnmt.parallel.sharding import mesh_of, replicated
        from jaxnmt.training.lora import adapted

        one_by_one = jax.eval_shape(unstack_layers, params) if stacked else params
        kernels = {name: x.shape for name, x in flatten_dict(one_by_one, sep="/").items()}
        if self.shapes is not None:
            check_shapes(self.place, self.shapes, kernels, self.rank)
        factors = dict(self.read())
        nested = stack_layers(unflatten_dict(_filled(factors, kernels), sep="/")) if stacked else unflatten_dict(factors, sep="/")
        if mesh := mesh_of(params):
            nested = jax.device_put(nested, replicated(mesh))
        merged = adapted(params, nested, self.alpha / self.rank)
        return jax.tree.map(lambda new, old: new if new is old else jax.device_put(new, old.sharding), merged, params)


def _filled(factors: Mapping[str, np.ndarray], kernels: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return factors by path with zeros for those layers of a stack that have none: stacked layers have them together."""
    place = lambda path: re.sub(r"(^|/)layer_\d+/", r"\1layer_*/", path)  # noqa: E731
    of_stack = {place(path): x for path, x in factors.items()}
    paths = [f"{kernel}/{part}" for kernel in kernels for part in "ab"]
    return {path: factors.get(path, np.zeros_like(of_stack[place(path)])) for path in paths if place(path) in of_stack}


def check_shapes(place: Path, shapes: Mapping[str, tuple[int, ...]], kernels: Mapping[str, tuple[int, ...]], rank: int) -> None:
    """Check that factors fit the kernels of a base.

    Args:
        place: of the adapter, for messages.
        shapes: of the factors by their paths.
        kernels: the shapes of the base's parameters by their paths, layers one by one.
        rank: of the products.

    Raises:
        UserError: one does not fit, or one of two is missing.
    """
    for path, shape in shapes.items():
        kernel, _, part = path.rpartition("/")
        other = f"{kernel}/{'b' if part == 'a' else 'a'}"
        if part not in ("a", "b") or kernel not in kernels:
            raise UserError(f"{place}: it has factors of {path[:100]}, and its base has no such parameter")
        if other not in shapes:
            raise UserError(f"{place}: it has no {other[:100]}, which goes with {part}")
        sizes, inner, others, whole = shape[:-1], shape[-1:], shapes[other][:-1], kernels[kernel]
        fits = len(sizes) == len(others) == len(whole) and all(
            n in (1, full) and max(n, m) == full for n, m, full in zip(sizes, others, whole, strict=True)
        )
        if not fits or inner != (rank,):
            raise UserError(f"{place}: {path[:100]} has the shape {shape}, which does not fit the kernel's {whole} and the rank {rank}")


def open_adapter(path: str | Path) -> Adapter:
    """Open a folder with an adapter, or a run that was trained with adapters. Nothing in the folder is executed, and JAX is not started.

    Raises:
        UserError: it is neither, it is damaged, or the run's adapter cannot be separated from its base.
    """
    place = directory.folder(path)
    if (place / SETTINGS).exists():
        return _of_folder(place)
    if not (place / directory.CONFIG).exists():
        raise UserError(
            f"{place} is not an adapter: it has no {SETTINGS}, and is not a run either; name a folder that `jaxnmt export --to adapter` "
            "made, or a run that was trained with training.lora.rank"
        )
    from jaxnmt.interop.adapter import of_run
    from jaxnmt.run import Run

    return of_run(Run(place))


def _of_folder(place: Path) -> Adapter:
    settings = read_json(place / SETTINGS)

    def value(name: str, kinds: type | tuple[type, ...], within: Any = settings) -> Any:
        found = within.get(name)
        if not isinstance(found, kinds) or isinstance(found, bool):
            raise UserError(f"{place / SETTINGS}: {name} is {str(found)[:50]!r}, which is not what an adapter has there: fetch it again")
        return found

    if value("format", str) != FORMAT:
        raise UserError(f"{place / SETTINGS}: the format is {settings['format'][:50]!r}, and {FORMAT!r} is read: export the adapter again")
    base, model = value("base", dict), value("model", dict)
    value("type", str, model)
    fit = Fit(
        value("run", str, base)[:100],
        str(value("checkpoint", (int, str), base))[:100],
        value("checksum", int, base),
        value("tokenizer", str),
        value("task", str),
        model,
    )
    rank, alpha = value("rank", int), value("alpha", (int, float))
    if rank < 1 or not 0 < alpha <= sys.float_info.max:
        raise UserError(f"{place / SETTINGS}: rank {str(rank)[:20]} and alpha {str(alpha)[:20]} must be numbers above 0: fetch it again")
    with opened_file(place / FACTORS) as file:
        shapes = file.shapes
    if not shapes:
        raise UserError(f"{place / FACTORS} has no factors: fetch it again")

    def read() -> Mapping[str, np.ndarray]:
        with opened_file(place / FACTORS) as file:
            return {name: file.read(name) for name in file.shapes}

    with (place / FACTORS).open("rb") as content:
        identity = int(hashlib.file_digest(content, "sha256").hexdigest()[:8], 16)
    return Adapter(place, fit, rank, float(alpha), identity, read, shapes)
