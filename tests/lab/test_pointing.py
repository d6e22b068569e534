"""`probe pointing`: kinds of words, regions by hand, and attention that looks where it should, everywhere, and elsewhere."""

import csv
import functools

import jax
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.data import scenes
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.lab.options import Pointing
from jaxnmt.lab.probes import pointing
from jaxnmt.models.seq2seq import build_model

TASK = cfg.Captioning(size=48, patch=8)
CAPTIONS = [scenes.caption(scenes.scene("train", index), "tr") for index in range(400)]
TOKENIZERS = {
    "words": cfg.Tokenizer(kind="words", vocab_size=0, joiner="", joint=True),
    "pieces": cfg.Tokenizer(vocab_size=300, joint=True),
}


@functools.cache
def tokenizer(kind):
    return train_tokenizer(TOKENIZERS[kind], [(caption, "") for caption in CAPTIONS]).with_pictures()


@pytest.mark.parametrize("language", scenes.LANGUAGES)
def test_every_word_of_a_thing_has_a_kind(language):
    spoken = [pair for index in range(300) for pair in scenes.words(scenes.scene("train", index), language)]
    assert {pointing.kind_of(word, language) for word, thing in spoken if thing} == set(pointing.KINDS)


def test_kinds_by_hand():
    kinds = [pointing.kind_of(word, "en") for word in "a small red circle two big hearts".split()]
    assert kinds == ["count", "size", "colour", "shape", "count", "size", "shape"]
    assert [pointing.kind_of(word, "fr") for word in ("d'une", "petites", "étoiles")] == ["count", "size", "shape"]
    assert [pointing.kind_of(word, "tr") for word in ("eşkenar", "dörtgenin", "bir")] == ["shape", "shape", "count"]


def test_regions_by_hand():
    """A small circle around (0.25, 0.25) of 48 pixels: radius 3.6, its box is 8 to 16 in both directions, one whole region of 8."""
    thing = scenes.Thing("small", "red", "circle", ((0.25, 0.25),))
    touched, share = pointing.inside(thing, TASK)
    expected = np.zeros((6, 6))
    expected[1, 1] = 1
    assert touched.tolist() == (expected > 0).ravel().tolist() and share.tolist() == expected.ravel().tolist()
    moved = scenes.Thing("small", "red", "circle", ((0.25, 0.25 + 4 / 48),))  # half of it in the region to the right
    touched, share = pointing.inside(moved, TASK)
    assert np.flatnonzero(touched).tolist() == [7, 8] and share[7:9].tolist() == [0.5, 0.5]


def looking(where):
    """Attention that is a function of the scene and of the caption's words, for tokens that are words."""

    def attention(model, params, names, ids):
        found = []
        for name in names:
            words = scenes.words(scenes.scene("test", int(name.rpartition("#")[2])), "tr")
            rows = [where(thing) if thing else np.ones(36) for _, thing in words]
            found.append(np.array([row / row.sum() for row in rows]))
        return found

    return attention


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (lambda thing: pointing.inside(thing, TASK)[0].astype(float), "all"),
        (lambda thing: np.ones(36), "chance"),
        (lambda thing: (~pointing.inside(thing, TASK)[0]).astype(float), "nothing"),
    ],
)
def test_attention_inside_and_outside(monkeypatch, where, expected):
    monkeypatch.setattr(pointing, "attention", looking(where))
    model = build_model(tiny.BASE, 3, 30, TASK)
    found = pointing.words(model, None, tokenizer("words"), "tr", "test", 20)
    assert len(found) == sum(thing is not None for i in range(20) for _, thing in scenes.words(scenes.scene("test", i), "tr"))
    for word in found:
        assert word.inside == pytest.approx({"all": 1, "chance": word.chance, "nothing": 0}[expected])
        assert expected != "chance" or word.by_pixels == pytest.approx(word.chance_by_pixels)
        assert 0 < word.chance_by_pixels < word.chance < 1
    files, table = pointing.report({"mine": found}, "test")
    numbers = {row["kind"]: row for row in csv.DictReader(files[".csv"].splitlines())}
    assert int(numbers["all"]["words"]) == len(found) == sum(int(numbers[kind]["words"]) for kind in pointing.KINDS)
    assert [row[0] for row in table.rows] == ["mine", "mine: chance"] and files[".svg"].startswith("<svg")


def test_a_word_of_several_tokens_has_their_mean(monkeypatch):
    def attention(model, params, names, ids):  # token t looks at one region only
        return [np.eye(36)[np.arange(len(each)) % 36] for each in ids]

    monkeypatch.setattr(pointing, "attention", attention)
    found = iter(pointing.words(build_model(tiny.BASE, 3, 300, TASK), None, tokenizer("pieces"), "tr", "test", 6))
    several = 0
    for index in range(6):
        scene, start = scenes.scene("test", index), 0
        for word, thing in scenes.words(scene, "tr"):
            pieces = len(tokenizer("pieces").encode_target([word])[0])
            if thing:
                looked = pointing.inside(thing, TASK)[0][np.arange(start, start + pieces) % 36]
                assert next(found).inside == pytest.approx(looked.mean())
                several += pieces > 1
            start += pieces
    assert several


def test_attention_is_the_models_whatever_the_batch(monkeypatch):
    model = build_model(tiny.RECURRENT["bahdanau"], 3, 300, TASK)
    params = tiny.params_of(model)
    names = [f"scenes/tr:test#{index}" for index in range(3)]
    ids = tokenizer("pieces").encode_target([scenes.caption(scenes.scene("test", index), "tr") for index in range(3)])
    together = pointing.attention(model, params, names, ids)
    assert [x.shape for x in together] == [(len(each), 36) for each in ids]
    monkeypatch.setattr(pointing, "ROWS", 2)
    for one, other in zip(together, pointing.attention(model, params, names, ids), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(one.sum(-1), 1, rtol=1e-5)


def test_what_has_no_attention_or_no_words():
    fixed = build_model(tiny.RECURRENT["cho"], 3, 300, TASK)
    with pytest.raises(UserError, match="has none"):
        pointing.words(fixed, jax.tree.map(lambda x: np.zeros(x.shape), fixed.shapes), tokenizer("words"), "tr", "test", 2)
    with pytest.raises(UserError, match='lacks a word of "'):
        pointing.words(fixed, None, tokenizer("words"), "en", "test", 2)
    assert Pointing().count == 500
