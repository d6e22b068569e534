"""How far gradients reach: the norm of ∂loss/∂h_t against the distance of word t from the end of reading.

For a source of S positions (the last is EOS), random words, and the loss of the first target word only,

    L = −log p(y_1 | x_1 … x_S),        g(n) = ‖∂L/∂h_{S−n}‖₂,

where h_t is the first value in the encoder that belongs to position t: in a recurrent encoder the state of the bottom layer after word t
(of both directions, concatenated), counted in the order of reading; in any other the vector of word t. The derivative is the total one,
through later states, layers above, attention and decoder (Pascanu et al. 2013, equation 4; Bengio et al. 1994). For the first target
word the decoder adds no steps of its own, so that only reading lies between h_t and the loss. S is 2N + 1 for distances up to N, so that
h_t is at least as far from the end in the other direction of a bidirectional encoder.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import Run, UserError
from jaxnmt.data.special_tokens import BOS, EOS
from jaxnmt.lab import figures
from jaxnmt.lab.laws.subject import FIRST_WORD
from jaxnmt.lab.options import Subject
from jaxnmt.models.cells import RecurrentLayer
from jaxnmt.models.layers import Embedding
from jaxnmt.models.seq2seq import Seq2Seq, build_model
from jaxnmt.training.loss import batch_loss

TAPPED = RecurrentLayer, Embedding, nn.Embed
VOCABULARY = 1000  # of untrained models
TITLE = "Gradient of the first word's loss, by distance"
X, Y = "steps between word t and the end of the source", "‖∂loss/∂h_t‖"


def distances(most: int, per_decade: int = 10) -> list[int]:
    """Return whole numbers from 1 to `most`, about evenly spaced on a logarithmic axis."""
    steps = math.ceil(per_decade * math.log10(most)) if most > 1 else 1
    return sorted({round(most ** (i / steps)) for i in range(steps + 1)})


class Tap:
    """Adds perturbations to h_t from outside the model, by intercepting its modules' calls (`flax.linen.intercept_methods`).

    A bottom recurrent layer is run one step at a time, and the perturbation is added to the state passed to the next step.

    Attributes:
        widths: after a pass, the width of h_t, by the path of the module that computes it.
    """

    def __init__(self, length: int, nudges: Mapping[str, jax.Array]):
        """`length`: S; `nudges`: the perturbations, (S, width) for each tapped module."""
        self.length, self.nudges = length, nudges
        self.widths: dict[str, int] = {}
        self._read: Any = None

    def __call__(self, call, args, kwargs, context):
        layer, of_words = context.module, ((1, self.length), (self.length, 1))
        if context.method_name != "__call__" or not isinstance(layer, TAPPED) or args[0].shape[:2] not in of_words:
            return call(*args, **kwargs)
        name, is_recurrent = "/".join(layer.path), isinstance(layer, RecurrentLayer)
        if is_recurrent and self._read is None:  # the first one: its states, not the word vectors
            self.widths, self._read = {}, args[0]
        if is_recurrent and self._read is args[0]:  # otherwise a layer above
            self.widths[name] = layer.width
            return _run(layer, self.nudges[name], *args, **kwargs) if name in self.nudges else call(*args, **kwargs)
        made = call(*args, **kwargs)
        if is_recurrent or self.widths:  # word vectors are looked up before any others
            return made
        self.widths[name] = made.shape[-1]
        return made + self.nudges[name].reshape(made.shape).astype(made.dtype) if name in self.nudges else made


def _run(layer: RecurrentLayer, nudge_SU, x_SBD, state, mask_SB1=None, reverse=False, **others):
    """Run `RecurrentLayer.__call__` step by step, adding a perturbation to each state."""

    def step(layer, state, x):
        x_BD, mask_B1, nudge_U = x
        h_1BU, state = layer(x_BD[None], state, None if mask_B1 is None else mask_B1[None], **others)
        return (state[0] + nudge_U, *state[1:]), h_1BU[0] + nudge_U

    scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False}, reverse=reverse)
    state, h_SBU = scan(layer, state, (x_SBD, mask_SB1, nudge_SU.astype(x_SBD.dtype)))
    return h_SBU, state


def norms(model: Seq2Seq, params, source_S: jax.Array, target: jax.Array) -> jax.Array:
    """Return ‖∂L/∂h_t‖ at every position t, float32 (S,), in the order of reading if the model is recurrent. Jit it with `model` fixed.

    Args:
        source_S: int32 ids, with EOS; padding may follow.
        target: int32 scalar, the first word of the translation.

    Raises:
        UserError: no known module of the model's encoder computes an h_t.
    """
    batch = {
        "encoder_input_tokens": source_S[None],
        "decoder_input_tokens": jnp.full((1, 1), BOS, jnp.int32),
        "decoder_target_tokens": jnp.reshape(target, (1, 1)),
        "decoder_loss_weights": jnp.ones((1, 1), jnp.float32),
    }

    def loss(tap):
        with nn.intercept_methods(tap):
            return batch_loss(model, params, batch, None, 0.0).loss

    seen, length = Tap(len(source_S), {}), len(source_S)
    jax.eval_shape(lambda: loss(seen))
    if not seen.widths:
        name = type(model.module).__name__
        raise UserError(f"{name} has no state or word vector to differentiate by: use a RecurrentLayer, Embedding or flax's Embed")
    nudges = {name: jnp.zeros((length, width)) for name, width in seen.widths.items()}
    found = jax.grad(lambda nudges: loss(Tap(length, nudges)))(nudges)
    found_SD = jnp.concatenate(list(found.values()), -1)
    largest_S1 = jnp.abs(found_SD).max(-1, keepdims=True)
    scaled_SD = found_SD / jnp.where(largest_S1 > 0, largest_S1, 1)  # otherwise the squares of small numbers would be 0
    return largest_S1[:, 0] * jnp.linalg.norm(scaled_SD, axis=-1)


def measure(label: str, subject: Subject, at: Sequence[int], samples: int) -> np.ndarray:
    """Return g(n) of a model: float32 (samples, distances). A sample is a random sentence, with new parameters if the model is untrained.

    Raises:
        UserError: a gradient is NaN or infinite; and as `norms`.
    """
    length = 2 * max(at) + 1
    if subject.run:
        run = Run(subject.run)
        model, source, target = run.model, run.tokenizer.source_vocab_size, run.tokenizer.target_vocab_size
        params: Iterator[Any] = itertools.repeat(run.params)
    else:
        model, source, target = build_model(subject.model, VOCABULARY, VOCABULARY), VOCABULARY, VOCABULARY
        init = jax.jit(model.init)
        params = (init(jax.random.key(seed)) for seed in itertools.count())
    take = jax.jit(functools.partial(norms, model))
    found = []
    for seed, own in zip(range(samples), params, strict=False):
        random = np.random.default_rng(seed)
        words: np.ndarray = np.append(random.integers(FIRST_WORD, source, length - 1), EOS).astype(np.int32)
        norms_S = np.asarray(take(own, words, np.int32(random.integers(FIRST_WORD, target))))
        found.append(norms_S[length - 1 - np.array(at)])
    if not np.isfinite(found).all():
        raise UserError(f"{label}: the gradient is not finite for a source of {length} tokens; try a smaller --distance")
    return np.array(found)


def line(at: Sequence[int], norms_KN: np.ndarray) -> figures.Line:
    """Return the geometric mean over samples with a band of one standard deviation of the logarithm; 0 where float32 underflows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs_KN = np.log(norms_KN.astype(np.float64))
        middle, spread = logs_KN.mean(0), logs_KN.std(0, ddof=min(1, len(logs_KN) - 1))
        y, low, high = (np.nan_to_num(np.exp(middle + sign * spread)) if sign else np.exp(middle) for sign in (0, -1, 1))
    return figures.Line(list(map(float, at)), y.tolist(), low.tolist(), high.tolist())


def report(lines: Mapping[str, figures.Line]) -> figures.Report:
    """Return the chart and its numbers, by the suffix of their files, and a table of the norms at 1, 10, 100, … steps."""
    files = {".svg": figures.chart(lines, TITLE, X, Y, log_x=True, log_y=True), ".csv": figures.lines_csv(lines)}
    at = [n for n in next(iter(lines.values())).x if math.log10(n).is_integer()]
    rows = [(label, *(f"{line.y[line.x.index(n)]:.1e}" if line.y[line.x.index(n)] else "0" for n in at)) for label, line in lines.items()]
    note = "Geometric mean over random sentences; 0: below the range of float32."
    return files, figures.Table(f"{Y}, n {X}", ("n", *(f"{n:,.0f}" for n in at)), rows, note)
