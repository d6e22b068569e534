"""Classifiers: their losses by hand, what weights of classes mean, and attention that can be looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.config import Classification, replace
from jaxnmt.data.corpus import in_memory
from jaxnmt.data.labels import KINDS, Numbers
from jaxnmt.data.objectives import objective_of
from jaxnmt.data.special_tokens import EOS, UNK
from jaxnmt.lab.laws.subject import batch_of
from jaxnmt.models import heads
from jaxnmt.models.encoder_decoder import SourceStates
from jaxnmt.models.seq2seq import build_model
from jaxnmt.training.loss import batch_loss

LABELS, TEXTS = 9, [[5, 6], [7], [8, 9, 4], [6]]


def setting(task, targets, tokenizer=None, corpora=()):
    """Return a bag of words, its parameters, and a batch of texts with these targets; the last row is padding."""
    vocabulary = len(Numbers(0, 1)) if task.labels == "number" else LABELS
    model = build_model(tiny.RECURRENT["bag"], 12, vocabulary, task)
    objective = objective_of(task, tokenizer, 1, corpora)
    batch = batch_of(list(zip(TEXTS, targets, strict=True)), [[i] for i in range(len(TEXTS))] + [[]], 6, 5, objective=objective)
    return model, tiny.params_of(model), tiny.as_arrays(batch)


def logits_of(model, params, batch):
    """Return the logits (texts, outputs), and what is predicted."""

    def both(params, batch):
        vectors = model.encode(params, batch).features_BND[:4, 0]
        return vectors @ model.output_table(params).T, model.apply(params, "predict", batch)[:4]

    return (np.asarray(x, np.float64) for x in jax.jit(both)(params, batch))


def loss_of(model, params, batch, smoothing=0.0):
    return jax.jit(lambda params, batch: batch_loss(model, params, batch, None, smoothing))(params, batch)


def test_several_labels_are_as_many_decisions():
    model, params, batch = setting(Classification(labels="several"), [[4, 6], [], [8], [5, UNK]])
    logits, made = logits_of(model, params, batch)
    applies = np.array([[1, 0, 1, 0, 0], [0] * 5, [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])
    p = 1 / (1 + np.exp(-logits[:, 4:LABELS]))
    np.testing.assert_allclose(made, p, rtol=1e-5)
    for smoothing in (0.0, 0.2):
        sums, wanted = loss_of(model, params, batch, smoothing), applies * (1 - smoothing) + smoothing / 2
        assert sums.loss == pytest.approx(-(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).sum(), rel=1e-5)
        assert sums.nll == pytest.approx(-(applies * np.log(p) + (1 - applies) * np.log(1 - p)).sum(), rel=1e-5)
        assert sums.tokens == 4  # a text counts once, whatever its number of labels; padding does not
    exact = ((p > 0.5) == applies).all(1)[:3].sum()  # an unknown label is always missing
    assert sums.correct == exact


def test_a_number_has_a_squared_error_in_standard_deviations():
    numbers = Numbers.learnt(["-1", "3", "1e3", "0.25"])
    targets = numbers.encode(["-1", "3", "1e3", "0.25"])
    assert [numbers.decode(ids) for ids in targets] == ["-1", "3", "1000", "0.25"]
    model, params, batch = setting(Classification(labels="number"), targets)
    wanted = (np.array([-1, 3, 1e3, 0.25]) - numbers.mean) / numbers.deviation
    assert (wanted.mean(), wanted.std()) == pytest.approx((0, 1))
    outputs, made = logits_of(model, params, batch)
    np.testing.assert_allclose(made, outputs[:, :1], rtol=1e-5)
    sums = loss_of(model, params, batch, 0.1)
    assert sums.loss == pytest.approx(np.square(made[:, 0] - wanted).sum(), rel=1e-5) and sums.tokens == 4
    gradient = jax.jit(jax.grad(lambda params: batch_loss(model, params, batch, None, 0.0).loss))(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))  # padding has no number


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_targets_survive_their_file(kind):
    texts = {"one": ["b c", "a", "b  c"], "several": ["a,b", "b , c,b"], "number": ["1.5", "-2", "7e-3"]}[kind]
    learnt = KINDS[kind].learnt(texts)
    again = type(learnt).from_bytes(learnt.to_bytes(), "@@ ")
    assert again.encode(texts) == learnt.encode(texts) and len(again) == len(learnt)
    decoded = {"one": ["b c", "a", "b c"], "several": ["a,b", "b,c"], "number": ["1.5", "-2", "0.007"]}[kind]
    assert [again.decode(ids) for ids in again.encode(texts)] == decoded
    assert all(0 <= EOS < id_ < len(again) for ids in again.encode(texts) for id_ in ids)


def test_balanced_classes_weigh_as_if_all_were_equally_frequent():
    """A rare class counts as if its examples were repeated until it is as frequent as the others."""
    targets = [[4], [5], [4], [4]]
    task = Classification(class_weights="balanced")
    corpus = in_memory(list(zip(TEXTS, targets, strict=True)))

    class Tokens:
        target_vocab_size = LABELS

    model, params, batch = setting(task, targets, Tokens(), [corpus])
    plain = setting(replace(task, class_weights="none"), targets, Tokens(), [corpus])[2]
    repeated = np.array([0, 1, 1, 1, 2, 3])
    repeats = {name: jnp.asarray(np.asarray(x)[repeated]) for name, x in plain.items()}
    balanced, expected = (loss_of(model, params, each, 0.1) for each in (batch, repeats))
    assert balanced.loss / balanced.tokens == pytest.approx(float(expected.loss / expected.tokens), rel=1e-5)
    assert balanced.tokens == pytest.approx(4)


@pytest.mark.parametrize("own", [False, True], ids=["states", "vector"])
@pytest.mark.parametrize("kind", ["mean", "last", "attention"])
def test_a_pooling_reads_the_positions_of_the_text_alone(kind, own):
    random, lengths = np.random.default_rng(0), [3, 1, 5]
    states, vector, query = (random.standard_normal(shape, np.float32) for shape in ((3, 5, 4), (3, 4), (4, 1)))
    segments = (np.arange(5) < np.array(lengths)[:, None]).astype(np.int32)
    read = SourceStates(jnp.asarray(states), jnp.asarray(segments), jnp.asarray(vector) if own else None)
    params = {"query": {"kernel": query}} if kind == "attention" else {}
    found = heads.Pooling(kind, 4).apply({"params": params}, read)
    for row, length, made in zip(range(3), lengths, found, strict=True):
        text = states[row, :length].astype(np.float64)
        weights = np.exp(text @ query[:, 0])
        expected = {
            "mean": text.mean(0),
            "last": vector[row] if own else text[-1],
            "attention": weights @ text / weights.sum(),
        }[kind]
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


def test_attention_is_visible_and_ignores_padding():
    model, params, batch = setting(Classification(pooling="attention"), [[4]] * 4, type("T", (), {"target_vocab_size": LABELS}))
    (weights,) = jax.jit(model.attention)(params, batch)["pooling"]["attention"]
    lengths = np.array([len(text) + 1 for text in TEXTS])
    assert weights.shape == (5, 1, 1, 6)
    np.testing.assert_allclose(weights[:4, 0, 0].sum(-1), 1, rtol=1e-5)
    assert all(
        (row[length:] == 0).all() and len(set(row[:length].tolist())) == length
        for row, length in zip(weights[:4, 0, 0], lengths, strict=True)
    )
