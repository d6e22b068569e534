"""Scores of labels and numbers, by hand and by their definitions."""

import numpy as np
import pytest
from sklearn import metrics

from jaxnmt.errors import UserError
from jaxnmt.evaluation import labels


def values(kind, made, references, confidences=()):
    return {score.name: score.value for score in labels.score(kind, made, references, confidences).metrics}


def test_one_label_by_hand():
    # a: 2 hits of 3 predicted and 2 wanted; b: 1 of 1 and 2; c is wanted by none
    found = values("one", ["a", "a", "b", "a", "c"], ["a", "a", "b", "b", "d e"], [0.9, 0.9, 0.9, 0.9, 0.5])
    assert found["accuracy"] == pytest.approx(60)
    assert found["macro-F1"] == pytest.approx(100 * (4 / 5 + 2 / 3 + 0) / 3)
    assert found["ECE"] == pytest.approx(100 * (4 / 5 * abs(0.75 - 0.9) + 1 / 5 * abs(0 - 0.5)))
    assert values("one", ["d  e "], ["d e"])["accuracy"] == 100  # spaces do not matter


def test_several_labels_by_hand():
    found = values("several", ["a,b", "", "b", "c"], ["b, a", "", "a", "c,b"])
    assert found["exact"] == 50
    assert found["micro-F1"] == pytest.approx(100 * 2 * 3 / (4 + 5))
    assert found["macro-F1"] == pytest.approx(100 * (2 / 3 + 2 / 4 + 1) / 3)


def test_texts_without_any_label_have_no_f1_of_labels():
    found = values("several", ["", "a"], ["", ""])
    assert found["exact"] == 50 and "macro-F1" not in found


def test_numbers_by_hand():
    found = values("number", ["1", "2", "4"], ["1", "3", "5"])
    assert found["MAE"] == pytest.approx(2 / 3) and found["R2"] == pytest.approx(1 - 2 / 8)
    assert found["Pearson"] == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 5])[0, 1])
    assert list(values("number", ["1", "2"], ["3", "3"])) == ["MAE"]  # nothing varies


def test_confidence_that_is_right_as_often_as_it_says_is_calibrated():
    random = np.random.default_rng(0)
    confidences = random.uniform(0.2, 1, 100_000)
    right = random.uniform(size=confidences.size) < confidences
    assert labels.calibration_error(confidences, right.astype(float)) < 0.01
    assert labels.calibration_error(np.ones(4), np.array([1.0, 0, 0, 0])) == 0.75


def test_a_paired_test_tells_systems_apart_if_their_labels_differ():
    right = ["a", "b"] * 50
    worse, other = ["a"] * 100, right[:96] + ["x"] * 4
    (accuracy,) = labels.paired("one", [right, worse, other], right, "paired-bootstrap", 200)
    assert [each.score for each in accuracy.estimates] == [100, 50, 96]
    assert accuracy.estimates[1].p < 0.01 and accuracy.estimates[2].p > accuracy.estimates[1].p
    micro, exact = labels.paired("several", [["a,b"] * 10, ["a"] * 10], ["a,b"] * 10, "approximate-randomisation", 200)
    assert (micro.name, exact.name) == ("micro-F1", "exact") and exact.estimates[1].score == 0
    assert micro.estimates[1].score == pytest.approx(100 * 2 / 3)


def test_there_must_be_a_prediction_for_each_text():
    with pytest.raises(UserError, match="cannot be scored"):
        labels.score("one", ["a"], ["a", "b"])


def test_accuracy_and_macro_f1_are_scikit_learns():
    random = np.random.default_rng(0)
    right, made = (random.choice(["one", "two words", "3", "rare"], 200, p=[0.5, 0.3, 0.18, 0.02]).tolist() for _ in range(2))
    made[:5] = ["never in the references"] * 5
    found = {each.name: each.value for each in labels.score("one", made, right).metrics}
    assert found["accuracy"] == pytest.approx(100 * metrics.accuracy_score(right, made))
    assert found["macro-F1"] == pytest.approx(100 * metrics.f1_score(right, made, average="macro", labels=sorted(set(right))))
