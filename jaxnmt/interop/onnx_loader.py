"""Translate with encoder.onnx and step.onnx beside this file. It needs onnxruntime and numpy."""

import json
import os
import pathlib

import numpy as np
import onnxruntime

HERE, PAD, BOS, EOS, NEVER = pathlib.Path(__file__).parent, 0, 1, 2, -1e9


def load(beam_size=None):
    """Return a function that translates a list of sentences; each is a list of token ids, without the end token.

    `beam_size` is 1 for greedy search; without it, it is the one of search.json.
    """
    settings = json.loads((HERE / "search.json").read_text(encoding="utf-8"))
    if (size := settings["beam_size"] if beam_size is None else beam_size) < 1:
        raise ValueError(f"a beam has 1 hypothesis or more, not {size}")
    options = onnxruntime.SessionOptions()
    if hasattr(os, "sched_getaffinity"):  # more threads than cores that it may use wait for each other
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
    encoder, step = (onnxruntime.InferenceSession(HERE / f"{name}.onnx", options) for name in ("encoder", "step"))

    def translate(sentences):
        width = max(map(len, sentences)) + 1
        if width > settings["longest"]:
            raise ValueError(f"a sentence has {width - 1} tokens, and the model reads {settings['longest'] - 1}: split it")
        tokens = np.array([[*ids, EOS, *[PAD] * (width - 1 - len(ids))] for ids in sentences], np.int32)
        limits = [max(1, int(settings["max_length_ratio"] * len(ids)) + settings["max_length_extra"]) for ids in sentences]
        return search(Decoder(encoder, step, tokens), np.array(limits), size, settings)

    return translate


class Decoder:
    """The decoder of B sentences, with W hypotheses of each."""

    def __init__(self, encoder, step, tokens_BS):
        self.step, self.written = step, 0
        found = run(encoder, {"tokens": tokens_BS})
        self.memory = {name: x for name, x in found.items() if name.startswith("memory/")}
        self.carry = {name: x[:, None] for name, x in found.items() if name.startswith("carry/")}
        self.length_axes = {each.name: each.shape.index("length") for each in step.get_inputs() if "length" in each.shape}

    def __call__(self, token_BW):
        """Read the last token of each hypothesis, and return log-probabilities of the next, float32 (B, W, V)."""
        for name, axis in self.length_axes.items():  # caches are lengthened as they are filled
            if self.written == self.carry[name].shape[axis]:
                more = [(0, 0)] * self.carry[name].ndim
                more[axis] = (0, max(15, self.written))
                self.carry[name] = np.pad(self.carry[name], more)
        self.written += 1
        found = run(self.step, {"token": token_BW.astype(np.int32), **self.memory, **self.carry})
        self.carry = {name: found[name.replace("carry/", "next/", 1)] for name in self.carry}
        logits_BWV = found["logits"]
        logits_BWV[..., [PAD, BOS]] = -np.inf
        largest = logits_BWV.max(-1, keepdims=True)
        return logits_BWV - (largest + np.log(np.exp(logits_BWV - largest).sum(-1, keepdims=True)))

    def keep(self, rows, parents):
        """Keep these sentences, and of each one the hypotheses that are continued."""
        if len(rows) < len(next(iter(self.carry.values()))):
            self.memory = {name: x[rows] for name, x in self.memory.items()}
        self.carry = {name: x[rows[:, None], parents] for name, x in self.carry.items()}


def run(session, inputs):
    """Return the outputs of a model by their names."""
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, inputs), strict=True))


def search(decoder, limits_B, W, settings):
    """Return the best translation of each sentence that a beam of W finds, a list of token ids without the end token.

    C = 2W candidates of a step are enough, at least W of which do not end. The first step of a small vocabulary has fewer. A sentence's
    search ends at its limit, when enough hypotheses have ended, or when no live one can be better than the best that has ended.
    """
    patience = float(settings["patience"]) if W > 1 else 1.0
    enough = np.maximum(1, np.floor(patience * W + 0.5))
    B, t = len(limits_B), 0
    found: list[list[int]] = [[] for _ in range(B)]
    best_B, ended_B, open_B = np.full(B, NEVER), np.zeros(B), np.arange(B)
    live_BWT: np.ndarray = np.full((B, 1, 1), BOS)
    live_BW: np.ndarray = np.zeros((B, 1), np.float32)
    while len(open_B):
        t += 1
        next_BWV = decoder(live_BWT[..., -1])
        if t <= settings["min_length"]:
            next_BWV[..., EOS] = -np.inf
        next_BWV[t >= limits_B, :, EOS + 1 :] = -np.inf
        all_BN = (np.maximum(next_BWV, NEVER) + live_BW[..., None]).reshape(len(open_B), -1)
        C = min(2 * W, all_BN.shape[1])
        best_BC = np.argpartition(-all_BN, C - 1)[:, :C]
        best_BC = np.take_along_axis(best_BC, np.argsort(-np.take_along_axis(all_BN, best_BC, 1), kind="stable"), 1)
        values_BC, (parents_BC, tokens_BC) = np.take_along_axis(all_BN, best_BC, 1), np.divmod(best_BC, next_BWV.shape[-1])

        counts_BC = (tokens_BC == EOS) & (values_BC > NEVER / 2) & ((np.arange(C) < W) | np.isinf(patience))
        scores_BC = np.where(counts_BC, score(values_BC, t, settings), NEVER)
        ended_B += counts_BC.sum(1)
        for row, place in enumerate(scores_BC.argmax(1)):
            if scores_BC[row, place] > best_B[row]:
                best_B[row], found[open_B[row]] = scores_BC[row, place], live_BWT[row, parents_BC[row, place], 1:].tolist()

        live_BC = np.argsort(tokens_BC == EOS, axis=1, kind="stable")[:, :W]
        live_BW, parents_BW, tokens_BW = (np.take_along_axis(x, live_BC, 1) for x in (values_BC, parents_BC, tokens_BC))
        bound_B = score(live_BW[:, 0], limits_B, settings)
        rows = np.flatnonzero((t < limits_B) & (bound_B > best_B) & (ended_B < enough))
        best_B, ended_B, open_B, limits_B, live_BW = (x[rows] for x in (best_B, ended_B, open_B, limits_B, live_BW))
        live_BWT = np.concatenate([live_BWT[rows[:, None], parents_BW[rows]], tokens_BW[rows][..., None]], 2)
        decoder.keep(rows, parents_BW[rows])
    return found


def score(log_prob, length, settings):
    """Return what translations are ranked by: log-probabilities, weighed with the length in tokens."""
    alpha = settings["length_penalty"]
    if settings["length_normalization"] == "reward":
        return log_prob + alpha * (length - 1)
    return log_prob / (length if settings["length_normalization"] == "average" else (5 + length) / 6) ** alpha
