"""Descriptions of Debian's packages in two languages: text that the machine's own `apt-get` fetches into a private folder.

Debian's translators keep the English description and its translation under the digest of the English one
(https://www.debian.org/international/l10n/ddtp). Both are divided into the same paragraphs.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxnmt.errors import UserError

_CONFIG = """
Dir::State "{folder}";
Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
#clear Acquire::Languages;
Acquire::Languages {{ "en"; "{language}"; }};
Acquire::GzipIndexes "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
"""Settings that keep `apt-get update` inside a folder. The commands that distributions run after an update are not run."""
_BULLET = re.compile(r"\s*(?:[*+•-]|o(?= ))\s+")
_NGRAM = 6
"""Words of the sequences by which test sentences are compared with training."""


class Description(NamedTuple):
    """A package's description.

    Attributes:
        digest: the MD5 of the English text, which translations have too.
        texts: the synopsis, then paragraphs and items of lists, each in one line.
        shape: for each text, whether it is an item.
    """

    package: str
    digest: str
    texts: tuple[str, ...]
    shape: tuple[bool, ...]


class Pair(NamedTuple):
    """A text in English and in the other language, and the family of packages that it describes."""

    family: str
    english: str
    translation: str


def splits(language: str) -> dict[str, list[Pair]]:
    """Fetch the descriptions in English and a language, and return the pairs of each split.

    Raises:
        UserError: as `fetched`.
    """
    with fetched(language) as lists:
        english, translated = (descriptions(sorted(lists.glob(f"*_Translation-{code}")), code) for code in ("en", language))
        return split(pairs(english, translated, families(sorted(lists.glob("*_Packages")))))


@contextlib.contextmanager
def fetched(language: str) -> Iterator[Path]:
    """Yield a temporary folder with the lists that `apt-get update` fetches: packages, and their descriptions in English and a language.

    Raises:
        UserError: this is not Debian or Ubuntu, or the lists cannot be fetched.
    """
    name = f"debian/en-{language}"
    if not shutil.which("apt-get"):
        raise UserError(f"{name} is fetched by apt-get, which is not here: use Debian or Ubuntu (a container will do)")
    with tempfile.TemporaryDirectory(prefix="jaxnmt-apt-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # as root, apt fetches by an account of its own
        for inside in ("lists/partial", "cache/archives/partial"):
            (folder / inside).mkdir(parents=True)
        (folder / "apt.conf").write_text(_CONFIG.format(folder=folder, language=language))
        command = ["apt-get", "-q", "update", "-c", str(folder / "apt.conf")]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
        for code in ("en", language):
            if not list(folder.glob(f"lists/*_Translation-{code}")):
                reasons = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
                reason = reasons[0] if reasons else "the sources of this system have none"
                raise UserError(f"{name}: apt-get has fetched no descriptions in {code} ({reason}): check /etc/apt and the network")
        yield folder / "lists"


def stanzas(paths: Iterable[Path]) -> Iterator[dict[str, str]]:
    """Yield the stanzas of control files, field by field; lines that continue a field follow it after a line end."""
    for path in paths:
        fields, name = dict[str, str](), ""
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in itertools.chain(file, "\n"):
                line = line.rstrip("\n")
                if not line.strip() and fields:
                    yield fields
                    fields = {}
                elif line.startswith((" ", "\t")) and name in fields:
                    fields[name] += f"\n{line}"
                elif ":" in line:
                    name, _, value = line.partition(":")
                    fields[name] = value.strip()


def descriptions(paths: Iterable[Path], language: str) -> Iterator[Description]:
    """Yield the descriptions of Translation files."""
    for fields in stanzas(paths):
        if text := fields.get(f"Description-{language}"):
            synopsis, *lines = text.split("\n")
            texts, shape = _paragraphs(lines)
            yield Description(fields.get("Package", ""), fields.get("Description-md5", ""), (synopsis, *texts), (False, *shape))


def _paragraphs(lines: Iterable[str]) -> tuple[list[str], list[bool]]:
    """Join the lines of paragraphs and of items. ` .` separates paragraphs, a line that is further indented stands by itself or goes on."""
    texts, shape, starts, is_indented = list[str](), list[bool](), True, False
    for line in lines:
        text, was_indented = line[1:], is_indented
        is_indented = text.startswith((" ", "\t"))
        if text.strip() in ("", "."):
            starts = True
            continue
        bullet = _BULLET.match(text)
        if starts or bullet or (was_indented and not is_indented):
            texts.append(text[bullet.end() :].strip() if bullet else text.strip())
            shape.append(bool(bullet))
        else:
            texts[-1] += f" {text.strip()}"
        starts = False
    return texts, shape


def families(paths: Iterable[Path]) -> dict[str, str]:
    """Return the family of each package in Packages files: its source package without version numbers, `gcc` for `cpp-12` of `gcc-12`."""
    found = {}
    for fields in stanzas(paths):
        source = fields.get("Source", fields.get("Package", "")).split(" ")[0]
        found[fields.get("Package", "")] = re.sub(r"[\d.+-]+$", "", source) or source
    return found


def pairs(english: Iterable[Description], translated: Iterable[Description], family: Mapping[str, str]) -> Iterator[Pair]:
    """Yield the texts of descriptions that both sides have, once each. Of descriptions with other paragraphs, the synopsis alone."""
    by_digest = {each.digest: each for each in translated}
    seen = set[tuple[str, str]]()
    for each in english:
        if other := by_digest.get(each.digest):
            count = len(each.texts) if each.shape == other.shape else 1
            for pair in zip(each.texts[:count], other.texts[:count], strict=True):
                if pair[0] != pair[1] and all(any(map(str.isalpha, text)) for text in pair) and pair not in seen:
                    seen.add(pair)
                    yield Pair(family.get(each.package, each.package), *pair)


def split(found: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Divide pairs by families, about 2 in 100 each into test and validation.

    No family is in two splits. Test and validation lack what training has, too: texts that are equal on one side, and those that share half
    of their English sequences of six words.
    """
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in found:
        number = int(hashlib.sha256(pair.family.encode()).hexdigest(), 16) % 100
        splits["test" if number < 2 else "validation" if number < 4 else "train"].append(pair)
    known = {text for pair in splits["train"] for text in pair[1:]}
    grams = {gram for pair in splits["train"] for gram in _ngrams(pair.english)}
    for name in ("validation", "test"):
        splits[name] = [pair for pair in splits[name] if not known & {*pair[1:]} and not _is_known(_ngrams(pair.english), grams)]
    return splits


def _ngrams(text: str) -> list[int]:
    words = text.lower().split()
    return [hash(tuple(words[start : start + _NGRAM])) for start in range(len(words) - _NGRAM + 1)]


def _is_known(own: list[int], grams: set[int]) -> bool:
    return bool(own) and 2 * sum(gram in grams for gram in own) >= len(own)
