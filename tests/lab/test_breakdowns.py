"""Breakdowns, worked out by hand."""

import pytest
from sacrebleu.metrics.chrf import CHRF

from jaxnmt.evaluation.scores import bleu
from jaxnmt.lab import breakdowns

SPLIT = str.split


def test_sentences_fall_in_buckets_by_source_length_and_each_is_scored_alone():
    references = ["a b c d", "e f g h", "i j k l", ""]
    perfect, mixed = references, ["a b c d", "e f g x", "z z z z", ""]
    rows = breakdowns.by_length([5, 6, 61, 0], [perfect, mixed], [references], "none")
    assert [(row["words"], row["sentences"]) for row in rows] == [("0", 1), ("1–5", 1), ("6–10", 1), ("61 or more", 1)]
    assert rows[1]["bleu"] == pytest.approx([100, 100]) and rows[3]["bleu"] == pytest.approx([100, 0])
    assert rows[2]["bleu"][1] == bleu(["e f g x"], [["e f g h"]], "none").value
    assert rows[2]["chrf"] == [CHRF(word_order=2).corpus_score([line], [["e f g h"]]).score for line in ("e f g h", "e f g x")]
    together = breakdowns.by_length([1, 2, 3, 5], [mixed], [references], "none")
    assert len(together) == 1 and together[0]["bleu"][0] == pytest.approx(bleu(mixed, [references], "none").value)


def test_sentences_of_a_length_are_scored_against_all_references():
    first, second = ["a b c d", "e f g h"], ["w x y z", "e f g x"]
    rows = breakdowns.by_length([1, 7], [["w x y z", "e f g x"]], [first, second], "none")
    assert [row["bleu"][0] for row in rows] == pytest.approx([100, 100])
    assert [row["chrf"][0] for row in rows] == pytest.approx([100, 100])


def test_f1_of_rare_words_by_hand():
    references = [SPLIT("the cat the dog"), SPLIT("the zebra")]
    system = [SPLIT("the the the cat"), SPLIT("zebra zebra quagga")]
    frequency = {"the": 5000, "cat": 3, "dog": 4}  # zebra and quagga: never seen
    rows = {row["frequency"]: row for row in breakdowns.by_frequency([references, system], references, frequency)}
    assert set(rows) == {"0", "2–4", "1,000 or more"}
    assert all(row["f1"][0] == 1 for row in rows.values())
    # the: 2 found in the first (it has but two), 0 in the second; 3 given, 3 wanted
    assert rows["1,000 or more"]["words"] == 3 and rows["1,000 or more"]["f1"][1] == pytest.approx(2 * 2 / (3 + 3))
    assert rows["2–4"]["words"] == 2 and rows["2–4"]["f1"][1] == pytest.approx(2 * 1 / (1 + 2))  # cat, no dog
    assert rows["0"]["words"] == 1 and rows["0"]["f1"][1] == pytest.approx(2 * 1 / (3 + 1))  # one zebra of two, a quagga


def test_repetition_by_hand():
    # a a b a b: 1-grams 5, 2 different; 2-grams aa ab ba ab: 3 of 4; 3-grams aab aba bab; the second sentence repeats nothing
    assert breakdowns.repetition([SPLIT("a a b a b"), SPLIT("a b")]) == pytest.approx([3 / 7, 1 / 5, 0, 0])
    assert breakdowns.repetition([[], []]) == [0, 0, 0, 0]


def test_length_and_endings_by_hand():
    references = ["a b c d.", "a b c d .", "a b", "a b c !", "„a b.“"]
    translations = ["a", "a b c d e f g h i .", "a b", "", "a b ."]
    found = breakdowns.shape(translations, references, SPLIT)
    assert found["length_ratio"] == pytest.approx((1 + 10 + 2 + 0 + 3) / (4 + 5 + 2 + 4 + 2))
    # ten words for five are not over
    assert (found["under_half"], found["over_double"], found["empty"]) == pytest.approx((2 / 5, 0, 1 / 5))
    assert found["unfinished"] == pytest.approx(2 / 4)  # of four that end; the third does not
    assert breakdowns.shape(["a b c d e"], ["a b"], SPLIT)["over_double"] == 1
    assert breakdowns.shape(["a b", "a b"], ["a b c d", "a b c d e"], SPLIT)["under_half"] == 1 / 2  # two of four are half


@pytest.mark.parametrize(
    ("text", "ends"),
    [("Ja.", True), ("Ja.”)", True), ("Nein", False), ("„", False), ("", False), ("是。", True), ("ဟုတ်တယ်။", True)],
)
def test_what_ends_a_sentence(text, ends):
    assert breakdowns.ends_sentence(text) is ends


def test_words_are_those_of_bleu():
    assert breakdowns.splitter("13a")("Ja, gut.") == ["Ja", ",", "gut", "."]
    assert breakdowns.splitter("none")("Ja, gut .") == ["Ja,", "gut", "."]
    assert breakdowns.splitter("zh")("你好。") == breakdowns.splitter("char")("你 好。") == ["你", "好", "。"]
