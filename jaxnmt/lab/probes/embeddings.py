"""Words as vectors.

Which lie close (Mikolov et al. 2013), where they lie on a plane, the position vectors that are added to them (Gehring et al. 2017; Vaswani
et al. 2017, section 3.5), and what the sentence around a word makes of its vector, layer by layer (Peters et al. 2018).
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import UNK
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.data.vocabulary import SPACER, SPECIAL
from jaxnmt.errors import UserError
from jaxnmt.models.cells import RecurrentLayer
from jaxnmt.models.layers import sinusoids
from jaxnmt.models.recurrent import reverse_sequence
from jaxnmt.models.seq2seq import EncoderDecoder, Seq2Seq

Side = Literal["source", "target"]
_LAYER = re.compile(r"encoder/layer_(\d+)")


class Neighbour(NamedTuple):
    """A piece of the vocabulary: its id, its text, and the cosine of the angle to a word's vector."""

    token: int
    piece: str
    cosine: float


class Words:
    """One side's vocabulary and its vectors.

    Raises:
        UserError: the model, one of the user's own, has no table of them that is known.
    """

    def __init__(self, model: Seq2Seq, params: Any, tokenizer: Tokenizer, side: Side) -> None:
        if not isinstance(model.module, EncoderDecoder):
            raise UserError(
                f"{type(model.module).__name__} is no EncoderDecoder of jaxnmt.models.seq2seq: where its word vectors are is unknown"
            )
        name = f"embed_{side}"
        self.table_VD = np.asarray(model.module.apply({"params": params}, method=lambda module: getattr(module, name).table), np.float32)
        size = tokenizer.source_vocab_size if side == "source" else tokenizer.target_vocab_size
        self.table_VD = self.table_VD[:size]  # the rest is padding
        self._encode = tokenizer.encode_source if side == "source" else tokenizer.encode_target
        self._pieces = tokenizer.source_pieces if side == "source" else tokenizer.target_pieces

    def ids(self, word: str) -> list[int]:
        """A word's pieces.

        Raises:
            UserError: it is unknown.
        """
        ids = self._encode([word])[0]
        if not ids or UNK in ids:
            raise UserError(f"the run's vocabulary does not know {word or 'an empty word'!r}")
        return ids

    def known(self, word: str) -> bool:
        """Whether a word is one piece."""
        ids = self._encode([word])[0]
        return len(ids) == 1 and ids[0] != UNK

    def split(self, word: str) -> list[str]:
        """A word's pieces, as the vocabulary has them."""
        return self._pieces(self.ids(word))

    def vector(self, word: str) -> np.ndarray:
        """Of a word, (D,): the mean of its pieces'."""
        return self.table_VD[self.ids(word)].mean(0)

    def neighbours(self, word: str, count: int) -> list[Neighbour]:
        """The vocabulary's pieces that lie closest to a word, its own aside."""
        cosine_V = cosines(self.table_VD, self.vector(word))
        cosine_V[[*range(len(SPECIAL)), *self.ids(word)]] = -np.inf
        nearest = np.argsort(-cosine_V, kind="stable")[: min(count, int(np.isfinite(cosine_V).sum()))].tolist()
        return [Neighbour(index, piece, float(cosine_V[index])) for index, piece in zip(nearest, self._pieces(nearest), strict=True)]


def cosines(vectors_ND: np.ndarray, vector_D: np.ndarray) -> np.ndarray:
    """(N,); 0 where one of the two is zero."""
    norms = np.linalg.norm(vectors_ND, axis=-1) * np.linalg.norm(vector_D)
    return vectors_ND @ vector_D / np.where(norms > 0, norms, np.inf)


def frequent(lines: Sequence[str], words: Words, count: int) -> list[str]:
    """The most frequent words of a text that have three letters or more and are one piece each; of equals, the first."""
    tally = collections.Counter(word for line in lines for word in re.findall(rf"{SPACER}?[^\W\d_]{{3,}}", line))
    return [word for word, _ in tally.most_common() if words.known(word)][:count]


def plane(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components: coordinates (N, 2), and the share of the variance that each has.

    A component's sign, which means nothing, makes its largest coordinate positive.
    """
    centred = vectors_ND - vectors_ND.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    xy = u[:, :2] * s[:2]
    xy = xy * np.where(xy[np.abs(xy).argmax(0), range(xy.shape[1])] < 0, -1, 1)
    return xy, s[:2] ** 2 / max(float((s**2).sum()), 1e-12)


def position_vectors(config: Any, params: Any, length: int) -> dict[str, np.ndarray]:
    """What is added to word vectors at the first `length` positions, (length, D), by name; nothing where a model has no such vectors."""
    positions = getattr(config, "positions", "none")
    if positions == "sinusoidal":
        return {"sinusoidal": sinusoids(length, config.emb_dim)}
    if positions == "learned":
        return {
            f"learned, {side}": np.asarray(params[f"{side}_positions"]["table"][:length], np.float32) for side in ("encoder", "decoder")
        }
    return {}


def layers(config: Any, model: Seq2Seq, params: Any, source: Sequence[int]) -> list[np.ndarray]:
    """A sentence's vectors on their way through the encoder, (S, D) each: what the first layer reads, then what each layer hands on.

    The last is what the decoder gets (in a pre-norm Transformer: normalised).

    Each is read where the next layer (`encoder/layer_1`, …) is called with it: nothing is computed for this.

    Args:
        source: a sentence's ids, EOS at their end.

    Raises:
        UserError: the encoder, one of the user's own, gives no states.
    """
    tokens_BS = jnp.asarray([source], jnp.int32)
    found: dict[int, Any] = {}

    def tap(call, args, kwargs, context):
        if context.method_name == "__call__" and (layer := _LAYER.fullmatch("/".join(context.module.path))):
            x = args[0]
            if isinstance(context.module, RecurrentLayer):
                x = jnp.moveaxis(reverse_sequence(x, (tokens_BS > 0).T) if config.reverse_source else x, 0, 1)
            found[int(layer[1])] = x
        return call(*args, **kwargs)

    with nn.intercept_methods(tap):
        memory = model.encode(params, {"encoder_input_tokens": tokens_BS})
    if not hasattr(memory, "states_BSD"):
        raise UserError(f"the encoder of {type(model.module).__name__} gives no states_BSD: a word's vectors in it are unknown")
    if not found:  # the bag of words has no such layers
        found[0] = model.module.apply({"params": params}, method=lambda module: module.embed_source(tokens_BS, module.dtype))
    return [np.asarray(x[0], np.float32) for x in [*(x for _, x in sorted(found.items())), memory.states_BSD]]


def occurrence(tokenizer: Tokenizer, sentence: str, source: Sequence[int], word: str) -> list[int]:
    """The places of a word's pieces among a sentence's; of its first one, if it is there twice. Case and punctuation are not minded.

    Raises:
        UserError: it is not there.
    """
    words, word_of = tokenizer.source_words(sentence, list(source[:-1]))
    pieces = tokenizer.source_pieces(source[:-1])
    for number, found in enumerate(words):
        if re.sub(r"^\W+|\W+$", "", found).lower() == word.lower():
            return [place for place, of in enumerate(word_of) if of == number and any(letter.isalnum() for letter in pieces[place])]
    raise UserError(f"there is no word {word!r} in the sentence {sentence!r}")


def likeness(first: Sequence[np.ndarray], at: Sequence[int], other: Sequence[np.ndarray], there: Sequence[int]) -> list[float]:
    """The cosine between a word's vectors in two sentences, layer by layer; of several pieces, between their means."""
    means = [(a[list(at)].mean(0), b[list(there)].mean(0)) for a, b in zip(first, other, strict=True)]
    return [float(cosines(a[None], b)[0]) for a, b in means]
