"""A run's translations of a test set, kept in the run: what was translated once is read the next time.

    RUN/translations/KEY.json    {made_by, decoding, translations}

KEY is a fingerprint of the sentences, the checkpoint's bits, the decoding settings and jaxnmt's version, so that what is found under it
is what would be found again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxnmt import __version__
from jaxnmt.config import Decoding
from jaxnmt.decoding.translator import Translator
from jaxnmt.io import files
from jaxnmt.training.trained import identify


def translations(
    run: Path, sources: Sequence[str], decoding: Decoding, checkpoint: int | str, say: Callable[[str], None]
) -> tuple[str, list[str]]:
    """The name of a run's checkpoint, and its best translation of each sentence.

    Raises:
        UserError: the run has no (such) checkpoint.
    """
    made_by, checksum, checkpoint = identify(run, checkpoint)  # "best" may soon be another
    settings = dataclasses.asdict(dataclasses.replace(decoding, n_best=1))
    ingredients = [__version__, made_by, checksum, settings, *sources]
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]
    file = run / "translations" / f"{key}.json"
    kept = _read(file, len(sources)) if checksum is not None else None
    if kept is not None:
        say(f"{run}: translations of {made_by} found in {file}")
        return made_by, kept
    translator = Translator.from_run(run, checkpoint=checkpoint)
    say(f"{run}: translating {len(sources):,} sentences")
    made = [candidates[0].text for candidates in translator.translate(sources, dataclasses.replace(decoding, n_best=1))]
    _write(file, {"made_by": made_by, "decoding": settings, "translations": made}, say)
    return made_by, made


def _read(file: Path, count: int) -> list[str] | None:
    """What a file keeps, if it is whole."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["translations"]
    except (OSError, ValueError, KeyError):
        return None
    return found if len(found) == count else None


def _write(file: Path, record: dict, say: Callable[[str], None]) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        files.write(file, json.dumps(record, ensure_ascii=False, indent=1))
    except OSError as error:  # somebody else's run may be compared too
        say(f"the translations are not kept: {file} cannot be written ({error.strerror})")
