"""Minimum Bayes risk: against hand-computed chrF, against sacreBLEU, and in translations."""

import numpy as np
import pytest
import sacrebleu
import tiny

from jaxnmt.config import Decoding, Experiment, Tokenizer, checks, replace
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding import mbr
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.models.seq2seq import build_model

UTILITIES = ["chrf", "bleu"]
ODD = ["", "a", "aa aa aa", "the cat sat on the mat .", "the cat is on the mat .", "naïve café — 日本語", "the the the the", " "]


def test_chrf_by_hand():
    # abc against ab: precision (2/3 + 1/2) / 2 = 7/12 and recall 1, so 5 · 7/12 / (4 · 7/12 + 1) = 0.875.
    # ab against abc: precision 1 and recall 7/12, so 5 · 7/12 / (4 + 7/12) = 35/55.
    # abc against cd: 1 of 3 and 1 of 2 characters, no pair, so precision 1/6 and recall 1/4.
    expected = [[1, 0.875, 60 / 264], [35 / 55, 1, 0], [30 / 168, 0, 1]]
    np.testing.assert_allclose(mbr.chrf(["abc", "ab", "cd"]), 100 * np.array(expected))
    np.testing.assert_allclose(mbr.chrf(["aa", "a"])[0, 1], 100 * 2.5 / 3)  # one `a` of two is right


def test_the_largest_mean_utility_wins_and_copies_count():
    assert mbr.ranking(["cd", "ab", "abc"], "chrf") == [2, 1, 0]  # means 39.3, 54.5, 70.1
    assert mbr.ranking(["cd", "ab", "abc", "cd", "cd"], "chrf") == [0, 3, 4, 2, 1]  # means 63.6, 32.7, 51.1


def test_candidates_weigh_as_their_probabilities():
    # With probabilities 0.8, 0.1, 0.1 the means are 81.8 (cd: 80 + 0.1 · 17.9), 16.4 (ab: 10 + 0.1 · 63.6) and 36.9 (abc).
    assert mbr.ranking(["cd", "ab", "abc"], "chrf", np.log([0.8, 0.1, 0.1]).tolist()) == [0, 2, 1]
    assert mbr.ranking(["cd", "ab", "abc"], "chrf", [-1000.0, -1000.0, -1000.0]) == [2, 1, 0]


def test_the_example_of_the_page():
    assert mbr.ranking(["the dog", "a big cat", "the big cat"], "chrf")[0] == 2


def test_utilities_are_sacrebleus():
    chrf = [[sacrebleu.sentence_chrf(text, [reference]).score for reference in ODD] for text in ODD]
    np.testing.assert_allclose(mbr.chrf(ODD), chrf, atol=1e-9)
    bleu = [[sacrebleu.sentence_bleu(text, [reference], use_effective_order=True).score for reference in ODD] for text in ODD]
    np.testing.assert_array_equal(mbr.bleu(ODD), bleu)


@pytest.mark.parametrize("utility", UTILITIES)
def test_one_candidate_is_itself_and_ties_keep_the_order(utility):
    assert mbr.ranking(["a b"], utility) == mbr.ranking([""], utility) == [0]
    assert mbr.ranking(["a a", "b b"], utility) == mbr.ranking(["b b", "a a"], utility) == [0, 1]


@pytest.mark.parametrize("utility", UTILITIES)
def test_the_order_of_candidates_decides_nothing_but_ties(utility):
    random = np.random.default_rng(0)
    for _ in range(10):
        candidates = [" ".join(random.choice(list("abc"), random.integers(1, 7))) for _ in range(12)]
        means = mbr.UTILITIES[utility](candidates).mean(1).round(6)
        order = random.permutation(12)
        shuffled = [candidates[i] for i in order]
        for texts, found in ((candidates, mbr.ranking(candidates, utility)), (shuffled, mbr.ranking(shuffled, utility))):
            assert sorted(found) == list(range(12))
            assert means[candidates.index(texts[found[0]])] == pytest.approx(means.max(), abs=2e-6)


def test_translations_are_the_beams_in_another_order():
    letters = "a b c d e f g h"
    tokenizer = train_tokenizer(Tokenizer(kind="words", vocab_size=0), [(letters, letters)])
    model = build_model(replace(tiny.BASE, tie_embeddings="none"), tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    translator = Translator(model, tiny.params_of(model, 5), tokenizer, 12)
    lines, decoding = ["a b c d", "", "e f g", "h a"], Decoding(beam_size=4, batch_size=4, n_best=4)
    beams = translator.translate(lines, decoding)
    chosen = translator.translate(lines, replace(decoding, mbr="chrf", n_best=2))
    for beam, best in zip(beams, chosen, strict=True):
        texts, scores = zip(*[(candidate.text, candidate.score) for candidate in beam], strict=True)
        assert best == [beam[i] for i in mbr.ranking(texts, "chrf", scores)[:2]]
    assert [best[0] for best in chosen] != [beam[0] for beam in beams]


def test_a_greedy_search_has_nothing_to_choose_from():
    with pytest.raises(UserError, match=r"decoding\.mbr chrf .*decoding\.beam_size is 1"):
        checks.validate(replace(Experiment(), **{"decoding.mbr": "chrf", "decoding.beam_size": 1}))
