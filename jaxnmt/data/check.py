"""`jaxnmt data check`: report which pairs cleaning drops, and where they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxnmt.config import Cleaning
from jaxnmt.data.cleaning import Reason, clean, digest, first_occurrences, pair_key
from jaxnmt.data.source import Source

EXAMPLES = 5
"""Examples shown for each reason."""


@dataclasses.dataclass
class Report:
    """Number of pairs read; for each reason the number of pairs dropped, and where the first of them are. `str` is for the user."""

    pairs: int = 0
    dropped: dict[Reason, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(Reason, 0))
    examples: dict[Reason, list[str]] = dataclasses.field(default_factory=lambda: {reason: [] for reason in Reason})

    @property
    def kept(self) -> int:
        return self.pairs - sum(self.dropped.values())

    def drop(self, reason: Reason, source: Source, index: int) -> None:
        """Count one dropped pair."""
        self.dropped[reason] += 1
        if len(self.examples[reason]) < EXAMPLES:
            self.examples[reason].append(source.where(index))

    def __str__(self) -> str:
        lines = [f"{self.pairs:,} pairs, {self.kept:,} kept, {self.pairs - self.kept:,} dropped"]
        for reason, count in self.dropped.items():
            lines.append(f"  {reason:<20} {count:>12,}")
            lines += [f"      {where}" for where in self.examples[reason]]
            if count > len(self.examples[reason]):
                lines.append(f"      and {count - len(self.examples[reason]):,} more")
        return "\n".join(lines)


def check(sources: Iterable[Source], rules: Cleaning, normalization: str = "none") -> Report:
    """Read all pairs and report which of them `rules` drops. As in training, duplicates are found within a source, not across sources."""
    report = Report()
    for source in sources:
        report.pairs += len(source)
        keys = bytearray()
        is_clean: np.ndarray = np.zeros(len(source), bool)
        for index, pair in enumerate(source.pairs()):
            cleaned = clean(pair, rules, normalization)
            if isinstance(cleaned, Reason):
                report.drop(cleaned, source, index)
            else:
                is_clean[index] = True
                keys += digest(pair_key(cleaned))
        if rules.drop_duplicates:
            for index in np.flatnonzero(is_clean)[~first_occurrences(np.frombuffer(keys, "<u8"))].tolist():
                report.drop(Reason.DUPLICATE, source, index)
    return report
