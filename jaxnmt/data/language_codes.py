"""Language codes: in the names of files, and which of them mean the same language."""

from __future__ import annotations

import re
from pathlib import Path

from jaxnmt.io.text import COMPRESSED

_NOT_LANGUAGES = set("tsv csv dat src tgt trg ref hyp raw tok bpe spm lc tc out dev val tst".split())
# Language, script, region: en, zho_Hans, pt-BR, es-419.
_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[0-9]{3}))*"
# The script may be in lower case, too: zh-hans.
_LOOSE_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Za-z]{2,4}|[0-9]{3}))*"


def language_of(path: str) -> str:
    """Return the language code in a file name such as `train.en`, `train.en.xz`, `train.en.txt` or `eng_Latn.dev` (FLORES); "" if none."""
    parts = _parts(path)
    if len(parts) > 1 and re.fullmatch(_LOOSE_CODE, parts[-1]) and parts[-1] not in _NOT_LANGUAGES:
        return parts[-1]
    return next((part for part in reversed(parts) if re.fullmatch(_CODE, part) and not part.islower()), "")


def languages_of_tsv(path: str) -> tuple[str, str]:
    """Return the language codes in a TSV's name: `en-tr.tsv` and `train.en-tr.tsv.gz` are `en` and `tr`; ("", "") if none."""
    matches = (re.fullmatch(rf"({_CODE})[-_]({_CODE})", part) for part in _parts(path))
    return next(((match[1], match[2]) for match in matches if match), ("", ""))


def _parts(path: str) -> list[str]:
    """Return the parts of a file name between its dots, without the suffixes of plain and compressed text."""
    suffixes = "|".join(map(re.escape, (*COMPRESSED, ".txt")))
    return re.sub(f"({suffixes})+$", "", Path(path).name).split(".")


def same_language(wanted: str, code: str) -> bool:
    """Return whether text in the language `code` is text in the language `wanted`: `en-US` is `en`, but not `en-GB`."""
    wanted, code = (each.replace("_", "-").lower() for each in (wanted, code))
    return code == wanted or code.startswith(f"{wanted}-")


def in_order(wanted: tuple[str, str], found: tuple[str, str]) -> int | None:
    """Compare the languages of a user with those of a file, if both are known; "" means unknown.

    Returns:
        1 if they are the same, -1 if they are the same the other way round, None if they are others.
    """
    for order in (1, -1):
        if all(not want or not code or same_language(want, code) for want, code in zip(wanted, found[::order], strict=True)):
            return order
    return None
