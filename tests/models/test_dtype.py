"""bfloat16 is a type of the computation: parameters, losses and gradients stay float32 and close to what float32 gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.training.loss import batch_loss

PAIRS = tiny.random_pairs(6)
BATCH = tiny.batch_of(PAIRS, [[0, 1], [2, 3], [4], [5]], 16, 16, packed=True)


@pytest.mark.parametrize("name", tiny.VARIANTS)
def test_bfloat16_stays_close_to_float32(name):
    config = tiny.VARIANTS[name]
    models = {dtype: tiny.model_of(cfg.replace(config, dtype=dtype)) for dtype in ("float32", "bfloat16")}
    params = tiny.params_of(models["float32"])
    loss = {
        dtype: jax.value_and_grad(lambda p, m=model: batch_loss(m, p, BATCH, None, 0.1).loss)(params) for dtype, model in models.items()
    }
    (exact, exact_gradient), (rough, rough_gradient) = loss["float32"], loss["bfloat16"]
    assert exact != rough  # the computation did change
    assert rough.dtype == jnp.float32 and abs(rough - exact) < 0.02 * exact
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)]) for gradient in (exact_gradient, rough_gradient)]
    assert flat[1].dtype == np.float32
    assert np.linalg.norm(flat[1] - flat[0]) < 0.1 * np.linalg.norm(flat[0])


def test_fresh_parameters_are_float32():
    model = tiny.model_of(cfg.replace(tiny.BASE, dtype="bfloat16"))
    assert {x.dtype for x in jax.tree.leaves(model.init(jax.random.key(0)))} == {jnp.dtype("float32")}
