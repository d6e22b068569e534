"""Translations of test sentences, kept in a run's folder: what was translated once is read the next time.

    RUN/translations/KEY.json    {made_by, decoding, translations}

KEY is a fingerprint of the sentences (and the pictures that they name), the checkpoint, the type of its weights, the decoding settings and
the version of jaxnmt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxnmt import __version__
from jaxnmt.config import Decoding
from jaxnmt.io import files
from jaxnmt.parallel.log import say
from jaxnmt.training.saved import Found


def kept(
    run: Path,
    found: Found,
    weights: str,
    sources: Sequence[str],
    decoding: Decoding,
    translate: Callable[[], list[str]],
    contents: str = "",
) -> list[str]:
    """Return a checkpoint's translations of sentences from the run's folder, or those that `translate` makes, and keep them there.

    If the sentences name pictures, `contents` is the digest of their files.
    """
    settings = dataclasses.asdict(dataclasses.replace(decoding, n_best=1))
    ingredients = [__version__, found.name, found.checksum, weights, settings, *filter(None, [contents]), *sources]
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]
    file = run / "translations" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged
        lines = json.loads(file.read_text(encoding="utf-8"))["translations"]
        say(f"{run}: translations of {found.name} found in {file}")
        return lines
    say(f"{run}: translating {len(sources):,} sentences")
    lines = translate()
    try:
        file.parent.mkdir(exist_ok=True)
        record = {"made_by": found.name, "decoding": settings, "translations": lines}
        files.write(file, json.dumps(record, ensure_ascii=False, indent=1))
    except OSError as error:  # it may be somebody else's run
        say(f"the translations are not kept: {file} cannot be written ({error.strerror})")
    return lines
