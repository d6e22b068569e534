"""How far a gradient reaches: the norm of ∂loss/∂h_t against the distance of word t from the end of reading.

For a source of S positions (the last is the end token), random words, and the loss of the first target word alone,

    L = −log p(y_1 | x_1 … x_S),        g(n) = ‖∂L/∂h_{S−n}‖₂,

where h_t is what position t first has to itself in the encoder: in a recurrent one the state of the bottom layer after it has read word t
(of both directions, side by side), counted in the order of reading; in any other the vector of word t. The derivative is the total one,
through all that comes after h_t: later states, layers above, attention, decoder (Pascanu et al. 2013, equation 4; Bengio et al. 1994).
The first target word is the one whose decoder adds no steps of its own: what lies between h_t and the loss is reading.
S is 2N + 1 for distances up to N, so that an encoder that reads in both directions is at least as far from h_t by the other way.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.analysis.figures import Line
from jaxnmt.analysis.laws.subject import FIRST_WORD
from jaxnmt.analysis.probes.subjects import Subject
from jaxnmt.analysis.tables import Table
from jaxnmt.decoding.search import BOS, EOS
from jaxnmt.models.cells import RecurrentLayer
from jaxnmt.models.layers import Embedding
from jaxnmt.models.seq2seq import Seq2Seq, build_model
from jaxnmt.training import trained
from jaxnmt.training.loss import batch_loss

VOCABULARY = 1000  # of models that are not trained
TITLE = "Gradient of the first word's loss, by distance"
X, Y = "steps between word t and the end of the source", "‖∂loss/∂h_t‖"


def distances(most: int, per_decade: int = 10) -> list[int]:
    """Whole numbers from 1 to `most`, about evenly spread on a logarithmic axis."""
    steps = math.ceil(per_decade * math.log10(most)) if most > 1 else 1
    return sorted({round(most ** (i / steps)) for i in range(steps + 1)})


class Tap:
    """Adds nudges to h_t at some places, from outside the model: an interceptor of its modules' calls (`flax.linen.intercept_methods`).

    A bottom recurrent layer is run piece by piece, each up to one of the places, and the state that it hands to the next is nudged.

    Attributes:
        widths: after a pass, how wide h_t is, by the path of the module that makes it.
    """

    def __init__(self, length: int, places: Sequence[int], nudges: Mapping[str, jax.Array]):
        """`places`: N positions, ascending; `nudges`: for each module that is tapped float32 (N, width)."""
        self.length, self.places, self.nudges = length, places, nudges
        self.recurrent: dict[str, int] = {}
        self.words: dict[str, int] = {}
        self._read: Any = None

    @property
    def widths(self) -> dict[str, int]:
        return self.recurrent or self.words

    def __call__(self, call, args, kwargs, context):
        if context.method_name != "__call__" or not isinstance(context.module, RecurrentLayer | Embedding | nn.Embed):
            return call(*args, **kwargs)
        if args[0].shape[:2] not in ((1, self.length), (self.length, 1)):
            return call(*args, **kwargs)  # of the decoder
        name = "/".join(context.module.path)
        if isinstance(context.module, RecurrentLayer):
            self._read = args[0] if self._read is None else self._read
            if args[0] is not self._read:
                return call(*args, **kwargs)  # a layer above
            self.recurrent[name] = context.module.width
            return self._run(call, self.nudges[name], *args, **kwargs) if name in self.nudges else call(*args, **kwargs)
        made = call(*args, **kwargs)
        if self.words:
            return made  # the words' vectors are looked up first; these are of something else
        self.words[name] = made.shape[-1]
        if name not in self.nudges:
            return made
        flat_SD = made.reshape(self.length, -1)
        return flat_SD.at[np.array(self.places)].add(self.nudges[name].astype(made.dtype)).reshape(made.shape)

    def _run(self, layer, nudge_NH, x_SBD, state, mask_SB1=None, reverse=False, **others):
        turn = (lambda x: x[::-1]) if reverse else (lambda x: x)
        x_SBD, mask_SB1 = turn(x_SBD), None if mask_SB1 is None else turn(mask_SB1)
        stops = [self.length - place for place in reversed(self.places)] if reverse else [place + 1 for place in self.places]
        nudges = [*turn(nudge_NH.astype(x_SBD.dtype)), 0.0]
        h_SBH = []
        for begin, end, nudge in zip([0, *stops], [*stops, self.length], nudges, strict=True):
            h, state = layer(x_SBD[begin:end], state, None if mask_SB1 is None else mask_SB1[begin:end], False, **others)
            state = (state[0] + nudge, *state[1:])
            h_SBH.append(h.at[-1].add(nudge))
        return turn(jnp.concatenate(h_SBH)), state


def norms(model: Seq2Seq, places: Sequence[int], params, source_S: jax.Array, target: jax.Array) -> jax.Array:
    """‖∂L/∂h_t‖ at some positions t, float32 (N,); to be compiled, `model` and `places` being fixed.

    Args:
        places: ascending; counted in the order of reading where the model is recurrent.
        source_S: int32 ids, the end token included; padding may follow.
        target: int32 scalar, the first word of the translation.

    Raises:
        UserError: nothing in the model's encoder is known to make an h_t.
    """
    batch = {
        "encoder_input_tokens": source_S[None],
        "decoder_input_tokens": jnp.full((1, 1), BOS, jnp.int32),
        "decoder_target_tokens": jnp.reshape(target, (1, 1)),
        "decoder_loss_weights": jnp.ones((1, 1), jnp.float32),
    }

    def loss(nudges, tap=None):
        with nn.intercept_methods(tap or Tap(len(source_S), places, nudges)):
            return batch_loss(model, params, batch, None, 0.0).loss

    seen = Tap(len(source_S), places, {})
    jax.eval_shape(functools.partial(loss, tap=seen), {})
    if not seen.widths:
        raise cfg.UserError(
            f"{type(model.module).__name__} looks no word up by jaxnmt's Embedding or flax's Embed, nor runs it a RecurrentLayer: "
            "there is nothing to take the gradient of"
        )
    found = jax.grad(loss)({name: jnp.zeros((len(places), width)) for name, width in seen.widths.items()})
    return jnp.sqrt(sum(jnp.square(x).sum(-1) for x in found.values()))


def measure(label: str, subject: Subject, at: Sequence[int], samples: int) -> np.ndarray:
    """g(n) of a model: float32 (samples, distances). Each sample is a random sentence, and fresh parameters where no run trained them.

    Raises:
        UserError: a gradient is not a number; and as `norms`.
    """
    length = 2 * max(at) + 1
    if subject.run:
        run = trained.load(subject.run)
        model, source, target = run.model, run.tokenizer.source_vocab_size, run.tokenizer.target_vocab_size
        params = itertools.repeat(run.params)
    else:
        model, source, target = build_model(subject.model, VOCABULARY, VOCABULARY), VOCABULARY, VOCABULARY
        init = jax.jit(model.init)
        params = (init(jax.random.key(seed)) for seed in itertools.count())
    take = jax.jit(functools.partial(norms, model, [length - 1 - n for n in reversed(at)]))
    found = []
    for seed, own in zip(range(samples), params, strict=False):
        random = np.random.default_rng(seed)
        words = np.append(random.integers(FIRST_WORD, source, length - 1), EOS).astype(np.int32)
        found.append(np.asarray(take(own, words, np.int32(random.integers(FIRST_WORD, target))))[::-1])
    if not np.isfinite(found).all():
        raise cfg.UserError(f"{label}: the gradient is not a number for a source of {length} tokens; try a smaller --distance")
    return np.array(found)


def line(at: Sequence[int], norms_KN: np.ndarray) -> Line:
    """The geometric mean over samples, and a band of one standard deviation of the logarithm; 0 where float32 has no smaller number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs_KN = np.log(norms_KN.astype(np.float64))
        middle, spread = logs_KN.mean(0), logs_KN.std(0, ddof=min(1, len(logs_KN) - 1))
        y, low, high = (np.nan_to_num(np.exp(middle + sign * spread)) if sign else np.exp(middle) for sign in (0, -1, 1))
    return Line(list(map(float, at)), y.tolist(), low.tolist(), high.tolist())


def table(lines: Mapping[str, Line]) -> Table:
    """The norms at 1, 10, 100, … steps."""
    at = [n for n in next(iter(lines.values())).x if math.log10(n).is_integer()]
    rows = [(label, *(f"{line.y[line.x.index(n)]:.1e}" if line.y[line.x.index(n)] else "0" for n in at)) for label, line in lines.items()]
    note = "Geometric mean over random sentences; 0: below what float32 can hold."
    return Table(f"{Y}, n {X}", ("n", *(f"{n:,.0f}" for n in at)), tuple(rows), note)
