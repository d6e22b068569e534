"""The validation's translations and score."""

import pytest

from jaxnmt.config import Experiment, replace
from jaxnmt.decoding import translator as translators
from jaxnmt.evaluation import validation


class Echo:
    """A translator that gives back its input, with the parameters it was given last."""

    made: list = []

    def __init__(self, model, params, tokenizer, max_length, warn):
        self.params = params
        Echo.made.append(self)

    def translate(self, lines, decoding):
        assert decoding.n_best == 1
        return [[translators.Translation(f"{line} {self.params} {decoding.beam_size}".replace("@@ ", ""), 0.0)] for line in lines]


class Words:
    pretokenized = True


def test_one_translator_serves_all_validations_with_the_newest_parameters(monkeypatch):
    monkeypatch.setattr(validation, "Translator", Echo)
    experiment = replace(Experiment(), **{"validation.beam_size": 3, "decoding.n_best": 2})
    score = validation.ValidationTranslator()
    pairs = [("ein@@ fach so ja", "ein@@ fach so ja new 3")]
    first, worse = score(experiment, None, Words(), "old", pairs, ("en", "de"))
    second, best = score(experiment, None, Words(), "new", pairs, ("en", "de"))
    assert (first, second) == (["einfach so ja old 3"], ["einfach so ja new 3"])
    assert best == pytest.approx(100) and worse < best
    assert len(Echo.made) == 1
