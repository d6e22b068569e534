"""Scores: values worked out by hand, and identity with sacreBLEU's own functions."""

import math

import pytest
import sacrebleu

from jaxnmt.data.vocabulary import join
from jaxnmt.errors import UserError
from jaxnmt.evaluation.scores import bleu, score

HYPOTHESES = ["The cat sat on a mat.", "There are two dogs, they say.", "hello"]
REFERENCES = ["The cat sat on the mat.", "There are two dogs here, they said.", "hello there"]


def test_bleu_by_hand():
    # 1-grams 4/4, 2-grams 3/3, 3-grams 2/2, 4-grams 1/1; four words for five: exp(1 - 5/4)
    assert bleu(["a b c d"], [["a b c d e"]], "none").value == pytest.approx(100 * math.exp(-0.25))


def test_ter_by_hand():
    # one of four words must be substituted
    assert score(["a b c x"], [["a b c d"]], "13a").metrics[2].value == pytest.approx(25.0)


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
