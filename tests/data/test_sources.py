"""Sources in text files: words, weights, alignment, and every mistake answered in one sentence."""

import gzip
import os

import pytest

from jaxnmt.data.sources import language_of, languages_of_tsv, open_sources
from jaxnmt.errors import UserError

ODD = ["\ufeffbom\u2028x", "nul\x00y", "cr\r", "a\x85b\x0cc\x1dd", "", "last\u2029"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.en").write_bytes(b"one\ntwo\nthree\n")
    (tmp_path / "a.de").write_bytes(b"eins\nzwei\ndrei\n")
    (tmp_path / "p.tsv").write_bytes(b"one\teins\ntwo\tzwei\nthree\tdrei\n")
    for name in ("a.en", "a.de", "p.tsv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    return tmp_path


def failure(*words):
    with pytest.raises(UserError) as caught:
        open_sources(words, "data.train")
    message = str(caught.value)
    assert "data.train" in message and "\n" not in message
    return message


@pytest.mark.parametrize("words", [("a.en", "a.de"), ("a.en,a.de",), ("a.en.gz", "a.de"), ("a.en.gz,a.de.gz",), ("p.tsv",), ("p.tsv.gz",)])
def test_every_form_gives_the_same_pairs(words):
    (source,) = open_sources(words, "data.train")
    assert list(source.pairs()) == [(b"one", b"eins"), (b"two", b"zwei"), (b"three", b"drei")]
    assert list(source.pairs(2)) == [(b"three", b"drei")] and list(source.pairs(3)) == []
    assert len(source) == 3 and source.weight == 1.0
    assert source.fingerprint() == open_sources(("a.en", "a.de"), "data.train")[0].fingerprint()


def test_where_a_pair_stands():
    aligned, tsv = open_sources(("a.en", "a.de", "p.tsv"), "data.train")
    assert aligned.where(1) == "a.en:2 / a.de:2" and tsv.where(0) == "p.tsv:1"


def test_one_text_is_the_same_text_whatever_stands_beside_it(here):
    (here / "other.tsv").write_bytes(b"one\tx\ntwo\ty\nthree\tz\n")
    mono, tsv, other = open_sources(("a.en", "p.tsv", "other.tsv@2"), "data.train", pairs=False)
    assert mono.fingerprint() == tsv.fingerprint() == other.fingerprint() and other.weight == 2
    assert list(tsv.pairs(1)) == list(mono.pairs(1)) == [(b"two", b"two"), (b"three", b"three")] and tsv.languages == ("", "")
    assert mono.name == "a.en" and mono.where(2) == "a.en:3" and mono.languages == ("en", "en")


def test_mixture_with_weights():
    words = ("a.en", "a.de@3", "p.tsv@0.5", "a.en.gz,a.de.gz@2", "p.tsv.gz")
    sources = open_sources(words, "data.train")
    assert [source.weight for source in sources] == [3, 0.5, 2, 1]
    assert [source.name for source in sources] == ["a.en,a.de", "p.tsv", "a.en.gz,a.de.gz", "p.tsv.gz"]


def test_an_at_sign_in_a_name_is_no_weight(here):
    (here / "p.tsv").rename(here / "p@3.tsv")
    (here / "me@home").mkdir()
    (here / "a.en").rename(here / "me@home" / "a.en")
    sources = open_sources(("p@3.tsv", "p@3.tsv@2", "me@home/a.en", "a.de"), "data.train")
    assert [source.weight for source in sources] == [1, 2, 1]


def test_no_character_shifts_the_sides(here):
    (here / "odd.en").write_bytes("\n".join(ODD).encode() + b"\n")
    (here / "odd.de").write_bytes(b"\n".join(b"%d\r" % i for i in range(len(ODD))))  # CRLF, and no end on the last line
    (source,) = open_sources(("odd.en", "odd.de"), "data.train")
    assert list(source.pairs()) == [(line.encode(), b"%d\r" % i) for i, line in enumerate(ODD)]
    assert len(source) == len(ODD)


def test_lines_longer_than_a_block_are_counted_once(here):
    long = b"x" * (3 << 20)
    (here / "long.en").write_bytes(long + b"\n" + long)
    (here / "long.de").write_bytes(b"1\n2\n")
    (source,) = open_sources(("long.en", "long.de"), "data.train")
    assert [(len(a), b) for a, b in source.pairs()] == [(len(long), b"1"), (len(long), b"2")]


def test_fingerprint_is_of_the_text(here):
    def fingerprint(*words):
        return open_sources(words, "data.train")[0].fingerprint()

    before = fingerprint("p.tsv")
    assert fingerprint("a.de", "a.en") != before  # the sides matter
    (here / "p.tsv").write_bytes(b"two\tzwei\none\teins\nthree\tdrei\n")
    assert fingerprint("p.tsv") != before  # and the order
    (here / "q.tsv").write_bytes(b"one\teins\ntwo\tzwei\nthree\tdrei")
    assert fingerprint("q.tsv") == before


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n \r\n\n", b"\n  "])
def test_blank_lines_at_the_end_of_a_tsv_are_nothing(here, end):
    (here / "q.tsv").write_bytes(b"one\teins\ntwo\tzwei\nthree\tdrei" + end)
    found, plain = open_sources(("q.tsv", "p.tsv"), "data.train")
    assert len(found) == 3 and list(found.pairs(1)) == list(plain.pairs(1)) and found.fingerprint() == plain.fingerprint()


def test_more_columns_are_ignored(here):
    (here / "q.tsv").write_bytes(b"a\tb\tby someone\tCC BY\n\tc\n")
    assert list(open_sources(("q.tsv",), "data.train")[0].pairs()) == [(b"a", b"b"), (b"", b"c")]


@pytest.mark.parametrize(
    "name, language",
    [("train.en", "en"), ("x/train.de.gz", "de"), ("a.en.txt", "en"), ("a.en.txt.gz", "en"), ("a.pt_BR", "pt_BR"), ("a.zh-Hans", "zh-Hans")]
    + [("train.en.xz", "en"), ("a.en.txt.bz2", "en"), ("a.sr-Latn.zst", "sr-Latn"), ("a.zh_Hans_CN", "zh_Hans_CN"), ("a.es-419", "es-419")]
    + [("a.gsw", "gsw"), ("flores/eng_Latn.dev", "eng_Latn"), ("zho_Hans.devtest", "zho_Hans"), ("pt-BR.txt", "pt-BR"), ("a.tar.de", "de")]
    + [
        (name, "")
        for name in ("train", "train.txt", "train.src", "en", "zh.txt", "corpus.2016", "a.bpe", "train.xz", "en.val", "README.dev")
    ],
)
def test_language_of_a_file(name, language):
    assert language_of(name) == language


def test_languages_of_a_tsv():
    assert languages_of_tsv("eng-tur.train.tsv.gz") == ("eng", "tur")
    assert languages_of_tsv("data/train.en-fr.tsv") == ("en", "fr")
    assert languages_of_tsv("pairs.tsv") == languages_of_tsv("en_US.tsv") == languages_of_tsv("zh-Hans.tsv") == ("", "")
    assert languages_of_tsv("en-zh-Hans.tsv.xz") == ("en", "zh-Hans") and languages_of_tsv("pt_BR-en.tsv.bz2") == ("pt_BR", "en")
    assert languages_of_tsv("dev.eng_Latn-zho_Hans.tsv.zst") == ("eng_Latn", "zho_Hans")
    (source,) = open_sources(("a.en.gz", "a.de"), "data.train")
    assert source.languages == ("en", "de")


def test_no_words_no_sources():
    assert open_sources((), "data.validation") == []


@pytest.mark.parametrize(
    "words, parts",
    [
        (("a.en", "b.de"), ["no file b.de", "did you mean a.de?"]),
        (("q.tsv",), ["no file q.tsv", "p.tsv?"]),
        ((f"{'x' * 300}.en", "a.de"), ["x.en"]),
        (("nowhere/a.en", "a.de"), ["nowhere/a.en", "No such file"]),
        (("a.en", "a.de", "a.en"), ["a.en has no partner"]),
        (("a.en", "p.tsv"), ["a.en has no partner"]),
        (("a.en,a.de,a.en",), ["3 file(s)", "two are needed"]),
        (("a.en,",), ["1 file(s)", "two are needed"]),
        (("a.en@2", "a.de"), ["a.en@2", "after the second"]),
        (("p.tsv@zero",), ["'zero'", "p.tsv@zero"]),
        (("p.tsv@0",), ["'0'", "above 0"]),
        (("p.tsv@-1",), ["'-1'"]),
        (("p.tsv@nan",), ["'nan'"]),
        (("p.tsv@inf",), ["'inf'"]),
        (("p.tsv@",), ["''"]),
        (("folder.en", "a.de"), ["folder.en is a folder"]),
        (("folder.tsv",), ["folder.tsv is a folder"]),
        (("a.en", "empty.de"), ["a.en has 3 lines", "empty.de has 0"]),
        (("empty.tsv",), ["empty.tsv is empty"]),
        (("a.en", "four.de"), ["a.en has 3 lines", "four.de has 4"]),
        (("holes.tsv",), ["holes.tsv:2", "no tab"]),
        (("gap.tsv",), ["gap.tsv:2 ", "no tab"]),
        (("end.tsv",), ["end.tsv:3 ", "no tab"]),
        (("blank.tsv",), ["blank.tsv is empty"]),
        (("cut.tsv.gz",), ["cut.tsv.gz", "gzip"]),
        (("a.en", "cut.de.gz"), ["cut.de.gz", "gzip"]),
        (("a.en", "plain.de.gz"), ["plain.de.gz", "gzip"]),
        (("a.en", "flipped.de.gz"), ["flipped.de.gz", "gzip"]),
    ],
)
def test_mistakes(here, words, parts):
    (here / "folder.en").mkdir()
    (here / "folder.tsv").mkdir()
    (here / "empty.de").touch()
    (here / "empty.tsv").touch()
    (here / "four.de").write_bytes(b"1\n2\n3\n4")
    (here / "holes.tsv").write_bytes(b"a\tb\nno tab here\nc\td\n")
    (here / "gap.tsv").write_bytes(b"a\tb\n\nc\td\n")
    (here / "end.tsv").write_bytes(b"a\tb\nc\td\n\nno tab here")
    (here / "blank.tsv").write_bytes(b"\n \r\n")
    packed = gzip.compress(b"".join(b"%d\t%d\n" % (i * i, i) for i in range(999)))
    (here / "cut.tsv.gz").write_bytes(packed[:500])
    (here / "cut.de.gz").write_bytes(packed[:500])
    (here / "flipped.de.gz").write_bytes(packed[:500] + bytes([packed[500] ^ 1]) + packed[501:])
    (here / "plain.de.gz").write_bytes(b"eins\nzwei\ndrei\n")
    message = failure(*words)
    for part in parts:
        assert part in message


def test_a_pipe_is_refused_without_reading_it(here):
    os.mkfifo(here / "pipe.de")
    assert "pipe.de is not a regular file" in failure("a.en", "pipe.de")
