"""Find and read the checkpoints of a run (`checkpoints.py` describes the files), for one process without Orbax and flax.

JAX is imported when arrays are needed, not before.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxnmt import config as cfg
from jaxnmt.errors import UserError, first_line
from jaxnmt.io import files
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.parallel import distributed, kept
from jaxnmt.runs import directory
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.storage import read_arrays, read_numpy, with_orbax

if TYPE_CHECKING:
    import jax

_FILES = {"progress": "metadata", "metrics": "metrics"}  # as Orbax names them


class Found(NamedTuple):
    """A checkpoint that exists.

    Attributes:
        name: "checkpoint 4000" or "average of checkpoints 3000, 4000".
        which: its step or "average"; finds the same checkpoint when "best" and "latest" are others.
        checksum: of the parameters that decoding uses.
    """

    name: str
    which: int | str
    checksum: int | None


class CheckpointReader:
    """Finds the checkpoints of a run, and reads their parameters and records.

    With several processes, all of them call `params`, in the same order.

    Raises:
        UserError: a checkpoint is missing or damaged. Every method raises it.
    """

    def __init__(self, run: Path):
        """Open the checkpoints of a run's folder."""
        self._run = run
        place = run if files.in_bucket(run) else Path(run).resolve()  # TensorStore refuses `..` in a path
        self.folder = LiteralPath(place / directory.CHECKPOINTS)
        self._average = self.folder.with_name(directory.AVERAGE)
        self._begun: dict[LiteralPath, concurrent.futures.Future[Any]] = {}

    # ---- which there are

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return directory.checkpoints(self._run)

    def latest(self) -> int | None:
        """Return the newest step."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Return the step with the best validation score, of equal ones the earliest, or the newest step if none has a score."""
        return next(iter(self._ranked()), self.latest())

    def scores(self) -> dict[int, Score]:
        """Return the finite validation scores that can be compared with the newest one, by step."""
        found, unnamed = {}, self._unnamed_metric()
        for step in self.steps():
            try:
                saved = self._record(step, "metrics")
            except UserError as error:
                if isinstance(error.__cause__, FileNotFoundError):  # it was not validated, or training has just removed it
                    continue
                raise
            found[step] = Score(saved.get("metric", unnamed), float(saved["score"]), saved.get("loss"), saved.get("signature"))
        # Earlier versions wrote -inf for NaN.
        found = {step: score for step, score in found.items() if math.isfinite(score.value)}
        return {step: score for step, score in found.items() if score.kind == found[max(found)].kind}

    def _ranked(self) -> list[int]:
        """Return the steps that have a score, best first."""
        scored = self.scores()
        return sorted(scored, key=lambda step: (scored[step].rank, -step), reverse=True)

    def find(self, which: int | str) -> Found:
        """Return a checkpoint by its step, or as "best" (by validation.metric), "latest" or "average", without reading its arrays."""
        steps = self.steps()
        if not steps:
            raise UserError(f"{self._run} has no checkpoint yet: train it first, or wait for the first one to be written")
        if which == "average":
            if not self._average.is_dir():
                raise UserError(f"{self._run} has no average: make one with `jaxnmt runs average {self._run}`")
            record = self._json(self._average, "average.json")
            return Found(f"average of checkpoints {', '.join(map(str, record['steps']))}", which, record["checksum"])
        step = self.best() if which == "best" else self.latest() if which == "latest" else which
        if step not in steps:
            raise UserError(f"{self._run} has no checkpoint {step}; it has {', '.join(map(str, steps))}")
        sums = self._sums(step)
        return Found(f"checkpoint {step}", step, sums.get("ema", sums.get("params")))

    def progress(self, step: int) -> Progress:
        """Return what training knew at a step besides the arrays."""
        return Progress.read(self._record(step, "progress"), self._unnamed_metric())

    # ---- reading

    def _place(self, found: Found) -> LiteralPath:
        """Return the folder of the parameters that decoding uses: the EMA if the run keeps one."""
        if found.which == "average":
            return self._average / "params"
        return self.folder / str(found.which) / ("ema" if "ema" in self._sums(found.which) else "params")

    @with_orbax
    def shapes(self, found: Found) -> Any:
        """Return a tree like that of `params`, of what has `shape` and `dtype`. The model need not be known."""
        from orbax.checkpoint import StandardCheckpointHandler

        place = self._place(found)
        try:
            return StandardCheckpointHandler().metadata(place).tree
        except Exception as error:  # Orbax's and TensorStore's have no class in common
            raise self._unusable(place.parent, f"cannot be read ({first_line(error)[:200]})") from error

    def read_ahead(self, found: Found) -> None:
        """Begin to read what `params` returns, in a thread: JAX can be imported meanwhile."""
        if distributed.is_distributed():  # Orbax reads
            return
        import tensorstore  # noqa: F401  here, because no two threads should import at the same time

        place, pool = self._place(found), concurrent.futures.ThreadPoolExecutor(1)
        self._begun[place] = pool.submit(read_numpy, place)
        pool.shutdown(wait=False)

    @with_orbax
    def params(self, found: Found, like: Any) -> Any:
        """Return the parameters that decoding uses: the EMA if the run keeps one.

        Args:
            found: the checkpoint.
            like: ShapeDtypeStructs of the parameters, layers unstacked.
        """
        import jax

        from jaxnmt.parallel.numbers import at_least_float32

        place, saved = self._place(found), like
        if place.name == "ema":
            saved = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, at_least_float32(x.dtype), sharding=x.sharding), like)
        return jax.tree.map(_cast, self._read(place, saved, found.checksum), like)

    def _read(self, place: LiteralPath, like: Any, expected: int | None) -> Any:
        from jaxnmt.training.checksums import checksum

        begun = self._begun.pop(place, None)
        try:
            found = read_arrays(place, like, begun.result if begun else functools.partial(read_numpy, place))
        except Exception as error:  # Orbax's and TensorStore's have no class in common
            raise self._unusable(place.parent, f"cannot be read ({first_line(error)[:200]})") from error
        if checksum(found) != expected:
            raise self._unusable(place.parent, f"is damaged: its {place.name} are not what was written")
        return found

    def _sums(self, step: int | str) -> dict[str, int]:
        """Return the checksums of a checkpoint's arrays."""
        return self._record(step, "progress").get("checksums", {})

    def _record(self, step: int | str, item: str) -> dict[str, Any]:
        """Return an item that is JSON."""
        folder = self.folder / str(step)
        record = self._json(folder, f"{item}/{_FILES[item]}")
        if record.get("checksums", {}).get(item) not in (None, crc(record)):  # earlier versions had none
            raise self._unusable(folder, f"is damaged: its {item} are not what was written")
        return record

    def _json(self, folder: LiteralPath, file: str) -> dict[str, Any]:
        try:
            return json.loads((folder / file).read_text())
        except (OSError, ValueError) as error:
            raise self._unusable(folder, f"cannot be read ({first_line(error)[:200]})") from error

    def _unusable(self, folder: LiteralPath, why: str) -> UserError:
        """Return the error that a checkpoint or the average is damaged, and what to do."""
        if folder.name == directory.AVERAGE:
            return UserError(f"the average of {self._run} {why}; make it anew with `jaxnmt runs average {self._run}`")
        return UserError(f"checkpoint {folder.name} of {self._run} {why}; remove the folder {folder} to use an older one")

    def _unnamed_metric(self) -> str:
        """Return the metric of scores that name none, which earlier versions saved."""
        path = self._run / directory.CONFIG
        if not path.exists():
            return cfg.Validation().metric
        return json.loads(path.read_text(encoding="utf-8"))["validation"]["metric"]


def kept_shapes(cache_key: tuple[object, ...], trace: Callable[[], Any]) -> Any:
    """Return a model's parameters as ShapeDtypeStructs, nested in dicts.

    Args:
        cache_key: of the model, as `StagedSearch` takes it; empty: nothing is kept.
        trace: returns the shapes. It is called if they are not kept.
    """
    import jax

    leaves = kept.json_of(lambda: jax.tree.map(lambda x: [x.shape, x.dtype.name], trace()), "parameters", cache_key)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(*leaf), leaves, is_leaf=lambda node: isinstance(node, list))


def _cast(x: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    return x if x.dtype == like.dtype else x.astype(like.dtype)


def crc(record: dict[str, Any]) -> int:
    """Return the checksum of a JSON record without its checksums."""
    bare = {name: value for name, value in record.items() if name != "checksums"}
    return zlib.crc32(json.dumps(bare, sort_keys=True).encode())
