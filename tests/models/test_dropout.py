"""Dropout's masks: their rate, what they depend on, and what they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnmt.models.layers import DropoutKey, dropout

ROWS = jnp.arange(64)


def noise(seed=1, step=7, rows=ROWS):
    return DropoutKey.of(seed, jnp.int32(step), rows)


def mask(noise, shape=(64, 10, 20), rate=0.5):
    return np.asarray(dropout(jnp.ones(shape), rate, noise)) > 0


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_as_many_are_dropped_as_was_asked_for_and_the_mean_stays(rate):
    x = np.asarray(dropout(jnp.ones((64, 20, 40)), rate, noise()))
    assert set(np.unique(x)) == {0.0, np.float32(1 / (1 - rate))}
    count, deviation = x.size, np.sqrt(rate * (1 - rate) / x.size)
    assert abs((x == 0).mean() - rate) < 4 * deviation
    for axis in range(3):  # nor is any row, place or feature treated otherwise than the rest
        share = (x == 0).mean(axis=tuple(i for i in range(3) if i != axis))
        assert np.abs(share - rate).max() < 5 * np.sqrt(rate * (1 - rate) * x.shape[axis] / count)


def test_without_noise_or_rate_nothing_is_dropped():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, noise(rows=jnp.arange(2))) is x


OTHERS = {
    "seed": noise(seed=2),
    "step": noise(step=8),
    "next seed, last step": noise(seed=2, step=6),
    "site": noise().fold_in("mlp"),
    "other site": noise().fold_in("residual"),
    "layer": noise().fold_in(0),
    "other layer": noise().fold_in(1),
    "site of a layer": noise().fold_in(0).fold_in("mlp"),
    "site of another layer": noise().fold_in(1).fold_in("mlp"),
    "rows": noise(rows=ROWS + 64),
}


def test_masks_of_different_sites_layers_steps_seeds_and_rows_are_independent():
    masks = {"plain": mask(noise())} | {name: mask(other) for name, other in OTHERS.items()}
    flat = np.array([m.reshape(-1) for m in masks.values()], float)
    correlation = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(correlation).max() < 5 / np.sqrt(flat.shape[1]), correlation.round(3)


def signs(noise, count=2**14):
    """+1 or -1 for each of `count` elements of one row."""
    return np.where(np.asarray(DropoutKey(noise.key, jnp.zeros(1, jnp.uint32)).bits((1, count)))[0] >> 31, 1.0, -1.0)


def strongest_correlation(a, b):
    """The largest correlation of two masks, one shifted or reordered by an exclusive-or with a constant, in standard deviations."""

    def walsh(x):
        width = 1
        while width < len(x):
            pairs = x.reshape(-1, 2, width)
            x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
            width *= 2
        return x

    by_xor = walsh(walsh(a) * walsh(b)) / len(a)
    by_shift = np.fft.ifft(np.fft.fft(a) * np.conj(np.fft.fft(b))).real
    return max(np.abs(by_xor).max(), np.abs(by_shift).max()) / np.sqrt(len(a))


BITS = (0, 1, 3, 7, 11, 15, 19, 23, 27, 31)
PAIRS = {f"keys that differ in bit {bit}": (noise(), DropoutKey(noise().key ^ jnp.uint32(1 << bit), ROWS)) for bit in BITS} | {
    "two sites": (noise().fold_in("mlp"), noise().fold_in("residual")),
    "two layers": (noise().fold_in(0).fold_in("mlp"), noise().fold_in(1).fold_in("mlp")),
    "two steps": (noise(step=7).fold_in("mlp"), noise(step=8).fold_in("mlp")),
    "two seeds": (noise(seed=1).fold_in("mlp"), noise(seed=2).fold_in("mlp")),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_no_mask_is_another_one_reordered(pair):
    """Of some 2**15 normal numbers the largest is beyond 6.5 standard deviations once in 400,000 times; equal masks are at 128."""
    a, b = map(signs, PAIRS[pair])
    assert strongest_correlation(a, b) < 6.5


def test_neighbouring_elements_are_independent():
    m = mask(noise()) - 0.5
    for axis in range(3):
        a, b = np.delete(m, 0, axis), np.delete(m, -1, axis)
        assert abs(4 * (a * b).mean()) < 5 / np.sqrt(a.size)


def test_a_rows_mask_is_its_own_whatever_batch_it_is_in():
    whole = mask(noise())
    rows = jnp.array([5, 40, 2])
    np.testing.assert_array_equal(mask(noise(rows=rows), (3, 10, 20)), whole[[5, 40, 2]])


def test_the_layers_index_may_be_traced():
    traced = jax.jit(lambda layer: noise().fold_in(layer).bits((64, 3)))(jnp.uint32(3))
    np.testing.assert_array_equal(traced, noise().fold_in(3).bits((64, 3)))
