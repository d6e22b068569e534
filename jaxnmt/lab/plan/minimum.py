"""The least that a Transformer's step must send on a mesh, to hold what its compiled program sends against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxnmt.data.packing import Shape


def least_sent(model: Any, parameters: int, mesh: Mapping[str, int], shape: Shape) -> float:
    """Bytes that a device sends in a step, everything in the type of the computation.

    Copies (`data`) sum their share of the gradient: 2 (n - 1) / n of it. Devices that share parameters (`fsdp`) gather them for the
    forward and again for the backward pass and scatter the gradient's sum: 3 (n - 1) / n (Rajbhandari et al. 2020, section 7.2.2). Devices
    that share layers (`tensor`) sum each sublayer's output going forward and its input's gradient going back: 2 (n - 1) / n of these
    activations (Shoeybi et al. 2019, section 3); so do the embeddings, the output layer, and all cross-attentions together for what they
    read of the encoder.
    """
    data, fsdp, tensor = (mesh[axis] for axis in ("data", "fsdp", "tensor"))
    width = 2 if model.dtype == "bfloat16" else 4
    held = parameters * width / tensor
    copies = 2 * (data - 1) / data * held / fsdp
    shared = 3 * (fsdp - 1) / fsdp * held
    rows = shape.rows / (data * fsdp)
    source, target = (rows * length * model.emb_dim * width for length in (shape.source, shape.target))
    encoder = (4 * model.num_encoder_layers + 1) * source  # two sublayers, both ways, and the embedding going forward
    decoder = (6 * model.num_decoder_layers + 2) * target + source  # three sublayers, embedding and output layer; and the encoder's states
    return copies + shared + 2 * (tensor - 1) / tensor * (encoder + decoder)
