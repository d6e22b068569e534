"""The likely translations of each source token, by IBM Model 1 (Brown et al. 1993, section 4.2), for shortlists of the vocabulary.

    RUN/lexicon.npz    the arrays of a `Lexicon`

A run's lexicon is made from its training data when it is first needed, and kept.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnmt.config import Experiment
from jaxnmt.data.corpus import Corpus, count_up, gather
from jaxnmt.data.prepared import prepare
from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.parallel import distributed, log

FILE = "lexicon.npz"
ITERATIONS = 5
MAX_CANDIDATES = 100
"""Translations of a source token that a lexicon keeps, and frequent tokens: as many as `decoding.shortlist` may be."""
LINKS = 20_000_000
"""Pairs of a source and a target token of one sentence pair that are read: about 2 GiB of memory. Larger data are sampled evenly."""


class Lexicon(NamedTuple):
    """Target tokens for each source token, and for all.

    Attributes:
        same_S: int32, for each id of the source vocabulary the target token that is spelled as it is, or PAD.
        likely_SN: int32, target tokens that each source token translates to, the likeliest first, padded with PAD. The row of EOS has those
            that no source token explains.
        frequent_N: int32, the most frequent target tokens, first the most frequent.
    """

    same_S: np.ndarray
    likely_SN: np.ndarray
    frequent_N: np.ndarray

    def candidates(self, source: Sequence[int], count: int) -> np.ndarray:
        """Return the target tokens that may translate a sentence: `count` of each source token, and of the frequent ones.

        Args:
            source: its tokens; EOS is added.
            count: at most `MAX_CANDIDATES`.

        Returns:
            Each token once, in ascending order. EOS is among them, and PAD may be.
        """
        tokens = [*source, EOS]
        return np.unique(np.concatenate([self.same_S[tokens], self.likely_SN[tokens, :count].reshape(-1), self.frequent_N[:count], [EOS]]))


def of_run(run: Path, experiment: Experiment, tokenizer: Tokenizer) -> Lexicon:
    """Return a run's lexicon; make it from the training data and keep it if the run has none.

    Raises:
        UserError: the training data cannot be read.
    """
    with distributed.leader_first("make the lexicon"), contextlib.ExitStack() as stack:
        file = run / FILE
        with contextlib.suppress(OSError):  # a run that cannot be written has nothing to protect
            if not file.exists() and not files.in_bucket(run):
                stack.enter_context(files.lock(run / f".{FILE}.lock", log.say, "another process is making the lexicon: waiting for it"))
        # It is missing, or damaged: NumPy, zipfile and zlib then raise errors of many classes.
        with contextlib.suppress(Exception), np.load(io.BytesIO(file.read_bytes())) as arrays:
            return Lexicon(*(arrays[name] for name in Lexicon._fields))
        log.say(f"{run}: making the lexicon for decoding.shortlist from the training data")
        try:
            data = prepare(experiment, run / "tokenizer", log.say)
        except UserError as error:
            raise UserError(f"decoding.shortlist needs the run's training data, of which its lexicon is made: {error}") from error
        lexicon = train(data.train, tokenizer)
        content = io.BytesIO()
        np.savez_compressed(content, **lexicon._asdict())
        try:
            files.write(file, content.getvalue())
        except OSError as error:  # it may be somebody else's run
            log.say(f"the lexicon is not kept: {file} cannot be written ({error.strerror})")
    return lexicon


def train(corpora: Sequence[Corpus], tokenizer: Tokenizer, links: int = LINKS) -> Lexicon:
    """Estimate a lexicon by expectation maximisation. Each sentence ends with EOS; the source's stands for Model 1's empty word.

    Args:
        corpora: training data.
        tokenizer: of both sides.
        links: how many pairs of a source and a target token to read at most, about; sentence pairs are chosen evenly over the corpora.
    """
    sources, targets = tokenizer.source_vocab_size, tokenizer.target_vocab_size
    source, target, source_lengths, target_lengths = _sampled(corpora, links)
    # Link i joins the target token at `target_place[i]` with the source token at `source_place[i]`, each one of its sentence in turn.
    sizes: np.ndarray = np.repeat(source_lengths, target_lengths)
    target_place: np.ndarray = np.repeat(np.arange(len(target)), sizes)
    source_place = np.repeat(np.repeat(np.cumsum(source_lengths) - source_lengths, target_lengths), sizes) + count_up(sizes)
    cells, cell = np.unique(source[source_place].astype(np.int64) * targets + target[target_place], return_inverse=True)
    del source_place
    from_, to = cells // targets, cells % targets
    p: np.ndarray = np.ones(len(cells))
    for _ in range(ITERATIONS):
        posterior = p[cell]
        posterior /= np.bincount(target_place, posterior, len(target))[target_place]
        counts = np.bincount(cell, posterior, len(cells))
        p = counts / np.bincount(from_, counts, sources)[from_]
    order = np.lexsort((-p, from_))
    rank = count_up(np.bincount(from_, minlength=sources))
    kept = rank < MAX_CANDIDATES
    likely: np.ndarray = np.full((sources, MAX_CANDIDATES), PAD, np.int32)
    likely[from_[order][kept], rank[kept]] = to[order][kept]
    frequent = np.argsort(-np.bincount(target, minlength=targets), kind="stable")[:MAX_CANDIDATES]
    return Lexicon(_same_spelling(tokenizer), likely, frequent.astype(np.int32))


def _sampled(corpora: Sequence[Corpus], links: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the source and target tokens of evenly chosen sentence pairs, one after another, each with EOS; and the sentences' lengths."""
    total = sum(int(((source + np.int64(1)) * (target + 1)).sum()) for source, target in (corpus.lengths for corpus in corpora))
    stride, before = max(1, -(-total // links)), 0
    ids: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    lengths: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for corpus in corpora:
        chosen = np.arange(-before % stride, len(corpus), stride)
        before += len(corpus)
        for side, tokens, sizes in zip((corpus.source, corpus.target), ids, lengths, strict=True):
            found, size = gather([side], np.zeros_like(chosen), chosen)
            tokens.append(np.insert(found, np.cumsum(size), EOS))
            sizes.append(size + 1)
    (source, target), (source_lengths, target_lengths) = (map(np.concatenate, both) for both in (ids, lengths))
    return source, target, source_lengths, target_lengths


def _same_spelling(tokenizer: Tokenizer) -> np.ndarray:
    """Return `Lexicon.same_S`."""
    targets = {piece: i for i, piece in enumerate(tokenizer.target_pieces(range(tokenizer.target_vocab_size)))}
    pieces = tokenizer.source_pieces(range(tokenizer.source_vocab_size))
    return np.array([targets.get(piece, PAD) for piece in pieces], np.int32)
