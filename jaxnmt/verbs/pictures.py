"""Verbs that draw: visualize."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import webbrowser
from typing import Annotated

from jaxnmt import config_checks, run_directory, text_streams
from jaxnmt.config import Decoding, UserError
from jaxnmt.verbs.common import Checkpoint, Flat, say


@dataclasses.dataclass(frozen=True)
class Visualize:
    output: str = "translation.html"
    """File to write the page to."""
    open: bool = False
    """Show the page in the browser."""
    json: str = ""
    """File to write the page's numbers to, as JSON."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


def visualize(run: str, sentence: str, options: Visualize) -> None:
    """Translate one sentence and draw how: one HTML file that needs nothing else, no network either.

    The page has a player that goes through encoder and decoder step by step, the alignment, every layer and head, and the beam as a tree.

    Examples:
      jaxnmt visualize runs/quickstart "one hundred and two" --open
      jaxnmt visualize runs/quickstart "one hundred and two" --output numbers.html --json numbers.json --beam-size 3
    """
    config_checks.validate(dataclasses.replace(run_directory.read(run), decoding=options.decoding))
    if not sentence.strip():
        raise UserError("there is no word in the sentence: give one to translate, in quotes")
    from jaxnmt.analysis.visualize.page import page
    from jaxnmt.analysis.visualize.record import of_run

    record = of_run(pathlib.Path(run), sentence, options.decoding, options.checkpoint)
    with text_streams.writer(options.output) as write:
        write(page(record))
    if options.json:
        with text_streams.writer(options.json) as write:
            write(json.dumps(record, ensure_ascii=False))
    print(record["translation"])
    say(f"drawn in {options.output}")
    if options.open:
        webbrowser.open(pathlib.Path(options.output).absolute().as_uri())
