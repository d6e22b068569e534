"""Intermediate values of one teacher-forced pass over a sentence: attention, layer outputs, next-token probabilities."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding.translator import bucket
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.axes import path_name

_LAYER = re.compile(r"(encoder|decoder)/(layer_\d+)|(encoder|decoder)_positions")
_OUTPUT = re.compile(r"(.*)/__call__/0(?:/0)?")  # a recurrent layer returns (outputs, state)
_WEIGHTS = re.compile(r"(.*)/attention/0")  # 0: sown values come in a tuple
_PARTS = ("encoder", "decoder", "cross")


class Attention(NamedTuple):
    """One module's weights.

    Attributes:
        part: "encoder" (source to source), "decoder" (target to target) or "cross" (target to source).
        layer: from 1.
        name: the module's path.
        weights_HTS: float32; row t has the weights of query t.
    """

    part: str
    layer: int
    name: str
    weights_HTS: np.ndarray


class Pass(NamedTuple):
    """A teacher-forced pass over a sentence (S tokens, its end included) and its translation (T, its end included).

    Attributes:
        log_p_TV: log-probabilities of each target token; BOS and PAD are excluded, as in the search.
        vectors: (side, name, float32 (S or T, D)) of the input with its positions and of each layer's output, if the model has such
            modules (`encoder/layer_0`, `encoder_positions`, …).
    """

    log_p_TV: np.ndarray
    attention: list[Attention]
    vectors: list[tuple[str, str, np.ndarray]]


def batch_of(source: list[int], target: list[int]) -> dict[str, np.ndarray]:
    """Return a batch of one row. Source and target are padded to different lengths, so that the shape of weights identifies their part."""
    length_S = bucket(len(source))
    length_T = bucket(len(target)) + (bucket(len(target)) == length_S)
    encoder: np.ndarray = np.full((1, length_S), PAD, np.int32)
    decoder: np.ndarray = np.full((1, length_T), PAD, np.int32)
    encoder[0, : len(source)], decoder[0, : len(target)] = source, [BOS, *target[:-1]]
    return {"encoder_input_tokens": encoder, "decoder_input_tokens": decoder}


def teacher_forced(model: Seq2Seq, params: Any, source: list[int], target: list[int]) -> Pass:
    """Run one pass and return its intermediate values; `source` and `target` end with EOS."""
    assert source[-1] == target[-1] == EOS
    batch = batch_of(source, target)
    logits_TV, intermediates = jax.device_get(jax.jit(functools.partial(_apply, model))(params, batch))
    logits_TV = logits_TV.copy()
    logits_TV[:, [PAD, BOS]] = -np.inf
    attention, vectors = [], []
    for path, x in jax.tree_util.tree_leaves_with_path(intermediates):
        name = path_name(path)
        if weights := _WEIGHTS.fullmatch(name):
            attention += _attention(weights[1], np.asarray(x, np.float32), batch, len(source), len(target))
        elif (output := _OUTPUT.fullmatch(name)) and (layer := _LAYER.fullmatch(output[1])) and x.ndim == 3:
            side = layer[1] or layer[3]
            rows = x[0] if x.shape[0] == 1 else x[:, 0]  # recurrent layers are time-major
            vectors.append((side, layer[2] or "", np.asarray(rows[: len(source if side == "encoder" else target)], np.float32)))
    attention.sort(key=lambda found: (_PARTS.index(found.part), _numbers(found.name), found.name))
    for i, found in enumerate(attention):
        first = next(j for j, other in enumerate(attention) if other.part == found.part)
        attention[i] = found._replace(layer=i - first + 1)
    vectors.sort(key=lambda found: (found[0] != "encoder", _numbers(found[1])))
    return Pass(np.asarray(jax.nn.log_softmax(logits_TV[: len(target)])), attention, vectors)


def _apply(model: Seq2Seq, params, batch):
    """Return logits (T, V), sown values and every layer's output."""
    logits_BTV, variables = model.module.apply(
        {"params": params},
        batch,
        method=lambda module, batch: module.decode(module.encode(batch), batch),
        mutable=["intermediates"],
        capture_intermediates=lambda module, method: method == "__call__" and bool(_LAYER.fullmatch("/".join(module.path))),
    )
    return logits_BTV[0].astype(jnp.float32), variables.get("intermediates", {})


def _attention(name: str, weights: np.ndarray, batch: dict[str, np.ndarray], source: int, target: int) -> list[Attention]:
    """Return a module's weights (1, H, T, S) without padding, if their shape identifies their part; the layer number is set later."""
    S, T = batch["encoder_input_tokens"].shape[1], batch["decoder_input_tokens"].shape[1]
    parts = {(S, S): ("encoder", source, source), (T, T): ("decoder", target, target), (T, S): ("cross", target, source)}
    if weights.ndim != 4 or weights.shape[2:] not in parts:
        return []
    part, rows, columns = parts[weights.shape[2:]]
    return [Attention(part, 0, name, weights[0, :, :rows, :columns])]


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]
