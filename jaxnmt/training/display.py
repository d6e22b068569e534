"""Show progress: on stderr a progress bar on a terminal and plain lines elsewhere, or lines for the log."""

from __future__ import annotations

import datetime
import sys
import typing
from collections.abc import Callable, Iterable

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
    return (
        f"epoch {values['epoch']:.2f}  loss {values['loss']:.4f}  ppl {values['perplexity']:.2f}  lr {values['learning_rate']:.2e}  "
        f"|g| {values['gradient_norm']:.3f}  {timing['target_tokens_per_second']:,.0f} tok/s  util {timing['utilisation']:.0%}  "
        f"padding {values['padding']:.0%}  input {timing['input_wait']:.0%}  left {left}"
    )


def validation_line(values: dict) -> str:
    """Return the line that shows a validation."""
    bleu = f"  BLEU {values['bleu']:.2f}" if values.get("bleu") is not None else ""
    return f"validation  loss {values['loss']:.4f}  ppl {values['perplexity']:.2f}{bleu}{'  best so far' if values['best'] else ''}"


class _Bar(Progress):
    """A progress bar below the last log record, which is wrapped and never cut."""

    record = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn (Rich asks for it)."""
        yield Text(self.record)
        yield self.make_tasks_table(self.tasks)


class Display:
    """Prints lines, above a progress bar if stderr is a terminal. Only process 0 prints."""

    def __init__(self, total: int, step: int, lost: Callable[[OSError], None], shown: bool):
        """Prepare the display of a session.

        Args:
            total: steps of the run.
            step: steps that are done.
            lost: called once if stderr cannot be written; nothing is shown after that.
            shown: write to stderr; otherwise lines only go to the log.
        """
        self._shown = shown
        stderr = typing.cast(typing.TextIO, TolerantStream(sys.stderr, lost))
        self._console = Console(file=stderr, highlight=False, quiet=not is_leader())
        self._bar = None
        self.total = total
        if shown and stderr.isatty() and not self._console.is_dumb_terminal and is_leader():
            self._bar = _Bar(TextColumn("step"), MofNCompleteColumn(), BarColumn(), console=self._console)
            self._task = self._bar.add_task("", total=total, completed=step)

    def start(self) -> None:
        """Show the bar."""
        if self._bar:
            self._bar.start()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if not self._shown:
            log.say(line)
            return
        self._console.print(Segments([Segment(line + "\n")]), end="", crop=False)  # as it is: no markup, no emoji, no line ends within

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, line: str) -> None:
        """Show a log record: above the bar, or as a line of its own."""
        if self._bar:
            self._bar.record = line
            self._bar.update(self._task, completed=step)
        else:
            self.say(f"step {step:,}/{self.total:,}  {line}")

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()
