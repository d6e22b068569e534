"""Reductions over the vocabulary are those of XLA, whatever the size of the vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnmt.decoding.reductions import log_sum_exp, top_k
from jaxnmt.parallel.numbers import PARTS

SIZES = [3, PARTS, 12 * PARTS, 12 * PARTS + 1, 13 * PARTS - 1]
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_the_largest_values_and_their_columns(size, k):
    x = jnp.asarray(RANDOM.permuted(np.tile(np.arange(size, dtype=np.float32), (50, 1)), axis=1))
    for ours, theirs in zip(top_k(x, min(k, size)), jax.lax.top_k(x, min(k, size)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [0.0, -np.inf])
def test_of_equal_values_each_column_is_found_once(size, fill):
    x = RANDOM.integers(0, 4, (50, size)).astype(np.float32)
    x[x == 0] = fill
    k = min(7, size)
    values, columns = top_k(jnp.asarray(x), k)
    np.testing.assert_array_equal(values, jax.lax.top_k(x, k)[0])
    np.testing.assert_array_equal(values, np.take_along_axis(x, np.asarray(columns), 1))
    assert all(len(set(row)) == k for row in columns.tolist())


@pytest.mark.parametrize("size", SIZES)
def test_the_sum_of_exponentials(size):
    x = RANDOM.normal(0, 30, (50, size)).astype(np.float32)
    x[:, ::3] = -np.inf
    x[:, 1] = 80.0 + x[:, 2]  # a sum that float32 does not hold
    np.testing.assert_allclose(log_sum_exp(jnp.asarray(x)), jax.nn.logsumexp(x, -1, keepdims=True), rtol=1e-6)
