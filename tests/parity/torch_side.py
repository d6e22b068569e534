"""What the tests of parity share: torch modules with no weight left at zero or one, and the comparison."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import torch

LENGTHS = np.array([5, 7, 1, 3])  # of the sentences of every batch, the longest not first
Reader = Callable[[torch.Tensor], np.ndarray]
"""A parameter's value, or its gradient."""


def value(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy()


def gradient(x: torch.Tensor) -> np.ndarray:
    return x.grad.numpy()


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Torch's initial weights and noise on all of them: biases and scales count too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for x in module.parameters():
            x.add_(torch.randn(x.shape, generator=generator), alpha=0.3)
    return module


def normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def coefficients(random: np.random.Generator, outputs):
    """A random linear functional of the outputs, its mean over the sentences."""
    return jax.tree.map(lambda x: normal(random, *x.shape) / np.float32(len(LENGTHS)), outputs)


def leaf(x: np.ndarray) -> torch.Tensor:
    """A tensor whose gradient is asked for."""
    return torch.tensor(x, requires_grad=True)


def assert_equal(ours, theirs) -> None:
    """Two trees of one structure are equal to 1e-5; the leaf that is not is named."""

    def compare(path, left, right):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, ours, theirs)
