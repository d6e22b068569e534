"""Scores: values worked out by hand, and identity with sacreBLEU's own functions."""

import math

import pytest
import sacrebleu

from jaxnmt.data.vocabulary import join
from jaxnmt.errors import UserError
from jaxnmt.evaluation.cider import of_pictures
from jaxnmt.evaluation.scores import bleu, score
from jaxnmt.evaluation.test_sets import by_picture as captions_by_picture
from jaxnmt.evaluation.test_sets import without_gaps

HYPOTHESES = ["The cat sat on a mat.", "There are two dogs, they say.", "hello"]
REFERENCES = ["The cat sat on the mat.", "There are two dogs here, they said.", "hello there"]


def test_bleu_by_hand():
    # 1-grams 4/4, 2-grams 3/3, 3-grams 2/2, 4-grams 1/1; four words for five: exp(1 - 5/4)
    assert bleu(["a b c d"], [["a b c d e"]], "none").value == pytest.approx(100 * math.exp(-0.25))


def test_ter_by_hand():
    # one of four words must be substituted
    assert score(["a b c x"], [["a b c d"]], "13a").metrics[2].value == pytest.approx(25.0)


def test_rouge_by_hand():
    """Lin 2004, section 3.1: both sentences have one of three bigrams, and ROUGE-L tells them apart."""
    reference, metrics = ["police killed the gunman"], ("rouge1", "rouge2", "rougeL")
    values = lambda line, *references: [each.value for each in score([line], references, "13a", metrics=metrics).metrics]  # noqa: E731
    assert values("Police kill the gunman.", reference) == pytest.approx([75, 100 / 3, 75])
    assert values("the gunman kill police", reference) == pytest.approx([75, 100 / 3, 50])
    # 2 of 3 words found, 2 of 4 wanted: F1 4/7; 1 of 2 bigrams, 1 of 3: 2/5
    assert values("the gunman ran", reference) == pytest.approx([400 / 7, 40, 400 / 7])
    assert values("", reference) == values("...", reference) == [0, 0, 0]
    assert values("kill the gunman", reference, ["kill the man"]) == pytest.approx([200 / 3, 50, 200 / 3])  # the best reference


def test_rouge_is_a_mean_over_sentences_and_keeps_letters_of_every_script():
    (rouge,) = score(["bir mavi", "x"], [["bir mavi", "y"]], "none", metrics=("rouge1",)).metrics
    assert (rouge.name, rouge.value) == ("ROUGE-1", 50.0) and "nrefs:1|case:lc|tok:none" in rouge.signature
    for line, reference, tokenize, expected in [
        ("gülüşlü çocuk", "gürültülü şehir", "13a", 0),  # the letters a to z alone would have two words in common
        ("हिन्दी भाषा", "हिन्दी", "13a", 200 / 3),  # its vowels are marks
        ("我喜欢猫。", "我喜欢狗。", "zh", 75),
    ]:
        assert score([line], [[reference]], tokenize, metrics=("rouge1",)).metrics[0].value == pytest.approx(expected)


CAPTIONS = ["a red circle", "two blue squares", "a green star"]
FIRST = ["a  red circle", "two squares", "a star"]
FURTHER = ["one red circle", "", "a green star"]  # the second picture has one caption


def test_captions_are_scored_against_all_captions_of_their_picture():
    cider, exact = score(CAPTIONS, without_gaps([FIRST, FURTHER]), "13a", metrics=("cider", "exact")).metrics
    assert exact.value == pytest.approx(200 / 3) and "nrefs:var" in exact.signature
    assert cider.value == pytest.approx(100 * of_pictures(CAPTIONS, [[*FIRST[:1], FURTHER[0]], FIRST[1:2], [FIRST[2], FURTHER[2]]]).mean())
    assert "case:lc|n:4|sigma:6" in cider.signature


def test_none_is_no_reference():
    metrics = ("bleu", "chrf++", "ter", "rougeL")
    known = without_gaps([FIRST[1:2], FURTHER[1:2]])
    assert known == [["two squares"], [None]] and without_gaps([[""], [""]]) == [[""], [None]]
    gap = [each.value for each in score(CAPTIONS[1:2], known, "13a", metrics=metrics).metrics]
    assert gap == [each.value for each in score(CAPTIONS[1:2], [FIRST[1:2]], "13a", metrics=metrics).metrics]


def test_captions_of_one_picture_are_its_references():
    names, references = captions_by_picture([("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("b", "5")])
    assert names == ["b", "a", "c"] and references == [["1", "2", "4"], ["3", "", ""], ["5", "", ""]]


def test_the_named_scores_are_computed():
    found = score(HYPOTHESES, [REFERENCES], "13a", metrics=("rougeL", "chrf"))
    assert [each.name for each in found.metrics] == ["ROUGE-L", "chrF"] and math.isnan(found.bleu)


def test_scores_are_sacrebleus_own():
    found = score(HYPOTHESES, [REFERENCES], "13a", "a note")
    assert found.bleu == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert found.metrics[0] == bleu(HYPOTHESES, [REFERENCES], "13a")
    assert found.metrics[1].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES], word_order=2).score
    assert found.metrics[2].value == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score
    text = str(found)
    assert "tok:13a" in text and f"version:{sacrebleu.__version__}" in text and "chrF++" in text and text.endswith("3 sentences\na note")


def test_what_cannot_be_scored_is_refused_with_both_numbers():
    with pytest.raises(UserError, match="3 translations .* 2 references"):
        score(HYPOTHESES, [REFERENCES, REFERENCES[:2]], "13a")
    with pytest.raises(UserError, match="nothing to score"):
        score([], [[]], "13a")


def test_pieces_are_joined():
    assert join("ein@@ fa@@ ch so", "@@ ") == "einfach so"
    assert join("am En@@", "@@ ") == "am En"
