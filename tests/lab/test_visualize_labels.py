"""What each word adds to a label, and how much attention it gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.config import Classification
from jaxnmt.lab.visualize import labels
from jaxnmt.models.seq2seq import build_model

SOURCE = [5, 9, 6, 7, 2]


@pytest.mark.parametrize(
    ("rung", "kind", "pooling"), [("pre", "one", "attention"), ("elman", "number", "last"), ("bag", "several", "mean")]
)
def test_gradient_x_input_is_what_a_words_size_changes(rung, kind, pooling):
    """A word that occurs once: as if its row of the table were scaled."""
    task = Classification(labels=kind, pooling=pooling)
    model = build_model(tiny.RUNGS[rung], 12, 9, task)
    params, index = tiny.params_of(model), None if kind == "number" else 2
    found = labels.gradient_x_input(model, params, SOURCE, index)

    @jax.jit
    def output(table):
        own = params | {"source_embedding": {"table": table}}
        batch = {"encoder_input_tokens": jnp.asarray([SOURCE])}
        if index is None:
            return model.apply(own, "predict", batch)[0, 0]
        p = model.apply(own, "predict", batch)[0, index]
        return jnp.log(p) - jnp.log1p(-p)

    table, step = params["source_embedding"]["table"], 1e-2
    for place, word in enumerate(SOURCE):
        above, below = (output(table.at[word].multiply(1 + sign * step)) for sign in (1, -1))
        assert found[place] == pytest.approx(float(above - below) / (2 * step), abs=2e-3)


def test_attention_is_that_of_the_pooling_or_of_the_last_layer_or_none():
    def of(rung, pooling):
        model = build_model(tiny.RUNGS[rung], 12, 9, Classification(pooling=pooling))
        return labels.attention_to(model, tiny.params_of(model), SOURCE)

    for pooling, name in (("attention", "the pooling"), ("mean", "the encoder's last layer")):
        weights, found = of("pre", pooling)
        assert found == name and weights.sum() == pytest.approx(1, abs=1e-5) and len(set(weights.tolist())) == len(SOURCE)
    weights, found = of("bag", "mean")
    assert found == "" and not weights.any()


def record(**changes):
    made = {
        "run": "topics",
        "checkpoint": "checkpoint 5",
        "sentence": "a <b>",
        "prediction": "x & y",
        "explained": "x & y",
        "likely": {"x & y": 0.75, "z": 0.25},
        "words": ["a", "<b>", labels.END],
        "gradient_x_input": [2.0, -1.0, 0.0],
        "attention": [0.5, 0.25, 0.25],
        "attention_of": "the pooling",
    }
    return made | changes


def test_the_page_shows_both_sides_and_all_numbers():
    page = labels.page(record())
    assert (
        "Gradient × input of x &amp; y" in page
        and "Attention of the pooling" in page
        and "x &amp; y 75.0%" in page.replace("x & y", "x &amp; y")
    )
    assert "rgba(0, 114, 178, 0.500)" in page and "rgba(213, 94, 0, 0.250)" in page  # as strong as the number beside the largest
    assert "&lt;b&gt;" in page and "<b>" not in page and "-1.000" in page and "http" not in page
    alone = labels.page(record(attention=[], attention_of=""))
    assert "Attention of" not in alone and "Nothing in this model gives attention" in alone
    np.testing.assert_equal(labels.page(record(words=["‹end›"], gradient_x_input=[0.0], attention=[0.0])).count("<span"), 2)
