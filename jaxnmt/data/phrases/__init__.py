"""The embedded corpus `phrases`: numbers in words, dates, times, prices, durations and places, in any two of its languages.

A sentence is drawn (drawing.py) as a meaning (meaning.py) and then written in each language (grammar.py, words/CODE.toml). Sentence n
therefore means the same in all languages, and each has exactly one translation. The corpus has no end; a sentence is a function of its
index only.

Four in ten sentences of training and validation are plain: a number, an amount or a time alone ("one hundred and two"), or a short
clause in the past, present or future with at most one optional part ("The baker lives in Vienna."). Some of them have no full stop, and
some no capital either; the translation is written the same way. The others are one to three clauses with optional parts.

The test is more than memory because each split has values and templates of its own:

* Values. Each number above twenty belongs to one split by its range of ten: the test has 60-69, 130-139, 200-209, ..., the years
  1880-1889 and 1950-1959 (n // 10 % 7 == 6), validation has n // 10 % 7 == 3 (30-39, 100-109, ...). Values that occur in
  pairs belong to a split by the pair, one in ten to the test and one in ten to validation: small number and noun, thing and adjective,
  day and month, day and part of it, hour and minute, person and place, start and goal. Every word of the test is in training;
  the combinations are new. A number alone belongs to one split by itself, a tenth of them to validation; training has all of one word.
* Templates. Held out for the test are one in five of the clause forms with two options or more (future, time first, a price,
  a place, a time) and one in five of the joins of two kinds of clause ("buy because arrive"), by a CRC, and for each kind of clause
  one of the three verbs that may report it ("say that stay"). Training and validation never have these, every test sentence has
  at least one. No sentence of the test is therefore in training. Validation has training's templates and values of its own. A plain
  sentence has too small a template to hold any out: the test has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxnmt.data.phrases.drawing import draw
from jaxnmt.data.phrases.grammar import Language

_SENTENCE = {code: Language(code).sentence for code in ("en", "fr", "de", "es", "tr")}
LANGUAGES = tuple(_SENTENCE)


def pair(source_language: str, target_language: str, split: str, index: int, seed: int = 0) -> tuple[str, str]:
    """Return sentence `index` (any number from 0) of a split, in two of LANGUAGES."""
    meaning = draw(split, index, seed)
    return _SENTENCE[source_language](meaning), _SENTENCE[target_language](meaning)


def generate(source_language: str, target_language: str, split: str, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Return the first `count` pairs of a split, in order: `pair` of 0, 1, 2, ..."""
    return (pair(source_language, target_language, split, index, seed) for index in range(count))
