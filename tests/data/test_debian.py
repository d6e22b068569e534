"""Package descriptions, fetched by an `apt-get` of our own making: paragraphs, pairs, and splits by families."""

import os
import subprocess
import textwrap

import pytest

tfds = pytest.importorskip("tensorflow_datasets")

from jaxnmt.data import debian  # noqa: E402
from jaxnmt.data.sources import open_sources  # noqa: E402
from jaxnmt.errors import UserError  # noqa: E402

ENGLISH = """\
Package: tool
Description-md5: 1
Description-en: a tool
 The first paragraph
 goes on here.
 .
 It has:
  * one thing,
    which goes on
  * another.
 And an end.

Package: other
Description-md5: 2
Description-en: another tool
 Text.

Package: lone
Description-md5: 3
Description-en: not translated
"""
ITALIAN = """\
Package: tool
Description-md5: 1
Description-it: uno strumento
 Il primo paragrafo continua qui.
 .
 Ha:
  * una cosa, che continua
  * un'altra.
 E una fine.

Package: other
Description-md5: 2
Description-it: un altro strumento
 Testo.
 .
 Un paragrafo in più.
"""
EXPECTED = [
    ("a tool", "uno strumento"),
    ("The first paragraph goes on here.", "Il primo paragrafo continua qui."),
    ("It has:", "Ha:"),
    ("one thing, which goes on", "una cosa, che continua"),
    ("another.", "un'altra."),
    ("And an end.", "E una fine."),
    ("another tool", "un altro strumento"),  # its paragraphs are others
]


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"deb_{name.replace('_', '-')}").write_text(text)
    return folder


def test_descriptions_are_divided_into_pairs(tmp_path):
    write(tmp_path, Translation_en=ENGLISH, Translation_it=ITALIAN)
    sides = [debian.descriptions([tmp_path / f"deb_Translation-{code}"], code) for code in ("en", "it")]
    found = list(debian.pairs(*sides, {"tool": "tools"}))
    assert [pair[1:] for pair in found] == EXPECTED and [pair.family for pair in found] == ["tools"] * 6 + ["other"]


def test_families_are_source_packages_without_versions(tmp_path):
    packages = "Package: cpp-12\nSource: gcc-12 (12.2)\n\nPackage: gcc-13\n\nPackage: python3.11\nVersion: 1\n\nPackage: 7zip\n"
    (tmp_path / "deb_Packages").write_text(packages)
    found = {"cpp-12": "gcc", "gcc-13": "gcc", "python3.11": "python", "7zip": "7zip"}
    assert debian.families([tmp_path / "deb_Packages"]) == found


def some_pairs():
    words = [f"word{i}" for i in range(12)]
    for i in range(3000):
        text = " ".join(words[(i * k + k) % 12] for k in range(1, 9))
        yield debian.Pair(f"family{i % 600}", f"{i} {text}", f"{i} testo")
        yield debian.Pair(f"family{i % 600}", f"Headers of {i % 50} things", f"Intestazioni {i % 50}")


def test_no_family_and_no_text_is_in_two_splits():
    splits = debian.split(some_pairs())
    families = [{pair.family for pair in found} for found in splits.values()]
    assert not families[0] & families[1] | families[0] & families[2] | families[1] & families[2]
    known = {text for pair in splits["train"] for text in pair[1:]}
    grams = {gram for pair in splits["train"] for gram in debian._ngrams(pair.english)}
    assert len(splits["train"]) > 5000
    for name in ("validation", "test"):
        for pair in splits[name]:
            own = debian._ngrams(pair.english)
            assert not known & {*pair[1:]} and 2 * sum(gram in grams for gram in own) < max(len(own), 1)
    assert {name: [pair.english for pair in found] for name, found in debian.split(some_pairs()).items()} == {
        name: [pair.english for pair in found] for name, found in splits.items()
    }


APT = """\
#!/bin/sh
# Writes where its settings say what the test has put beside it.
conf="$4"; lists=$(sed -n 's/^Dir::State::Lists "\\(.*\\)";$/\\1/p' "$conf")
[ "$1 $2 $3" = "-q update -c" ] && grep -q '#clear APT::Update::Post-Invoke' "$conf" || exit 9
cp "$(dirname "$0")"/deb_* "$lists" 2>/dev/null
echo "W: Failed to fetch http://example.org" >&2
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A folder with an `apt-get` that comes first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "apt-get").write_text(APT)
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    tfds.disable_progress_bar()
    return folder


def many(code, word):
    return "\n".join(f"Package: p{i}a\nDescription-md5: {i}\nDescription-{code}: {word} {i}\n" for i in range(300))


def test_it_is_a_dataset_like_any_other(apt):
    write(apt, Translation_en=many("en", "tool"), Translation_it=many("it", "strumento"), Packages="Package: p0a\n")
    train, test, reverse = open_sources(("debian/en-it:train", "debian/en-it:test", "debian/it-en"), "data.train")
    pairs = list(train.pairs())
    assert pairs[0][0].startswith(b"tool ") and pairs[0][1] == pairs[0][0].replace(b"tool", b"strumento") and len(train) > 250
    assert train.languages == ("en", "it") and reverse.languages == ("it", "en") and 0 < len(test) < 30
    assert not {*train.pairs()} & {*test.pairs()}


def test_what_cannot_be_fetched_is_said(apt, monkeypatch):
    with pytest.raises(
        UserError, match=r"debian/en-it: apt-get has fetched no descriptions in en \(W: Failed to fetch http://example.org\)"
    ):
        open_sources(("debian/en-it:train",), "data.train")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="is fetched by apt-get, which is not here"):
        open_sources(("debian/en-it:train",), "data.train")


def test_apt_reads_the_settings(tmp_path):
    """The real apt, where there is one: all its folders are ours, and nothing runs after an update."""
    (tmp_path / "apt.conf").write_text(debian._CONFIG.format(folder=tmp_path, language="it"))
    try:
        dump = subprocess.run(["apt-config", "-c", tmp_path / "apt.conf", "dump"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no apt here")
    settings = textwrap.dedent(dump).splitlines()
    assert f'Dir::State "{tmp_path}";' in settings and f'Dir::State::lists "{tmp_path}/lists";' in settings
    assert [line for line in settings if line.startswith("Acquire::Languages::")] == [
        'Acquire::Languages:: "en";',
        'Acquire::Languages:: "it";',
    ]
    assert not any(line.startswith("APT::Update::P") and not line.endswith('"";') for line in settings)
