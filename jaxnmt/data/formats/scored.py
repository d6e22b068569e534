"""TSV files with a score in the third column: source, tab, target, tab, score, as Bicleaner and LASER's mining write them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from jaxnmt.data.formats.units import Entry, Reader, scored
from jaxnmt.data.language_codes import languages_of_tsv
from jaxnmt.errors import UserError
from jaxnmt.io.text import open_text


class Scored(Reader):
    """Every line has a score. Further columns are ignored, and so are blank lines at the end."""

    has_scores = True

    def languages(self) -> tuple[str, str]:
        """Return the languages in the file's name."""
        return languages_of_tsv(self.request.name)

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        blank = 0
        with open_text(self.files[0], self.request.field) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    blank = blank or number
                    continue
                source, target, score = self._columns(b"" if blank else line, blank or number)
                yield scored(self.request, f":{number}", source, target, score)

    def _columns(self, line: bytes, number: int) -> tuple[bytes, bytes, float]:
        columns, score = line.removesuffix(b"\n").split(b"\t"), math.nan
        with contextlib.suppress(ValueError, IndexError):
            score = float(columns[2])
        if math.isnan(score):
            raise UserError(
                f"{self.request.where}:{number} has no number in its third column; "
                "with data.min_score or data.weigh_by_score, every line must be: source, tab, target, tab, score"
            )
        return columns[0], columns[1], score
