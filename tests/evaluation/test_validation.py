"""The validation's translations and score."""

import types
import unicodedata

import pytest

from jaxnmt.config import Captioning, Experiment, Tokenizer, replace
from jaxnmt.data.tokenizer_training import train_tokenizer
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


TOKENIZER = train_tokenizer(Tokenizer(kind="words", vocab_size=0), [("ein@@ fach", "so")])


def trainer(config, tokenizer, pairs, languages):
    """What the validation reads of a trainer."""
    data = types.SimpleNamespace(tokenizer=tokenizer, validation=pairs, languages=languages)
    return types.SimpleNamespace(config=config, decoder=types.SimpleNamespace(can_gather=False), data=data)


def test_one_translator_serves_all_validations_with_the_newest_parameters(monkeypatch):
    monkeypatch.setattr(validation.pkgutil, "resolve_name", lambda name: Echo)
    experiment = replace(Experiment(), **{"validation.beam_size": 3, "decoding.n_best": 2})
    score = validation.ValidationTranslator()
    of = trainer(experiment, TOKENIZER, [("ein@@ fach so ja", "ein@@ fach so ja new 3")], ("en", "de"))
    first, worse = score(of, "old")
    second, best = score(of, "new")
    assert (first, second) == (["einfach so ja old 3"], ["einfach so ja new 3"])
    assert best == pytest.approx(100) and worse < best
    assert len(Echo.made) == 1


def validated(monkeypatch, pairs, languages, options=None):
    """What two validations say, and the signature of the second's BLEU; translations are the sources."""
    monkeypatch.setattr(validation.pkgutil, "resolve_name", lambda name: Echo)
    said = []
    monkeypatch.setattr(validation.log, "say", said.append)
    score = validation.ValidationTranslator()
    assert score.signature == ""
    tokenizer = train_tokenizer(options or Tokenizer(vocab_size=600), [(source, target) for source, target in pairs])
    for _ in range(2):
        hypotheses, value = score(trainer(replace(Experiment(), **{"validation.beam_size": 1}), tokenizer, pairs, languages), "")
    return said, score.signature, value


def test_the_script_of_the_references_decides_and_that_is_said_once(monkeypatch):
    chinese = [("一个男人在公园里", "一个男人在公园里看到两只狗。")] * 5
    said, signature, value = validated(monkeypatch, chinese, ("en", ""))
    assert "tok:zh" in signature and value > 10  # 13a gives 0.00
    assert len(said) == 1 and "its language is not named: BLEU's tokenizer is zh" in said[0]
    said, signature, _ = validated(monkeypatch, [("ชายคนหนึ่ง", "ชายคนหนึ่งเห็นสุนัข")] * 5, ("en", "th"))
    assert "tok:char" in signature and said == []
    said, signature, _ = validated(monkeypatch, [("ein Mann", "ein Mann")] * 5, ("en", "de"))
    assert "tok:13a" in signature and said == []


def test_references_are_joined_and_composed_as_translations_are(monkeypatch):
    split = Tokenizer(kind="words", vocab_size=0, joiner="▁")
    _, signature, _ = validated(monkeypatch, [("▁ei ns", "▁Ei ns , ▁zw ei")] * 3, ("en", "de"), split)
    assert "tok:13a" in signature
    monkeypatch.setattr(
        Echo, "translate", lambda self, lines, decoding: [[translators.Translation("Café, ein zwei drei", 0.0)]] * len(lines)
    )
    nfd = unicodedata.normalize("NFD", "Café, ein zwei drei")
    assert validated(monkeypatch, [("x", nfd)] * 3, ("en", "fr"))[2] == pytest.approx(100)
    assert validated(monkeypatch, [("x", nfd)] * 3, ("en", "fr"), Tokenizer(vocab_size=600, normalization="none"))[2] < 100
    assert validated(monkeypatch, [("x", "▁Café , ▁ein ▁zwei ▁dr ei")] * 3, ("en", "fr"), split)[2] == pytest.approx(100)


def test_a_picture_with_several_captions_is_captioned_once_and_scored_against_all(monkeypatch):
    monkeypatch.setattr(validation.pkgutil, "resolve_name", lambda name: Echo)
    experiment = replace(Experiment(task=Captioning()), **{"validation.beam_size": 1})
    score = validation.ValidationTranslator()
    pairs = [("a", "b c d e"), ("x", "x y z w 1"), ("a", "a y z w 1")]
    hypotheses, value = score(trainer(experiment, TOKENIZER, pairs, ("", "en")), "y z w")
    assert hypotheses == ["a y z w 1", "x y z w 1", "a y z w 1"] and value == pytest.approx(100) and "nrefs:var" in score.signature
