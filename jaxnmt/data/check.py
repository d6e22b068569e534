"""`jaxnmt data check`: what cleaning would drop, and where."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from jaxnmt.config import Cleaning
from jaxnmt.data.cleaning import Duplicates, Reason, clean
from jaxnmt.data.source import Source

EXAMPLES = 5
"""Examples shown for each reason."""


@dataclasses.dataclass
class Report:
    """Pairs read, and for each reason how many are dropped and where the first of them stand. `str` is for people."""

    pairs: int = 0
    dropped: dict[Reason, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(Reason, 0))
    examples: dict[Reason, list[str]] = dataclasses.field(default_factory=lambda: {reason: [] for reason in Reason})

    @property
    def kept(self) -> int:
        return self.pairs - sum(self.dropped.values())

    def drop(self, reason: Reason, where: str) -> None:
        """Counts one dropped pair (it must be in `pairs` too)."""
        self.dropped[reason] += 1
        if len(self.examples[reason]) < EXAMPLES:
            self.examples[reason].append(where)

    def __str__(self) -> str:
        lines = [f"{self.pairs:,} pairs, {self.kept:,} kept, {self.pairs - self.kept:,} dropped"]
        for reason, count in self.dropped.items():
            lines.append(f"  {reason:<20} {count:>12,}")
            lines += [f"      {where}" for where in self.examples[reason]]
            if count > len(self.examples[reason]):
                lines.append(f"      and {count - len(self.examples[reason]):,} more")
        return "\n".join(lines)


def check(sources: Iterable[Source], rules: Cleaning, normalization: str = "none") -> Report:
    """Read all pairs and report what `rules` would drop; duplicates are looked for in each source by itself, as in training."""
    report = Report()
    for source in sources:
        duplicates = Duplicates()
        for index, pair in enumerate(source.pairs()):
            report.pairs += 1
            cleaned = clean(pair, rules, normalization)
            if not isinstance(cleaned, Reason) and rules.drop_duplicates and duplicates.seen(cleaned):
                cleaned = Reason.DUPLICATE
            if isinstance(cleaned, Reason):
                report.drop(cleaned, source.where(index))
    return report
