"""Faults in the heads of other tasks than translation: a law notices each."""

import dataclasses

import jax.numpy as jnp
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.lab.laws import Subject, ask
from jaxnmt.models import heads
from jaxnmt.models.recurrent import RecurrentModule


class _LastColumn(heads.Pooling):
    """It reads the last position of the row, not of the text."""

    def __call__(self, read):
        return read.states_BSD[:, -1]


class _CountsPadding(heads.Pooling):
    """The mean is over the row, not over the text."""

    def __call__(self, read):
        return read.states_BSD.mean(1)


class _NeighboursLabels(heads.LabelSets):
    """It says what belongs to the text before."""

    def predict(self, batch):
        return jnp.roll(super().predict(batch), 1, 0)


class _MeanOfTheBatch(heads.LabelSets):
    """Its loss is divided by the rows, so that a part of a batch weighs as much as all of it."""

    def loss(self, memory, batch, label_smoothing):
        loss, *others = super().loss(memory, batch, label_smoothing)
        return loss / len(batch["decoder_target_tokens"]), *others


class _LosesBits(heads.Regressor):
    """It reads the number that is to be predicted without the first of its tokens."""

    def loss(self, memory, batch, label_smoothing):
        targets = batch["decoder_target_tokens"]
        return super().loss(memory, batch | {"decoder_target_tokens": targets.at[:, 0].set(heads.FIRST_TOKEN)}, label_smoothing)


class _SeesOtherTexts(heads.MaskedEncoder):
    """A state depends on the states of other texts."""

    def encode(self, batch, noise=None):
        states = super().encode(batch, noise).features_BND
        return heads.Encoded(states + 0.1 * states.mean(0))


class _ReadsWholeRows(heads.LanguageModel):
    """It does not see where one text of a packed row ends."""

    def decode(self, memory, batch, noise=None):
        return super().decode(memory, {name: x for name, x in batch.items() if "segment" not in name}, noise)


class _NeighboursPicture(RecurrentModule):
    """It describes the picture before."""

    def read_regions(self, batch):
        return super().read_regions(batch | {"encoder_input_vectors": jnp.roll(batch["encoder_input_vectors"], 1, 0)})


@pytest.mark.parametrize(("subject", "pooling", "fails"), [("numbers", _LastColumn, "padding"), ("label_sets", _CountsPadding, "alone")])
def test_a_fault_in_pooling_is_noticed(subject, pooling, fails, monkeypatch):
    monkeypatch.setattr(heads, "Pooling", pooling)
    assert ask(fails, Subject(*tiny.SUBJECTS[subject])).holds is False


@pytest.mark.parametrize(
    ("subject", "head", "fails"),
    [
        ("label_sets", _NeighboursLabels, "alone"),
        ("label_sets", _MeanOfTheBatch, "accumulated"),
        ("numbers", _LosesBits, "overfit"),
        ("masked", _SeesOtherTexts, "alone"),
        ("language", _ReadsWholeRows, "neighbours"),
    ],
)
def test_a_fault_in_a_head_is_noticed(subject, head, fails, monkeypatch):
    config, task = tiny.SUBJECTS[subject]
    monkeypatch.setattr(heads, head.__mro__[1].__name__, head)
    heads._headed.cache_clear()
    try:
        assert ask(fails, Subject(config, task)).holds is False
    finally:
        heads._headed.cache_clear()


@dataclasses.dataclass(frozen=True)
class _Planted:
    module: type

    def build(self, *sizes):
        return self.module(tiny.RECURRENT["bahdanau"], *sizes)


def test_a_caption_of_another_picture_is_noticed():
    subject = Subject(_Planted(_NeighboursPicture), cfg.Captioning(size=8, patch=4))
    assert ask("alone", subject).holds is False
