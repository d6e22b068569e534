"""Which sentences a run is scored on, as what language, and against which references."""

import json
import unicodedata

import pytest

from jaxnmt.config import Data, Experiment, Tokenizer, replace
from jaxnmt.data import identity
from jaxnmt.data.prepared import prepare
from jaxnmt.errors import UserError
from jaxnmt.evaluation.test_sets import TestSet, open_test_set


@pytest.fixture
def experiment(tmp_path):
    """Of two files, some of whose pairs are held out; a run of it has begun."""
    for language in ("en", "zh"):
        (tmp_path / f"a.{language}").write_text("".join(f"{language} {i} x y\n" for i in range(300)))
    data = Data(train=(str(tmp_path / "a.en"), str(tmp_path / "a.zh")), cache=str(tmp_path / "cache"), held_out=20, workers=1)
    experiment = Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0, joint=False))
    prepared = prepare(experiment, tmp_path / "tokenizer", lambda line: None)
    (tmp_path / identity.RECORD).write_text(json.dumps(prepared.fingerprints))
    assert prepared.languages == ("en", "zh")
    return experiment


def pair(folder, source, target, name="t"):
    """The words that name two files of these lines."""
    for suffix, lines in (("src.txt", source), ("ref.txt", target)):
        (folder / f"{name}.{suffix}").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / f"{name}.src.txt"), str(folder / f"{name}.ref.txt")


RAW = replace(Experiment(), **{"data.source_language": "en"})


def test_languages_are_those_of_the_text_trained_on_unless_source_or_field_knows_better(experiment, tmp_path):
    held_out = open_test_set(experiment, tmp_path, "validation")
    assert held_out.languages == ("en", "zh") and len(held_out.sources) > 5
    for name, languages in (("dev.tsv", ("en", "zh")), ("dev.en-ko.tsv", ("en", "ko"))):
        (tmp_path / name).write_text("a\tb\n")
        assert open_test_set(experiment, tmp_path, "test", (str(tmp_path / name),)).languages == languages
    said = replace(experiment, **{"data.target_language": "ja"})
    assert open_test_set(said, tmp_path, "validation").languages == ("en", "ja")
    assert open_test_set(said, tmp_path, "validation", target_language="th").languages == ("en", "th")


def test_held_out_pairs_of_other_text_are_refused(experiment, tmp_path):
    (tmp_path / "a.en").write_text("".join(f"en {i} z\n" for i in range(300)))
    with pytest.raises(UserError, match="not the text that .* was trained on .* --data"):
        open_test_set(experiment, tmp_path, "test")


def test_the_tokenizers_are_those_of_the_texts_or_the_users(tmp_path):
    words = pair(tmp_path, ["one man"], ["一个男人"])
    found = open_test_set(RAW, tmp_path, "test", words)
    assert (found.tokenize, found.source_tokenize) == ("zh", "13a") and "its language is not named" in found.note
    assert "labelled" not in open_test_set(RAW, tmp_path, "test", words, target_language="zh").note
    assert open_test_set(RAW, tmp_path, "test", words, tokenize="char").tokenize == "char"
    back = open_test_set(RAW, tmp_path, "test", words[::-1])
    assert (back.tokenize, back.source_tokenize) == ("13a", "zh")


def test_further_references_have_a_line_for_each_sentence(tmp_path):
    words = pair(tmp_path, ["one", "two"], ["eins", "zwei"])
    (tmp_path / "second.de").write_text("ein\n\n")
    (tmp_path / "short.de").write_text("ein\n")
    found = open_test_set(RAW, tmp_path, "test", words, (str(tmp_path / "second.de"),))
    assert found.references == [["eins", "zwei"], ["ein", ""]]
    with pytest.raises(UserError, match=r"short.de has 1 lines, but .*t.src.txt.* has 2 sentences"):
        open_test_set(RAW, tmp_path, "test", words, (str(tmp_path / "second.de"), str(tmp_path / "short.de")))


def test_references_that_are_all_empty_are_refused(tmp_path):
    words = pair(tmp_path, ["one", "two"], ["", " "])
    with pytest.raises(UserError, match="all references are empty"):
        open_test_set(RAW, tmp_path, "test", words)
    (tmp_path / "second.de").write_text("ein\nzwei\n")
    assert len(open_test_set(RAW, tmp_path, "test", words, (str(tmp_path / "second.de"),)).references) == 2


@pytest.mark.parametrize(
    ("joiner", "target", "reference", "tokenize"),
    [
        ("@@ ", "ei@@ ns , zwei", "eins , zwei", "none"),  # words stay split from punctuation
        ("▁", "▁ei ns , ▁zwei", "eins, zwei", "13a"),  # the text as it was before SentencePiece
        ("▁", "▁ 一 个 男人", "一个男人", "zh"),
        ("￭", "ei￭ ns ￭, zwei", "eins, zwei", "13a"),
    ],
)
def test_split_references_are_joined_and_scored_as_what_they_are(tmp_path, joiner, target, reference, tokenize):
    split = replace(RAW, **{"tokenizer.kind": "words", "tokenizer.joiner": joiner})
    words = pair(tmp_path, [target], [target])
    (tmp_path / "second.de").write_text(f"{target}\n")
    found = open_test_set(split, tmp_path, "test", words, (str(tmp_path / "second.de"),))
    assert found.references == [[reference], [reference]] and found.sources == found.targets == [target]
    assert found.tokenize == tokenize and found.pretokenized and "joined" in found.note
    assert ("tokenize=none" in found.note) is (tokenize == "none")
    assert open_test_set(split, tmp_path, "test", words, tokenize="intl").tokenize == "intl"


def test_references_that_are_split_otherwise_than_the_run_are_refused(tmp_path):
    split = replace(RAW, **{"tokenizer.kind": "words"})
    good, bad = pair(tmp_path, ["o@@ ne"], ["ei@@ ns"]), pair(tmp_path, ["▁o ne"], ["▁ei ns"], "bad")
    with pytest.raises(UserError, match="bad.src.txt,.*is split into pieces by '▁', and tokenizer.joiner '@@ ' does not occur in it"):
        open_test_set(split, tmp_path, "test", bad)
    with pytest.raises(UserError, match="bad.ref.txt is split into pieces by '▁'"):
        open_test_set(split, tmp_path, "test", good, (bad[1],))


def test_references_are_in_the_unicode_form_of_the_runs_tokenizer(tmp_path):
    nfd = unicodedata.normalize("NFD", "ein Café")
    words = pair(tmp_path, [nfd], [nfd])
    found = open_test_set(RAW, tmp_path, "test", words)
    assert found.references == [["ein Café"]] and found.targets == ["ein Café"] and "scored in Unicode NFC" in found.note
    older = tmp_path / "tokenizer"
    older.mkdir()
    (older / "tokenizer.json").write_text('{"files": ["joint.model"], "joiner": ""}')  # names no form: text stays as it is
    found = open_test_set(RAW, tmp_path, "test", words)
    assert found.references == [[nfd]] and found.note == ""


def test_the_words_of_sources_are_split_by_their_own_script():
    made = TestSet("t", ["一个男人"], [["ein Mann"]], ("", "")).with_tokenizers()
    assert (made.source_tokenize, made.tokenize) == ("zh", "13a")
    split = TestSet("t", ["一个 男人"], [["ein Mann"]], ("", "")).with_tokenizers(words_split=True)
    assert split.source_tokenize == "none"
