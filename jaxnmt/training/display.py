"""How training shows itself: a live bar on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import datetime
import sys
import typing
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxnmt.lost_output import Watched
from jaxnmt.parallel.distributed import is_leader


def train_line(values: dict, timing: dict) -> str:
    """One log record in words."""
    left = datetime.timedelta(seconds=round(timing["seconds_left"]))
    return (
        f"epoch {values['epoch']:.2f}  loss {values['loss']:.4f}  ppl {values['perplexity']:.2f}  lr {values['learning_rate']:.2e}  "
        f"|g| {values['gradient_norm']:.3f}  {timing['target_tokens_per_second']:,.0f} tok/s  util {timing['utilisation']:.0%}  "
        f"padding {values['padding']:.0%}  input {timing['input_wait']:.0%}  left {left}"
    )


def validation_line(values: dict) -> str:
    """One validation in words."""
    bleu = f"  BLEU {values['bleu']:.2f}" if values.get("bleu") is not None else ""
    return f"validation  loss {values['loss']:.4f}  ppl {values['perplexity']:.2f}{bleu}{'  best so far' if values['best'] else ''}"


class Display:
    """Lines for people, above a progress bar if stderr is a terminal; of several processes, process 0 shows them."""

    def __init__(self, total: int, step: int, lost: Callable[[OSError], None]):
        """`lost` is called once if stderr cannot be written; nothing is shown after that."""
        stderr = typing.cast(typing.TextIO, Watched(sys.stderr, lost))
        self._console = Console(file=stderr, highlight=False, soft_wrap=True, quiet=not is_leader())
        self._bar = None
        self.total = total
        if self._console.is_terminal and is_leader():
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("", total=total, completed=step)

    def start(self) -> None:
        """Show the bar."""
        if self._bar:
            self._bar.start()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False)

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, line: str) -> None:
        """A log record: beside the bar, or a line of its own."""
        if self._bar:
            self._bar.update(self._task, completed=step, description=line)
        else:
            self.say(f"step {step:,}/{self.total:,}  {line}")

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
