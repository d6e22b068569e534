"""Scores: values worked out by hand, and identity with sacreBLEU's own functions."""

import math

import pytest
import sacrebleu

from jaxnmt.config import UserError
from jaxnmt.data.vocabulary import join
from jaxnmt.evaluation.scores import bleu_score, bleu_tokenizer, score

HYPOTHESES = ["The cat sat on a mat.", "There are two dogs, they say.", "hello"]
REFERENCES = ["The cat sat on the mat.", "There are two dogs here, they said.", "hello there"]
EN_DE = ("en", "de")


def test_bleu_by_hand():
    # 1-grams 4/4, 2-grams 3/3, 3-grams 2/2, 4-grams 1/1; four words for five: exp(1 - 5/4)
    assert bleu_score(["a b c d"], ["a b c d e"], True, EN_DE) == pytest.approx(100 * math.exp(-0.25))


def test_ter_by_hand():
    # one of four words must be substituted
    assert score(["a b c x"], ["a b c d"], False, EN_DE).metrics[2].value == pytest.approx(25.0)


def test_scores_are_sacrebleus_own():
    found = score(HYPOTHESES, REFERENCES, False, EN_DE)
    assert found.bleu == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score == bleu_score(HYPOTHESES, REFERENCES, False, EN_DE)
    assert found.metrics[1].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES], word_order=2).score
    assert found.metrics[2].value == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score
    text = str(found)
    assert "tok:13a" in text and f"version:{sacrebleu.__version__}" in text and "chrF++" in text and "3 sentences" in text


def test_pretokenized_text_is_not_split_again_and_said_so():
    texts = ["the (old) dog sleeps ."], ["the ( old ) dog sleeps ."]
    found = score(*texts, True, EN_DE)
    assert found.bleu < 100 == pytest.approx(score(*texts, False, EN_DE).bleu)
    assert "tok:none" in found.metrics[0].signature and "tokenize=none" in str(found)


@pytest.mark.parametrize(("language", "tokenizer"), [("de", "13a"), ("", "13a"), ("zh", "zh"), ("zh_CN", "zh"), ("cmn", "zh")])
def test_the_target_language_chooses_the_tokenizer(language, tokenizer):
    assert bleu_tokenizer(language) == tokenizer
    assert f"tok:{tokenizer}" in score(["x y"], ["x y"], False, ("en", language)).metrics[0].signature


@pytest.mark.parametrize("language", ["ja", "ko"])
def test_languages_without_spaces_are_scored_with_or_without_mecab(language):
    # three of four characters agree: far from 0, which an unsplit sentence would score
    assert bleu_tokenizer(language) in (f"{language}-mecab", "char")
    assert bleu_score(["これは本です。" * 3], ["これは本です。" * 3 + "よ"], False, ("en", language)) > 30


def test_what_cannot_be_scored_is_refused_with_both_numbers():
    with pytest.raises(UserError, match="3 translations .* 2 references"):
        score(HYPOTHESES, REFERENCES[:2], False, EN_DE)
    with pytest.raises(UserError, match="nothing to score"):
        score([], [], False, EN_DE)


def test_pieces_are_joined():
    assert join("ein@@ fa@@ ch so", "@@ ") == "einfach so"
    assert join("am En@@", "@@ ") == "am En"
