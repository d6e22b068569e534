"""Translate with a run by CTranslate2: exported once, checked, and kept in the run's folder.

    RUN/ctranslate2/CHECKSUM-float32/    what `jaxnmt export --to ctranslate2` writes; CHECKSUM is that of the checkpoint's parameters
    RUN/ctranslate2/CHECKSUM-int8/       the same of a run whose weights are int8

A folder appears whole, by renaming, and is not changed afterwards. It may be removed at any time, and is then made again. A process that
makes one removes those of deleted checkpoints. A process that makes, opens or removes a folder locks RUN/ctranslate2/lock. CTranslate2
reads the whole model into memory when it opens a folder.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from jaxnmt import config as cfg
from jaxnmt.ensemble_run import EnsembleRun
from jaxnmt.errors import UserError
from jaxnmt.interop.adapted_run import AdaptedRun
from jaxnmt.io import files
from jaxnmt.parallel.log import say
from jaxnmt.run import Run
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from jaxnmt.decoding.scoring import Scorer
    from jaxnmt.decoding.translator import Translator
    from jaxnmt.training.saved import Found

T = TypeVar("T")

Engine = Literal["jaxnmt", "ctranslate2"]
FOLDER = "ctranslate2"
_LACKS = ("coverage_penalty", "sibling_penalty", "repetition_penalty", "temperature", "shortlist")
"""Fields of `Decoding` that CTranslate2 has not, or computes otherwise."""


def with_engine(run: Run, engine: Engine) -> Run:
    """Return a run that translates by another engine. All else, such as its decoding settings and its word alignments, is the run's own.

    Args:
        run: with weights "trained" or "int8".
        engine: "ctranslate2": fast on CPUs. The first translation exports the run and checks the export, see `export_model`.

    Raises:
        UserError: there is no such engine, it is not installed, or cannot hold the run; or the run has an adapter.
    """
    if engine != "jaxnmt" and isinstance(run, EnsembleRun):
        raise UserError(f"--engine {engine} is for one run, and this is an ensemble: leave out one of them")
    if engine != "jaxnmt" and isinstance(run, AdaptedRun):  # an export is kept by the checksum of its base
        raise UserError(f"--engine {engine} reads no adapters: give the fine-tuned run itself, without an adapter")
    if engine not in get_args(Engine):
        raise UserError(f"there is no engine {engine!r}: choose one of {', '.join(get_args(Engine))}")
    return run if engine == "jaxnmt" else _EngineRun(run)


def searching(decoding: cfg.Decoding) -> cfg.Decoding:
    """Return the settings with which CTranslate2 searches. Its own length normalization and patience take the place of our defaults.

    Raises:
        UserError: a setting asks for what its search lacks.
    """
    plain = cfg.Decoding()
    for name in _LACKS:
        if getattr(decoding, name) != getattr(plain, name):
            raise UserError(
                f"CTranslate2's search has no decoding.{name} as ours: set it to {getattr(plain, name):g}, or leave out --engine"
            )
    if hasattr(decoding, "processors"):
        raise UserError("CTranslate2's search calls no functions of logits, and this run's config has some: leave out --engine")
    if decoding.length_normalization not in (plain.length_normalization, "average"):
        raise UserError(f"CTranslate2 has no decoding.length_normalization {decoding.length_normalization}: set it to average")
    patience = 1.0 if decoding.patience == plain.patience else float(decoding.patience)
    return dataclasses.replace(decoding, length_normalization="average", patience=patience, min_length=max(1, decoding.min_length))


class _EngineRun(Run):
    """A run that translates by CTranslate2, see `with_engine`."""

    def __init__(self, run: Run) -> None:
        """Open a run again."""
        super().__init__(run.folder, run.pinned, trusted=True, weights=run.weights)  # it is open already
        self._plain = run
        from jaxnmt.interop import ctranslate2  # which imports NumPy

        if problem := ctranslate2.refusal(run):
            raise UserError(f"--engine ctranslate2 cannot hold {run.folder}: {problem}")
        if importlib.util.find_spec("ctranslate2") is None:
            raise UserError(f"CTranslate2 is not installed: {ctranslate2.NEEDS}")

    @functools.cached_property
    def translator(self) -> Translator:
        """Translates many lines with given decoding settings."""
        from jaxnmt.interop.engine_translator import EngineTranslator  # which imports JAX

        use_export = functools.partial(_use_export, self._plain, self._found)
        use_export(str)  # what cannot be exported is refused at once
        return EngineTranslator(self._plain, use_export)

    @property
    def scorer(self) -> Scorer:
        """Scores given translations of many lines, by the run itself."""
        return self._plain.scorer

    def translations(self, sources: Sequence[str], **decoding: Any) -> list[str]:
        """Return the best translation of each sentence. They are not kept, since they are not the run's own."""
        return [best.text for best in self.translate(sources, **decoding | {"n_best": 1})]


def _check_sentences(run: Run, place: Path) -> None:
    """Raise a UserError if the run, an imported one, names no sentences to check its export with."""
    if not (run.config.data.train or run.config.data.validation):
        options = f"--to ctranslate2 --checkpoint {run.pinned} --weights {run.weights} --data a.en a.de"
        raise UserError(
            f"{run.folder} has no validation sentences to check its export with: name sentence pairs once, by "
            f"jaxnmt export {run.folder} {place} {options}"
        )


def _use_export(run: Run, found: Found, use: Callable[[Path], T]) -> T:
    """Call `use` with the folder of a run's export, and return its result. Export the run first if needed.

    Args:
        run: the run.
        found: its checkpoint.
        use: called under a lock, so that no other process removes the folder.
    """
    from jaxnmt.interop.export import export_model

    if files.in_bucket(run.folder):
        raise UserError(
            f"--engine ctranslate2 keeps its model in the run's folder, and {run.folder} is in a bucket: copy it to this computer"
        )
    place = run.folder / FOLDER / f"{_name(found)}-{'int8' if run.weights == 'int8' else 'float32'}"
    try:
        with files.lock(place.parent / "lock", say, f"waiting for another process, which exports {run.folder} or opens its export"):
            if not place.exists():
                _check_sentences(run, place)
                export_model(run, place, "ctranslate2")
                _remove_unneeded(run, place)
            return use(place)
    except OSError as error:
        if place.exists():  # in a folder that this account may only read
            return use(place)
        raise UserError(f"{place} cannot be written ({error.strerror}), and --engine ctranslate2 keeps its model there") from error


def _name(found: Found) -> str:
    """Return how the names of a checkpoint's exports begin."""
    return f"{found.checksum:08x}" if found.checksum is not None else found.name.replace(" ", "-")


def _remove_unneeded(run: Run, new: Path) -> None:
    """Remove the exports of deleted checkpoints, except the new one: training may just have deleted its checkpoint."""
    from jaxnmt.training.saved import CheckpointReader

    saved = CheckpointReader(run.folder)
    try:
        which: list[int | str] = [*saved.steps()]
        which += ["average"] if (run.folder / directory.AVERAGE).is_dir() else []
        needed = {_name(saved.find(each)) for each in which}
    except UserError:  # a record is damaged, or training has just deleted it: the next export tries again
        return
    for path in new.parent.iterdir():
        made = re.fullmatch(r"([0-9a-f]{8}|checkpoint-\d+|average-of-[\w,-]+)-(int8|float32)", path.name)
        if made and made[1] not in needed and path != new and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
