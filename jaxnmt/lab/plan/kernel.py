"""Memory that the fused attention kernel saves: one causal self-attention, forward and backward, compiled with and without it."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.lab.plan.compiled import required
from jaxnmt.lab.plan.topology import Target
from jaxnmt.models.attention import Mask, attend
from jaxnmt.parallel.sharding import activation_spec, make_mesh


class Saving(NamedTuple):
    """Bytes of temporaries of one attention on a device."""

    fused: int
    plain: int


class _Attention(nn.Module):
    mesh: jax.sharding.Mesh
    fused: bool

    def __call__(self, q_BTHK, k_BTHK, v_BTHK, segments_BT):
        mask = Mask(segments_BT, segments_BT, causal=True)
        return attend(self, q_BTHK, k_BTHK, v_BTHK, mask if self.fused else mask.dense(), 0.0, None, self.mesh)


def saving(experiment: cfg.Experiment, target: Target, shape: Shape) -> Saving:
    """Compile a decoder layer's self-attention both ways, for the rows and lengths of a batch's shape.

    The model must have the settings `emb_dim`, `num_heads`, `head_dim` and `dtype`.
    """
    model: Any = experiment.model
    mesh, rows = make_mesh(experiment.mesh, target.devices), shape.rows // experiment.training.accumulation

    def array(letters: str, *size: int, dtype):
        return jax.ShapeDtypeStruct(size, dtype, sharding=jax.sharding.NamedSharding(mesh, activation_spec(letters)))

    width = model.head_dim or model.emb_dim // model.num_heads
    heads = array("BTHK", rows, shape.target, model.num_heads, width, dtype=model.dtype)
    segments = array("BT", rows, shape.target, dtype=np.int32)

    def temporaries(fused: bool) -> int:
        def total(q, k, v, segments):
            return _Attention(mesh, fused).apply({}, q, k, v, segments).astype(jnp.float32).sum()

        lowered = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(heads, heads, heads, segments)
        try:
            return lowered.compile().memory_analysis().temp_size_in_bytes
        except jax.errors.JaxRuntimeError as error:  # plain attention may not fit where the kernel does
            return required(str(error), 0)

    return Saving(temporaries(True), temporaries(False))
