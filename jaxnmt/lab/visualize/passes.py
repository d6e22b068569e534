"""What a model computes to translate a sentence: a teacher-forced pass, a recurrent decoder's steps, a beam search as a tree."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS, EOS, PAD
from jaxnmt.decoding.batches import bucket
from jaxnmt.decoding.search import NEVER, Beams
from jaxnmt.models.recurrent import RecurrentEncoderDecoder, RecurrentMemory
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.axes import path_name

_LAYER = re.compile(r"(encoder|decoder)/(layer_\d+|layers)|(encoder|decoder)_positions")
_OUTPUT = re.compile(r"(.*)/__call__/0(?:/0)?")  # a recurrent layer returns (outputs, state)
_WEIGHTS = re.compile(r"(.*)/attention/0")  # 0: sown values come in a tuple
PARTS = ("encoder", "decoder", "cross")


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


def padded(ids: list[int], length: int) -> np.ndarray:
    """Return a batch of one row of ids, (1, length)."""
    return np.array([ids + [PAD] * (length - len(ids))], np.int32)


def teacher_forced(
    model: Seq2Seq, params: Any, source: list[int], target: list[int]
) -> tuple[np.ndarray, list[Attention], list[tuple[str, str, np.ndarray]]]:
    """Run one pass; `source` and `target` end with EOS.

    They are padded to different lengths, S and T, so that the shape of weights identifies their part.

    Returns:
        log_p_TV: log-probabilities of each target token; BOS and PAD are excluded, as in the search.
        attention: of every module that sows its weights, by part and layer.
        vectors: (side, name, float32 (S or T, D)) of the input with its positions and of each layer's output, if the model has such
            modules (`encoder/layer_0`, `encoder_positions`, …).
    """
    S, T = bucket(len(source)), bucket(len(target))
    T += T == S
    batch = {"encoder_input_tokens": padded(source, S), "decoder_input_tokens": padded([BOS, *target[:-1]], T)}
    shapes = {(S, S): ("encoder", source, source), (T, T): ("decoder", target, target), (T, S): ("cross", target, source)}

    @jax.jit
    def run(params, batch):
        """Return logits (T, V), sown values and every layer's output."""
        is_layer = lambda module, method: method == "__call__" and bool(_LAYER.fullmatch("/".join(module.path)))  # noqa: E731
        logits_BTV, intermediates = model.intermediates(params, batch, is_layer)
        return logits_BTV[0].astype(jnp.float32), intermediates

    logits_TV, intermediates = jax.device_get(run(params, batch))
    logits_TV = logits_TV.copy()
    logits_TV[:, [PAD, BOS]] = -np.inf
    attention, vectors = [], []
    for path, x in jax.tree_util.tree_leaves_with_path(intermediates):
        name = path_name(path)
        if (weights := _WEIGHTS.fullmatch(name)) and x.ndim == 4 and x.shape[2:] in shapes:
            part, rows, columns = shapes[x.shape[2:]]
            attention.append(Attention(part, 0, weights[1], np.asarray(x[0, :, : len(rows), : len(columns)], np.float32)))
        elif (output := _OUTPUT.fullmatch(name)) and (layer := _LAYER.fullmatch(output[1])) and x.ndim == 3:
            side = layer[1] or layer[3]
            rows = x[0] if x.shape[0] == 1 else x[:, 0]  # recurrent layers are time-major
            vectors.append((side, layer[2] or "", np.asarray(rows[: len(source if side == "encoder" else target)], np.float32)))
    attention.sort(key=lambda found: (PARTS.index(found.part), _numbers(found.name), found.name))
    of_part = {part: [found for found in attention if found.part == part] for part in PARTS}
    attention = [found._replace(layer=layer) for part in PARTS for layer, found in enumerate(of_part[part], 1)]
    vectors.sort(key=lambda found: (found[0] != "encoder", _numbers(found[1])))
    return np.asarray(jax.nn.log_softmax(logits_TV[: len(target)])), attention, vectors


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


class Steps(NamedTuple):
    """A sentence of S tokens and T decoding steps.

    Attributes:
        states_SD: the encoder's top states, in word order, without padding.
        readers: see `readers`.
        vector_D: its last state (encoder bag: the mean), the only input of a decoder with a fixed context.
        initial_D: the decoder's top state before the first word.
        each: for each step: state, the decoder's top state after it; joined, the input of the output layer; and with attention: query;
            scores (S,), before the softmax; weights (S,); context, the weighted sum of the encoder's states.
    """

    states_SD: np.ndarray
    readers: list[list[int]]
    vector_D: np.ndarray
    initial_D: np.ndarray
    each: list[dict[str, np.ndarray]]


def steps(config: cfg.Recurrent, model: Seq2Seq, params: Any, source: list[int], target: list[int]) -> Steps:
    """Decode a given translation step by step; `source` and `target` end with EOS."""
    memory = jax.jit(model.encode)(params, {"encoder_input_tokens": padded(source, bucket(len(source)))})
    carry = model.start(params, memory, len(target))

    @jax.jit
    def step(params, memory, before, token_B):
        _, after = model.step(params, memory, before, token_B)
        values = functools.partial(_values, config)
        return after, model.module.apply({"params": params}, memory, before, after, token_B, method=values)

    each = []
    initial_D = np.asarray(top(config, carry["states"])[0], np.float32)
    for token in [BOS, *target[:-1]]:
        carry, values = step(params, memory, carry, jnp.full((1,), token, jnp.int32))
        rows = {name: np.asarray(x[0], np.float32) for name, x in values.items()}
        each.append({name: x[: len(source)] if name in ("scores", "weights") else x for name, x in rows.items()})
    states_SD = np.asarray(memory.states_BSD[0, : len(source)], np.float32)
    return Steps(states_SD, readers(config, len(source)), np.asarray(memory.vector_BD[0], np.float32), initial_D, each)


def readers(config: cfg.Recurrent, source: int) -> list[list[int]]:
    """Return, for each reader of the encoder's top layer (two if it reads in both directions), word positions in the order of reading.

    A word's state is complete once every reader has read it. A bag has no order: its words are listed as they are.
    """
    if config.encoder == "bag":
        return [list(range(source))]
    words, end = list(range(source - 1)), [source - 1]
    order = (words[::-1] if config.reverse_source else words) + end
    both = config.bidirectional == "all" or (config.bidirectional == "first" and config.num_encoder_layers == 1)
    return [order, order[::-1]] if both else [order]


def top(config: cfg.Recurrent, states: tuple) -> jax.Array:
    """Return the output of the top layer, (B, D), residual sums included."""
    return sum(state[0] for state in states) if config.residual else states[-1][0]  # type: ignore[return-value]


def _values(config: cfg.Recurrent, module: RecurrentEncoderDecoder, memory: RecurrentMemory, before, after, token_B):
    """Return what a step computes, by name; see `Steps.each`."""
    decoder, state_BD = module.decoder, top(config, after["states"])
    values, context_BD = {"state": state_BD}, memory.vector_BD
    if config.context != "fixed":
        form = decoder.cross_attention
        weights = form.weights(memory.keys_BSA, memory.states_BSD, memory.mask_BS)
        query_BD = before["states"][0][0] if config.context == "bahdanau" else state_BD
        covered_B1S = before["coverage"][:, None] if config.coverage else None
        scores_B1S = form.scores(weights, query_BD[:, None], covered_B1S)
        context_B1D, shares_B1S = form.attend(weights, query_BD[:, None], covered_B1S)
        context_BD = context_B1D[:, 0]
        values |= {"query": query_BD, "scores": scores_B1S[:, 0], "weights": shares_B1S[:, 0], "context": context_BD}
    if config.context == "luong":  # Luong et al. 2015, equation 5
        values["joined"] = jnp.tanh(jnp.concatenate([context_BD, state_BD], -1) @ decoder.combine.kernel.astype(state_BD.dtype))
    else:
        values["joined"] = decoder.output(state_BD, module.embed_target(token_B, module.dtype), context_BD)
    return values


def tree(steps: Iterable[Beams]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Build the tree of one sentence's search: which hypothesis extends which, which are finished, which are dropped.

    Args:
        steps: the beams after each step.

    Returns:
        nodes: {parent (-1: before the first token), step (from 0), token, log_prob, live: rank among the live hypotheses or None,
            finished: rank among the finished translations, or None}, parents first.
        finished: {ids (with EOS), score, log_prob, node}, best first.
    """
    number: dict[tuple[int, ...], int] = {(): -1}
    nodes: list[dict[str, Any]] = []

    def node(prefix: tuple[int, ...], log_prob: float) -> int:
        if prefix not in number:
            number[prefix] = len(nodes)
            step = {"parent": number[prefix[:-1]], "step": len(prefix) - 1, "token": prefix[-1], "log_prob": log_prob}
            nodes.append(step | {"live": None, "finished": None})
        return number[prefix]

    done: Any = None
    for beams in steps:
        t, live_WT, log_probs_W, done = jax.device_get((beams.t_B[0], beams.live_BWT[0], beams.live_log_probs_BW[0], beams.done))
        for rank, (prefix, log_prob) in enumerate(_hypotheses(live_WT, log_probs_W)):
            nodes[node(prefix[:t], log_prob)]["live"] = rank
        finished = [(row[: row.index(EOS) + 1], p) for row, p in _hypotheses(done.tokens_BWT[0], done.log_probs_BW[0])]
        for ids, log_prob in finished:
            node(ids, log_prob)
    found = []
    for rank, ((ids, log_prob), score) in enumerate(zip(finished, done.scores_BW[0].tolist(), strict=False)):
        nodes[number[ids]]["finished"] = rank
        found.append({"ids": list(ids), "score": score, "log_prob": log_prob, "node": number[ids]})
    return nodes, found


def chain(ids: Sequence[int], log_p_T: np.ndarray, score: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the result of greedy search in the form of `tree`; `ids` end with EOS."""
    total_T = np.cumsum(np.asarray(log_p_T, np.float64)).tolist()
    nodes: list[dict[str, Any]] = [
        {"parent": t - 1, "step": t, "token": token, "log_prob": total_T[t], "live": 0, "finished": None} for t, token in enumerate(ids)
    ]
    nodes[-1] |= {"live": None, "finished": 0}
    return nodes, [{"ids": list(ids), "score": score, "log_prob": total_T[-1], "node": len(ids) - 1}]


def _hypotheses(tokens_WT: np.ndarray, log_probs_W: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """Return the hypotheses among the places of a beam, best first."""
    return [(tuple(row), float(p)) for row, p in zip(tokens_WT.tolist(), log_probs_W, strict=True) if p > NEVER / 2]
