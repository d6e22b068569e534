"""The least bytes that a Transformer's step must send on a mesh, to compare with what its compiled program sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxnmt.data.packing import Shape


def least_sent(model: Any, parameters: int, mesh: Mapping[str, int], shape: Shape) -> float:
    """Return the bytes that a device sends in a step, in the computation's dtype.

    Replicas (`data`) all-reduce their share of the gradient: 2 (n - 1) / n of it. Devices that shard parameters (`fsdp`) all-gather them
    for the forward and again for the backward pass and reduce-scatter the gradient: 3 (n - 1) / n (Rajbhandari et al. 2020, section
    7.2.2). Devices that split layers (`tensor`) all-reduce each sublayer's output in the forward pass and its input's gradient in the
    backward pass: 2 (n - 1) / n of these activations (Shoeybi et al. 2019, section 3); so do the embeddings, the output layer, and all
    cross-attentions together for the encoder's states.
    """
    data, fsdp, tensor = (mesh[axis] for axis in ("data", "fsdp", "tensor"))
    width = 2 if model.dtype == "bfloat16" else 4
    local = parameters * width / tensor
    copies = 2 * (data - 1) / data * local / fsdp
    shared = 3 * (fsdp - 1) / fsdp * local
    rows = shape.rows / (data * fsdp)
    source, target = (rows * length * model.emb_dim * width for length in (shape.source, shape.target))
    encoder = (4 * model.num_encoder_layers + 1) * source  # two sublayers, forward and backward, and the embedding, forward
    decoder = (6 * model.num_decoder_layers + 2) * target + source  # three sublayers, embedding, output layer; encoder's states
    return copies + shared + 2 * (tensor - 1) / tensor * (encoder + decoder)
