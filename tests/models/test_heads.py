"""What the heads of other tasks read and what they have of the whole model. `tests/laws` puts them to the laws of every model."""

import jax
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.parallel.axes import path_name

TRANSFORMER, LSTM = tiny.VARIANTS["learned"], tiny.RECURRENT["luong"]
FIXED = tiny.RECURRENT["sutskever"]
WIDTH = 6


def predicting(config, task):
    """The model's logits (B, T, V) as a function of a batch."""
    model = tiny.model_of(config, task=task)
    params = tiny.params_of(model)
    run = jax.jit(lambda batch: model.decode(params, model.encode(params, batch), batch)[..., : tiny.TARGET_VOCAB])
    return lambda batch: np.asarray(run(batch))


def batch():
    """Two texts that fill their rows but for one position."""
    texts = [(text, text) for text in np.random.default_rng(0).integers(4, 23, (2, WIDTH - 2)).tolist()]
    return tiny.batch_of(texts, [[0], [1]], WIDTH, WIDTH)


@pytest.mark.parametrize("config", [TRANSFORMER, LSTM], ids=["transformer", "lstm"])
def test_a_masked_encoder_predicts_every_position_from_both_sides_and_not_from_the_target(config):
    logits, given = predicting(config, cfg.MaskedLanguage()), batch()
    before = logits(given)
    for place in range(WIDTH - 1):
        source = given["encoder_input_tokens"].copy()
        source[0, place] = source[0, place] % 19 + 4
        changed = (logits(given | {"encoder_input_tokens": source}) != before).any(-1)
        assert changed[0, : WIDTH - 1].all() and not changed[1].any()
    blank = np.ones_like(given["decoder_input_tokens"])
    np.testing.assert_array_equal(logits(given | {"decoder_input_tokens": blank}), before)


@pytest.mark.parametrize("config", [TRANSFORMER, FIXED], ids=["transformer", "lstm"])
def test_a_language_model_reads_no_source(config):
    logits, given = predicting(config, cfg.Language()), batch()
    before = logits(given)
    for source in (np.zeros_like(given["encoder_input_tokens"]), given["encoder_input_tokens"][::-1] + 1):
        np.testing.assert_array_equal(logits(given | {"encoder_input_tokens": source}), before)


@pytest.mark.parametrize("config", [TRANSFORMER, FIXED, LSTM], ids=["transformer", "fixed", "lstm"])
def test_what_a_head_shares_with_the_whole_model_has_the_same_path_and_shape(config):
    def shapes(task):
        return {path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(tiny.model_of(config, 29, task).shapes)}

    whole = shapes(cfg.Translation())
    encoder = {name: shape for name, shape in whole.items() if name.startswith("encoder")}
    for task in (cfg.MaskedLanguage(), cfg.Classification()):
        headed = shapes(task)
        assert encoder == {name: shape for name, shape in headed.items() if name.startswith("encoder")}
        assert not any(name.startswith("decoder") for name in headed)
    if config is not LSTM:  # which attends to the source
        headed = shapes(cfg.Language())
        assert not any(name.startswith("encoder") for name in headed)
        alone = {name: shape for name, shape in headed.items() if name.startswith("decoder")}
        assert alone and alone == {name: shape for name, shape in whole.items() if name in alone}
