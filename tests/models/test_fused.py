"""The fused kernels compute what plain attention computes; where none fits, nothing is asked of it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnmt import config as cfg
from jaxnmt.models import attention, fused_attention
from jaxnmt.models.attention import attend
from jaxnmt.models.fused_attention import Mask, cudnn, splash
from jaxnmt.parallel.sharding import make_mesh

ROWS, HEADS, WIDTH = 2, 2, 64


def arrays(queries, keys):
    random = np.random.default_rng(0)
    make = lambda length: jnp.asarray(random.standard_normal((ROWS, length, HEADS, WIDTH)), jnp.float32)  # noqa: E731
    return make(queries), make(keys), make(keys)


def segments(length, *ends):
    """Two rows: segments that end at `ends`, then padding; and one that fills the row."""
    row = np.zeros(length, np.int32)
    for number, (start, end) in enumerate(zip((0, *ends), ends, strict=False), 1):
        row[start:end] = number
    return jnp.asarray(np.stack([row, np.ones(length, np.int32)]))


class Plain(nn.Module):
    def __call__(self, q, k, v, mask):
        return attend(self, q, k, v, mask, 0.0, None)


KERNELS = {
    "splash": functools.partial(splash, interpret=True),
    "cudnn": functools.partial(cudnn, implementation="xla"),  # JAX's reference for it, with the same arguments
}


@pytest.mark.parametrize(
    "kernel, queries, keys, causal",
    [
        ("splash", 128, 256, False),
        ("cudnn", 256, 256, True),
        pytest.param("splash", 256, 256, True, marks=pytest.mark.slow),
        pytest.param("cudnn", 128, 256, False, marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients(kernel, queries, keys, causal):
    query_segments, key_segments = segments(queries, 50, 120), segments(keys, 130, 200)
    if queries == keys:
        key_segments = query_segments
    real_BT11 = (query_segments > 0)[..., None, None]
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments > 0)[:, None, :]
    mask = mask & jnp.tril(jnp.ones((queries, keys), bool)) if causal else mask
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((ROWS, queries, HEADS, WIDTH)), jnp.float32)

    def results(attention):
        """What real positions get, and the gradient of a weighted sum of it."""

        def total(q, k, v):
            y = jnp.where(real_BT11, attention(q, k, v), 0)
            return (y * weights).sum(), y

        (_, y), gradient = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*arrays(queries, keys))
        return y, *gradient

    fused = results(lambda q, k, v: KERNELS[kernel](q / 8, k, v, Mask(query_segments, key_segments, causal)))
    plain = results(lambda q, k, v: Plain().apply({}, q, k, v, mask))
    for ours, theirs in zip(fused, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_cpu_uses_plain_attention(monkeypatch):
    monkeypatch.setattr(attention, "fused_attention", lambda *_, **__: pytest.fail("the kernel was used"))

    class Either(nn.Module):
        mesh: jax.sharding.Mesh | None

        def __call__(self, q, k, v, mask):
            return attend(self, q, k, v, mask, 0.0, None, self.mesh)

    ones = jnp.ones((ROWS, 128), jnp.int32)
    mask = Mask(ones, ones)
    meshes = (make_mesh(cfg.Mesh(), jax.devices()[:1]), None)
    np.testing.assert_array_equal(*(Either(mesh).apply({}, *arrays(128, 128), mask) for mesh in meshes))


@pytest.mark.parametrize(
    "kind, lengths, head_dim, dtype, wanted",
    [
        ("tpu", (128, 256), 64, "float32", True),
        ("tpu", (128, 200), 64, "bfloat16", False),
        ("nvidia", (2, 200), 64, "bfloat16", True),
        ("nvidia", (2, 200), 64, "float32", False),  # cuDNN's takes no float32
        ("nvidia", (3, 200), 64, "bfloat16", False),
        ("nvidia", (2, 200), 160, "bfloat16", False),
        ("nvidia", (2, 200), 12, "bfloat16", False),
        ("other", (128, 128), 64, "bfloat16", False),
        ("cpu", (128, 128), 64, "bfloat16", False),
    ],
)
def test_where_a_kernel_fits(kind, lengths, head_dim, dtype, wanted, monkeypatch):
    monkeypatch.setattr(fused_attention, "kind_of", lambda mesh: kind)
    assert fused_attention.fits(None, *lengths, head_dim, jnp.dtype(dtype)) == wanted
