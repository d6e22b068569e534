"""TSV files with a score in the third column: source, tab, target, tab, score, as Bicleaner and LASER's mining write them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from jaxnmt.data.formats.units import Entry, Reader
from jaxnmt.data.language_codes import languages_of_tsv
from jaxnmt.errors import UserError
from jaxnmt.io.text import open_text


class Scored(Reader):
    """The lines whose score is at least `request.min_score`. Further columns are ignored, and so are blank lines at the end."""

    def languages(self) -> tuple[str, str]:
        """Return the languages in the file's name."""
        return languages_of_tsv(self.request.name)

    def entries(self, languages: tuple[str, str]) -> Iterator[Entry]:
        assert self.request.min_score is not None
        low, blank = f"with a score below {self.request.min_score:g}", 0
        with open_text(self.files[0], self.request.field) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    blank = blank or number
                    continue
                source, target, score = self._columns(b"" if blank else line, blank or number)
                yield Entry(f":{number}", source, target, low if score < self.request.min_score else "")

    def _columns(self, line: bytes, number: int) -> tuple[bytes, bytes, float]:
        columns, score = line.removesuffix(b"\n").split(b"\t"), math.nan
        with contextlib.suppress(ValueError, IndexError):
            score = float(columns[2])
        if math.isnan(score):
            raise UserError(
                f"{self.request.where}:{number} has no number in its third column; "
                "with data.min_score, every line must be: source, tab, target, tab, score"
            )
        return columns[0], columns[1], score
