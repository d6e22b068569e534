"""Show progress: on stderr a progress bar on a terminal and plain lines elsewhere, or lines for the log."""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segment, Segments
from rich.text import Text

from jaxnmt.io.streams import TolerantStream
from jaxnmt.parallel import log
from jaxnmt.parallel.distributed import is_leader


def train_line(values: dict, timing: dict) -> str:
    """Return the line that shows a log record."""
    left = datetime.timedelta(seconds=round(timing["seconds_left"]))
    ppl = f"ppl {values['perplexity']:.2f}  " if not math.isnan(values["perplexity"]) else ""  # numbers have none
    return (
        f"epoch {values['epoch']:.2f}  loss {values['loss']:.4f}  {ppl}lr {values['learning_rate']:.2e}  "
        f"|g| {values['gradient_norm']:.3f}  {timing['target_tokens_per_second']:,.0f} tok/s  util {timing['utilisation']:.0%}  "
        f"padding {values['padding']:.0%}  input {timing['input_wait']:.0%}  left {left}"
    )


def validation_line(values: dict) -> str:
    """Return the line that shows a validation."""
    bleu = f"  BLEU {values['bleu']:.2f}" if values.get("bleu") is not None else ""
    means = f"  ppl {values['perplexity']:.2f}  accuracy {values['accuracy']:.1%}" if not math.isnan(values["accuracy"]) else ""
    return f"validation  loss {values['loss']:.4f}{means}{bleu}{'  best so far' if values['best'] else ''}"


class Display(Progress):
    """Prints lines, above a progress bar and the last log record if stderr is a terminal. Only process 0 prints."""

    def __init__(self, total: int, step: int, lost: Callable[[OSError], None], shown: bool):
        """Prepare the display of a session.

        Args:
            total: steps of the run.
            step: steps that are done.
            lost: called once if stderr cannot be written; nothing is shown after that.
            shown: write to stderr; otherwise lines only go to the log.
        """
        stderr: Any = TolerantStream(sys.stderr, lost)
        console = Console(file=stderr, highlight=False, quiet=not is_leader())
        self._record, self._shown, self._total = "", shown, total
        bar = shown and stderr.isatty() and not console.is_dumb_terminal and is_leader()
        super().__init__(TextColumn("step"), MofNCompleteColumn(), BarColumn(), console=console, disable=not bar)
        self._task = self.add_task("", total=total, completed=step)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn (Rich asks for it): the record is wrapped and never cut."""
        yield Text(self._record)
        yield self.make_tasks_table(self.tasks)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if self._shown:
            # As it is: no markup, no emoji, no line ends within.
            self.console.print(Segments([Segment(line + "\n")]), end="", crop=False)
        else:
            log.say(line)

    def step(self, step: int) -> None:
        """Move the bar."""
        self.update(self._task, completed=step)

    def show(self, step: int, line: str) -> None:
        """Show a log record: above the bar, or as a line of its own."""
        self._record = line
        self.step(step)
        if self.disable:
            self.say(f"step {step:,}/{self._total:,}  {line}")

    def stop(self) -> None:
        """Remove the bar."""
        if not self.disable:  # Rich 13 prints an empty line otherwise
            super().stop()
