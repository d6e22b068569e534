"""The part of the training state that is not arrays: counters, the best validation score, and the time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Score:
    """The result of a validation, as the best checkpoint, early stopping and the plateau schedule compare it.

    Attributes:
        metric: "bleu" or "loss".
        value: higher is better; a loss has its sign changed.
        loss: validation loss; of two equal values the one with the lower loss is better. None: an earlier version did not save it.
        signature: sacreBLEU's, without its version; None for a loss, and where an earlier version did not save it.
    """

    metric: str
    value: float
    loss: float | None = None
    signature: str | None = None

    @property
    def kind(self) -> tuple[str, str | None]:
        """What must be equal for two scores to be compared: the metric and how it was computed."""
        return self.metric, self.signature

    @property
    def rank(self) -> tuple[float, float]:
        """What scores of one kind are sorted by, ascending. An unknown loss is never beaten by an equal value."""
        return self.value, math.inf if self.loss is None else -self.loss

    def beats(self, other: Score | None) -> bool:
        """Return whether this score is better than the best one so far. A best score of another kind does not count."""
        return other is None or other.kind != self.kind or self.rank > other.rank


@dataclasses.dataclass
class Progress:
    """Counters and scores that each checkpoint saves, so that a resumed run equals one that was never stopped.

    Attributes:
        best: best validation score so far, and the step it was reached at.
        best_scheduled: best score among the validations at a multiple of `validation.every`, for early stopping and the plateau schedule.
        stale: scheduled validations since then.
        plateau_stale: scheduled validations since then or since the learning rate was last cut.
        seconds: of training, in all sessions.
        unlogged: seconds of training since the last log line.
        target_tokens: trained on so far.
        window: running sums of the next log line.
    """

    best: Score | None = None
    best_step: int = 0
    best_scheduled: Score | None = None
    stale: int = 0
    plateau_stale: int = 0
    seconds: float = 0.0
    unlogged: float = 0.0
    target_tokens: int = 0
    window: dict[str, float] = dataclasses.field(default_factory=dict)

    def count_validation(self, step: int, score: Score | None, scheduled: bool) -> bool:
        """Update the best score, and after a scheduled validation the counters. Returns whether the score is the best so far.

        The extra validation at the final step is not scheduled: a run that is extended later gives the same result as one that was longer
        from the start.

        Args:
            score: None if it is NaN or infinite.
            scheduled: whether `step` is a multiple of `validation.every`.
        """
        if scheduled and score is not None and score.beats(self.best_scheduled):
            self.best_scheduled, self.stale, self.plateau_stale = score, 0, 0
        elif scheduled:
            self.stale, self.plateau_stale = self.stale + 1, self.plateau_stale + 1
        if score is None or not score.beats(self.best):
            return False
        self.best, self.best_step = score, step
        return True

    @classmethod
    def read(cls, record: dict[str, Any], metric: str) -> Progress:
        """Return the progress in a checkpoint's record.

        Args:
            metric: what a score is of that names no metric: earlier versions saved the value alone, as `best_score` and `bar`.
        """
        values = {field.name: record[field.name] for field in dataclasses.fields(cls) if field.name in record}
        for name, old_name in {"best": "best_score", "best_scheduled": "bar"}.items():
            score = record.get(name, record.get(old_name, record.get("best_score")))
            values[name] = Score(metric, score) if isinstance(score, float) else score and Score(**score)
        return cls(**values)


class Clock:
    """Measures the time of training, without validating and saving, and the time spent waiting for input."""

    def __init__(self, before: float = 0.0, unlogged: float = 0.0, most: float = 0.0) -> None:
        """Start the clock of a session.

        Args:
            before: seconds of training in earlier sessions.
            unlogged: the part of `before` since the last log line.
            most: limit on the seconds of all sessions together; 0: no limit.
        """
        self._start = time.perf_counter() - before
        self._logged, self._most, self._waited = before - unlogged, most, 0.0

    def waiting(self, stream: Iterator) -> Iterator:
        """Yield the items of a stream and count the time that each takes to arrive."""
        start = time.perf_counter()
        for item in stream:
            self._waited += time.perf_counter() - start
            yield item
            start = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock within the block."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def take_window(self) -> tuple[float, float]:
        """Return the seconds of training since the last call, earlier sessions included, and the seconds spent waiting in this session."""
        trained = self.trained
        window = trained - self._logged, self._waited
        self._logged, self._waited = trained, 0.0
        return window

    @property
    def trained(self) -> float:
        """Seconds of training in all sessions."""
        return time.perf_counter() - self._start

    @property
    def unlogged(self) -> float:
        """Seconds of training since the last call of `take_window`, which may have been in an earlier session."""
        return self.trained - self._logged

    def seconds_left(self, by_steps: float) -> float:
        """Return the remaining training time in seconds: `by_steps`, or less if the limit comes first."""
        return min(by_steps, max(self._most - self.trained, 0.0)) if self._most else by_steps
