"""Variational dropout (Gal and Ghahramani 2016, section 4): one mask for all words of a sentence, and the recurrent state masked too.

The models are made so plain that their dropout can be read off: every word's vector is all ones, kernels that pass a layer on are
identities, all others zero, and the cell is Elman's with a ReLU. At a rate of one half a mask is 0 or 2, so a unit of one layer is m (the
word's mask) after the first word and m + k h (the state's mask, and the state before) from then on: 0 0 0 0, or 2 2 2 2, or 2 6 14 30.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.models.layers import DropoutKey

ROWS, STEPS, WIDTH = 3, 4, 256
SCALE = 2.0**-10  # of what goes into Luong's tanh
PLAIN = cfg.Recurrent(
    cell="rnn", activation="relu", emb_dim=WIDTH, hidden_dim=WIDTH, dropout=0.5, variational=True, bidirectional="none", bridge="copy"
)
DECODERS = {
    "sutskever": {"context": "fixed", "input_feeding": False},
    "cho": {"context": "fixed"},
    "bahdanau": {"context": "bahdanau"},
    "luong": {"context": "luong"},
    "luong unfed": {"context": "luong", "input_feeding": False},
}
TOKENS = {f"{side}_input_tokens": jnp.full((ROWS, STEPS), 5) for side in ("encoder", "decoder")}


def unit(masks):
    """A unit's value after each step, under these masks: the word's, then for each layer the state's and what is handed on upwards."""
    x = np.full(STEPS, float(masks[0]))
    for of_state, of_output in zip(masks[1::2], masks[2::2], strict=True):
        h = [0.0]
        for word in x:
            h.append(word + of_state * h[-1])
        x = of_output * np.array(h[1:])
    return tuple(x)


def units(layers, top):
    """Every way for a unit to go; `top`: the masks that there may be above the highest layer."""
    choices = [(0, 2)] * 2 * layers + [top]
    return {unit(masks) for masks in itertools.product(*choices)}


def passed_on(path, x):
    """The parameters that a model's docstring above speaks of."""
    name = "/".join(key.key for key in path)
    if name.endswith("embedding/table"):
        return jnp.full(x.shape, WIDTH**-0.5)  # which the embedding scales to one
    if name.endswith(("input/kernel", "recurrent/kernel")) and "context_input" not in name:
        return jnp.eye(len(x), x.shape[-1])[:, None]
    if name.endswith("combine/kernel"):  # reads the context, then the state
        return SCALE * jnp.eye(*x.shape, k=-WIDTH)
    if name.endswith("readout/kernel"):  # reads the state, the word and the context; the larger of each two is taken
        return jnp.repeat(jnp.eye(len(x), WIDTH), 2, axis=1)
    return jnp.zeros(x.shape)


def model_and_params(config):
    model = tiny.model_of(config)
    return model, jax.tree_util.tree_map_with_path(passed_on, jax.eval_shape(model.init, jax.random.key(0)))


def encoded(config, noise):
    """The encoder's states (B, S, D)."""
    model, params = model_and_params(config)
    return np.asarray(model.encode(params, TOKENS, noise).states_BSD)


def decoded(config, noise):
    """What the decoder's output layer reads (B, T, D); it begins at zero."""
    model, params = model_and_params(config)
    memory = model.encode(params, TOKENS)
    memory = memory._replace(initial=jax.tree.map(jnp.zeros_like, memory.initial))
    features = np.asarray(model.features(params, memory, TOKENS, noise), np.float64)
    return 2 * np.arctanh(features / 2) / SCALE if config.context == "luong" else features  # masked by 0 or 2 after the tanh


def ways(x_BTD):
    """How the units of each row go."""
    return [{tuple(np.round(one, 2)) for one in row.T} for row in x_BTD]


def noise(step=0):
    return DropoutKey.of(1, jnp.int32(step), jnp.arange(ROWS))


@pytest.mark.parametrize("layers", [1, 2])
def test_an_encoders_units_go_the_ways_that_one_mask_for_all_words_allows(layers):
    config = cfg.replace(PLAIN, num_encoder_layers=layers, num_decoder_layers=layers)
    assert ways(encoded(config, noise())) == [units(layers, (1,))] * ROWS
    ordinary = ways(encoded(cfg.replace(config, variational=False), noise()))
    assert all(len(row & units(layers, (1,))) < len(row) for row in ordinary)


def test_an_encoder_of_both_directions_masks_each_for_itself():
    states = encoded(cfg.replace(PLAIN, bidirectional="all"), noise())
    there, back = states[..., : WIDTH // 2], states[:, ::-1, WIDTH // 2 :]
    assert ways(there) == ways(back) == [units(1, (1,))] * ROWS
    assert (np.diff(there, axis=1).any(1) != np.diff(back, axis=1).any(1)).any()  # other units of it are without a memory


DEEP = {"sutskever", "bahdanau", "luong unfed"}  # whose two layers are those of cho's and luong's decoders


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        *((name, 1) for name in DECODERS),
        *(pytest.param(name, 2, marks=[pytest.mark.slow] if name in DEEP else []) for name in DECODERS),
    ],
)
def test_a_decoders_units_go_the_ways_that_one_mask_for_all_words_allows(name, layers):
    config = cfg.replace(PLAIN, num_encoder_layers=layers, num_decoder_layers=layers, **DECODERS[name])
    assert ways(decoded(config, noise())) == [units(layers, (0, 2))] * ROWS
    ordinary = ways(decoded(cfg.replace(config, variational=False), noise()))
    assert all(len(row & units(layers, (0, 2))) < len(row) for row in ordinary)


def test_each_sentence_and_each_training_step_has_masks_of_its_own():
    rows = np.concatenate([encoded(PLAIN, noise(step)) for step in (0, 1)])
    for one, other in itertools.combinations(rows, 2):
        words = (one[0] == other[0]).mean()
        both = (one[0] > 0) & (other[0] > 0)  # elsewhere the state's mask is not to be seen
        states = (one[-1] == other[-1])[both].mean()
        assert 0.3 < words < 0.7 and 0.3 < states < 0.7, (words, states)
