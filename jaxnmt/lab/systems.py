"""Options of comparisons. Imports nothing heavy, so that the command line can list them."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxnmt.config import NonNegative

Checkpoint = int | Literal["best", "latest", "average"]
Tokenize = Literal["", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200", "spBLEU-1K"]  # of sacreBLEU


@dataclasses.dataclass(frozen=True)
class Systems:
    """Options for systems on one test set: runs, or files of translations."""

    source: str = ""
    """File of source sentences; when empty, with --reference empty too, the first run's test sentences."""
    reference: tuple[str, ...] = ()
    """File of their reference translations, or several files, one for each reference."""
    split: Literal["test", "validation"] = "test"
    """The runs' own sentences to translate."""
    checkpoint: Checkpoint = "best"
    """Of the runs: a step, or best, latest, or average (made by `jaxnmt runs average`)."""
    beam_size: NonNegative[int] = 0
    """Of the runs; 0: as in each run's settings."""
    pretokenized: bool = False
    """The text of --reference and of the files is already split by spaces: BLEU counts words as they are (tokenize=none)."""
    target_language: str = ""
    """Code of the references' language; when empty, the suffix of the file's name (test.de: de), or the run's."""
    tokenize: Tokenize = ""
    """BLEU's tokenizer, by sacreBLEU's name; when empty, chosen by the references' script and language."""
