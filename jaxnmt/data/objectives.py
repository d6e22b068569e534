"""Turn the examples of a batch into what the model reads and predicts: hidden tokens, and the weights of target tokens.

Random choices are hashes of (seed, step, corpus, number of the example, place), so that a batch is the same on every host, in every session
and in whatever order batches are made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxnmt.config import Captioning, Classification, Denoising, Language, MaskedLanguage, Task
from jaxnmt.data.batching import PlannedBatch
from jaxnmt.data.corpus import Corpus, Sentences, count_up
from jaxnmt.data.special_tokens import FIRST_TOKEN, UNK
from jaxnmt.data.tokenizer import Tokenizer


class Examples(NamedTuple):
    """The examples of a batch, one after another.

    Attributes:
        source, target: their tokens.
        weights: float32, of each target token in the loss.
        end_weights: float32, of the end token of each example.
    """

    source: Sentences
    target: Sentences
    weights: np.ndarray
    end_weights: np.ndarray


Objective = Callable[[PlannedBatch, Examples], Examples]
"""Returns what the model reads and predicts of the examples of a planned batch."""


def unchanged(planned: PlannedBatch, examples: Examples) -> Examples:
    """The objective of pairs: every target token counts once."""
    return examples


def objective_of(task: Task, tokenizer: Tokenizer, seed: int, corpora: Sequence[Corpus] = ()) -> Objective:
    """Return the objective of a task.

    Args:
        tokenizer: has the tokens that replace others, and begin words.
        seed: of what is hidden. Validation has one of its own, so that runs with different seeds have the same validation.
        corpora: the training data, whose label frequencies balance the labels' weights. Empty: every label has weight 1.
    """
    if isinstance(task, Classification) and task.labels != "one":
        return _described
    if isinstance(task, Classification):
        return functools.partial(_labelled, label_weights(task, tokenizer.target_vocab_size, corpora))
    if isinstance(task, MaskedLanguage):
        begins = tokenizer.target_begins() if task.whole_words else np.ones(tokenizer.target_vocab_size, bool)
        return functools.partial(_masked, task, seed, begins)
    if isinstance(task, Denoising):
        return functools.partial(_noised, task, seed)
    return {Language: _without_source, Captioning: _without_numbers}.get(type(task), unchanged)


def label_weights(task: Classification, labels: int, corpora: Sequence[Corpus]) -> np.ndarray:
    """Return each label's weight in the loss, float32 (labels,): one on average over the examples."""
    weights: np.ndarray = np.ones(labels, np.float32)
    if task.class_weights == "balanced" and corpora:
        counts = sum(np.bincount(corpus.target.ids, minlength=labels) for corpus in corpora)
        weights = (counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
    return weights


def _labelled(weights: np.ndarray, planned: PlannedBatch, examples: Examples) -> Examples:
    return examples._replace(weights=weights[examples.target.ids], end_weights=np.zeros_like(examples.end_weights))


def _described(planned: PlannedBatch, examples: Examples) -> Examples:
    """Let an example count once, at its end token, whatever its number of labels."""
    return examples._replace(weights=np.zeros_like(examples.weights), end_weights=np.ones_like(examples.end_weights))


def _without_source(planned: PlannedBatch, examples: Examples) -> Examples:
    tokens = np.zeros_like(examples.source.tokens)
    return examples._replace(source=Sentences(examples.source.ids[:0], tokens))


def _without_numbers(planned: PlannedBatch, examples: Examples) -> Examples:
    return examples._replace(source=Sentences(np.full_like(examples.source.ids, UNK), examples.source.tokens))


def _masked(task: MaskedLanguage, seed: int, begins: np.ndarray, planned: PlannedBatch, examples: Examples) -> Examples:
    """Hide words; predict what was there (Devlin et al. 2019, section 3.1)."""
    ids, tokens = examples.target
    draw = _Draws(planned, seed, tokens)
    first = draw.place == 0
    word = np.maximum.accumulate(np.where(first | begins[ids], np.arange(len(ids)), 0))  # the place of each token's word
    chosen = draw.uniform(0)[word] < task.rate
    how, other = draw.uniform(1), FIRST_TOKEN + np.floor(draw.uniform(2) * (len(begins) - FIRST_TOKEN))
    read = np.where(how < 0.8, UNK, np.where(how < 0.9, other, ids))
    source = Sentences(np.where(chosen, read, ids).astype(ids.dtype), tokens)
    return Examples(source, examples.target, chosen.astype(np.float32), np.zeros_like(examples.end_weights))


def _noised(task: Denoising, seed: int, planned: PlannedBatch, examples: Examples) -> Examples:
    """Hide spans, each behind one unknown token (text infilling, Lewis et al. 2020, section 2.2, without empty spans)."""
    ids, tokens = examples.target
    draw = _Draws(planned, seed, tokens)
    # A Markov chain of two states: a hidden span ends after a token with probability 1/span, and spans begin as often as the rate wants.
    hide, keep = task.rate / (1 - task.rate) / task.span, 1 - 1 / task.span  # after a token that is left, and after a hidden one
    first, here, chance = draw.place == 0, np.arange(len(ids)), draw.uniform(0)
    decided = first | (chance < min(hide, keep)) | (chance >= max(hide, keep))  # whatever the token before it is
    last = np.maximum.accumulate(np.where(decided, here, 0))
    hidden = (chance < np.where(first, task.rate, min(hide, keep)))[last]
    if hide > keep:  # each token since then is what the one before it is not; otherwise what it is
        hidden = hidden ^ ((here - last) % 2 == 1)
    stands = hidden & ~(np.concatenate([[False], hidden[:-1]]) & (draw.place > 0))  # the first token of each hidden span
    left = np.where(hidden, UNK, ids).astype(ids.dtype)[~hidden | stands]
    owner: np.ndarray = np.repeat(np.arange(len(tokens)), tokens)
    return examples._replace(source=Sentences(left, np.bincount(owner[~hidden | stands], minlength=len(tokens))))


class _Draws:
    """Random numbers for the tokens of a batch.

    Attributes:
        place: int64, each token's place in its example.
    """

    def __init__(self, planned: PlannedBatch, seed: int, tokens: np.ndarray):
        key: np.ndarray = np.full(len(tokens), seed, np.uint64)
        for number in (np.full_like(key, planned.step), planned.corpus, planned.index):
            key = _mix(key ^ np.asarray(number, np.uint64))
        self.place = count_up(tokens)
        self._key = np.repeat(key, tokens) + self.place.astype(np.uint64)

    def uniform(self, stream: int) -> np.ndarray:
        """Return a number in [0, 1) for each token; each stream has others."""
        return (_mix(_mix(self._key) + np.uint64(stream)) >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """Return 64 mixed bits for each uint64 (splitmix64; Steele, Lea and Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
