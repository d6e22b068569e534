"""Cleaning: what is dropped and why; and text that never shifts a line."""

import numpy as np
import pytest

from jaxnmt.config import Cleaning
from jaxnmt.data import cleaning
from jaxnmt.data.cleaning import EXAMPLES, Reason, check, clean
from jaxnmt.data.sources import open_sources
from jaxnmt.io.text import decode

RULES = Cleaning(max_characters=100, max_ratio=3.0)


def test_a_good_pair_is_kept_as_text():
    assert clean(("Grüße  an alle".encode(), b"greetings"), RULES) == ("Grüße  an alle", "greetings")


@pytest.mark.parametrize(
    "pair, reason",
    [
        ((b"", b"b"), Reason.EMPTY),
        ((b"a", b" \t\r"), Reason.EMPTY),
        ((b"a", "\u2028\ufeff".encode()), Reason.EMPTY),
        ((b"caf\xe9", b"cafe"), Reason.INVALID_UTF8),
        ((b"a" * 101, b"a" * 101), Reason.TOO_LONG),
        ((b"a" * 31, b"a" * 10), Reason.RATIO),
        ((b"a" * 10, b"a" * 31), Reason.RATIO),
    ],
)
def test_reason(pair, reason):
    assert clean(pair, RULES) is reason


def test_limits_are_inclusive_and_count_characters_not_bytes():
    assert clean(("é".encode() * 100, b"a" * 100), RULES) == ("é" * 100, "a" * 100)
    assert clean((b"a" * 30, b"a" * 10), RULES) == ("a" * 30, "a" * 10)


def test_short_sides_pass_the_ratio():
    assert clean((b"a" * 19, b"b"), RULES) == ("a" * 19, "b")
    assert clean((b"a" * 20, b"b"), RULES) is Reason.RATIO


def test_characters_are_counted_and_pairs_compared_in_the_tokenizers_unicode_form(tmp_path):
    composed, decomposed = "é".encode() * 100, "e\u0301".encode() * 100
    assert clean((decomposed, b"a" * 100), RULES, "nfc") == clean((composed, b"a" * 100), RULES) == ("é" * 100, "a" * 100)
    assert clean((decomposed, b"a" * 100), RULES) is Reason.TOO_LONG
    (tmp_path / "p.tsv").write_bytes(b"%b\t%b\n%b\t%b\n" % (composed, b"b" * 100, decomposed, b"b" * 100))
    sources = open_sources((str(tmp_path / "p.tsv"),), "data.train")
    assert (check(sources, Cleaning(), "nfc").kept, check(sources, Cleaning()).kept) == (1, 2)


@pytest.mark.parametrize("byte", [*range(0x20), 0x7F])
def test_every_control_byte_is_harmless(byte):
    text = decode(b"a" + bytes([byte]) + b"b")
    assert text == "a b"


@pytest.mark.parametrize("character", "\x85\u2028\u2029\x0b\x0c\x1c\r\n")
def test_what_python_takes_for_a_line_end_becomes_a_space(character):
    assert decode(f"a{character}b{character}".encode()) == "a b"


def test_decode_never_fails_and_stays_one_line():
    text = decode(b"\xef\xbb\xbf" + bytes(range(256)) + b"\r")
    assert len(text.splitlines()) == 1 and "\ufffd" in text and "\ufeff" not in text


def test_training_and_translation_see_the_same_text():
    line = "\ufeffein\u2028Satz\x00mit\tallem\r".encode()
    assert clean((line, line), RULES) == (decode(line), decode(line)) == ("ein Satz mit allem",) * 2


@pytest.mark.parametrize("size", [3, 1000])
def test_duplicates_are_pairs_with_both_sides_equal(monkeypatch, size):
    monkeypatch.setattr(cleaning, "SLICE", size)
    pairs = [(f"a{i}", f"b{j}") for i in range(4) for j in range(4)]
    mask = cleaning.first_occurrences(cleaning.hashes(map(cleaning.pair_key, [*pairs, *pairs, ("b0", "a0")])))
    assert mask.tolist() == [True] * 16 + [False] * 16 + [True]
    assert cleaning.first_occurrences(np.empty(0, np.uint64)).tolist() == []


def test_report_counts_each_reason_and_names_file_and_line(tmp_path, monkeypatch):
    source, target = tmp_path / "t.en", tmp_path / "t.de"
    source.write_bytes(b"one\ntwo\n\nbad\xff\none\n" + b"x" * 101 + b"\n" + b"y" * 40 + b"\n")
    target.write_bytes(b"eins\nzwei\ndrei\nb\neins\n" + b"x" * 101 + b"\n" + b"y" * 4 + b"\n")
    report = check(open_sources((str(source), str(target)), "data.train"), RULES)
    assert (report.pairs, report.kept) == (7, 2)
    lines = {reason: [f"{source}:{n} / {target}:{n}"] for reason, n in zip(Reason, (4, 3, 6, 7, 5), strict=True)}
    assert report.examples == lines
    assert report.dropped == dict.fromkeys(Reason, 1)
    for reason in Reason:
        assert str(reason) in str(report) and lines[reason][0] in str(report)


def test_report_shows_the_first_examples_only(tmp_path):
    (tmp_path / "p.tsv").write_bytes(b"\t\n" * 9)
    report = check(open_sources((str(tmp_path / "p.tsv"),), "data.train"), cleaning.Cleaning())
    assert report.dropped[Reason.EMPTY] == 9
    assert report.examples[Reason.EMPTY] == [f"{tmp_path}/p.tsv:{n + 1}" for n in range(EXAMPLES)]


def test_duplicates_may_be_kept(tmp_path):
    (tmp_path / "p.tsv").write_bytes(b"a\tb\n" * 3)
    sources = open_sources((str(tmp_path / "p.tsv"),), "data.train")
    assert check(sources, Cleaning(drop_duplicates=False)).kept == 3
    assert check(sources, Cleaning()).kept == 1
    assert check([*sources, *sources], Cleaning()).kept == 2  # a pair may stand in two sources of a mixture
