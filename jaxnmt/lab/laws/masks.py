"""Law 4: a prediction sees no later word, no padding, and no other pair in its row.

The laws change tokens, and compare to the bit what must not depend on them. Gradients would need the place where a token becomes a vector,
which only a module's author knows, and they are zero if a model counts or compares words. The same program adds the same numbers in the
same order, so on a CPU a masked token leaves no trace, not even of rounding. A law also fails if a change that must show does not: else a
model that ignores its input would pass.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.data.special_tokens import PAD
from jaxnmt.lab.laws.subject import FIRST_WORD, SOURCE_VOCAB, TARGET_VOCAB, Subject, Verdict, batch_of, does_not_apply, random_pairs
from jaxnmt.models.seq2seq import VOCABULARY_MULTIPLE, build_model

SOURCE, TARGET = 8, 8
Batch = dict[str, np.ndarray]


def _batch() -> Batch:
    """Return four sentences with padding in the source. Target rows are full, so that all later tokens can be changed."""
    pairs = [(source, target) for (source, _), (_, target) in zip(random_pairs(4), random_pairs(4, 1, TARGET - 1, TARGET - 1), strict=True)]
    return batch_of(pairs, [[0], [1], [2], [3]], SOURCE, TARGET)


def _other(tokens: np.ndarray, vocab: int) -> np.ndarray:
    """Return other words; no word stays the same."""
    return FIRST_WORD + (tokens - FIRST_WORD + 1) % (vocab - FIRST_WORD)


def causal(subject: Subject) -> Verdict:
    """Replace the target words from each position on: no earlier prediction may change, and the position's own must."""
    batch = _batch()
    before_BTV = subject.logits(batch)
    for place in range(1, TARGET):
        later = np.arange(TARGET) >= place
        for what, replaced in (("another word", _other(batch["decoder_input_tokens"], TARGET_VOCAB)), ("padding", PAD)):
            inputs_BT = np.where(later, replaced, batch["decoder_input_tokens"]).astype(np.int32)
            targets_BT = np.concatenate([inputs_BT[:, 1:], batch["decoder_target_tokens"][:, -1:]], 1)
            after_BTV = subject.logits(batch | {"decoder_input_tokens": inputs_BT, "decoder_target_tokens": targets_BT})
            changed_T = (after_BTV != before_BTV).any((0, 2))
            if changed_T[:place].any():
                most = np.abs(after_BTV - before_BTV)[:, :place].max()
                return Verdict(False, f"{what} at position {place} changes the prediction of {np.argmax(changed_T)} by up to {most:.1g}")
            if what == "another word" and not changed_T[place]:
                return Verdict(False, f"the prediction at position {place} does not depend on the word before it")
    return Verdict(True, f"to the bit, {TARGET - 1} positions changed in two ways")


def padding(subject: Subject) -> Verdict:
    """Replace the vector of the padding id: no prediction may change. Replace each source word: a prediction must change."""
    tables = _tables(subject)
    if not any(jax.tree.leaves(tables)):
        return does_not_apply(
            "no parameter grows with the vocabulary, so the vector of padding cannot be changed; law `alone` adds padding"
        )
    batch = _batch()
    before_BTV = subject.logits(batch)[..., PAD + 1 :]
    after_BTV = subject.logits(batch, jax.tree.map(_with_other_padding, subject.params, tables))[..., PAD + 1 :]
    if not np.array_equal(before_BTV, after_BTV):
        return Verdict(False, f"the vector of padding changes a logit by up to {np.abs(after_BTV - before_BTV).max():.1g}")
    source_BS = batch["encoder_input_tokens"]
    for place in range(SOURCE):
        is_word_B = source_BS[:, place] >= FIRST_WORD
        tokens_BS = np.where(is_word_B[:, None] & (np.arange(SOURCE) == place), _other(source_BS, SOURCE_VOCAB), source_BS)
        changed_B = (subject.logits(batch | {"encoder_input_tokens": tokens_BS.astype(np.int32)})[..., PAD + 1 :] != before_BTV).any((1, 2))
        if (changed_B != is_word_B).any():
            return Verdict(False, f"no prediction depends on the source's word at position {place}, or one does on another sentence's")
    return Verdict(True, f"to the bit, {(source_BS == PAD).sum()} positions of padding beside {(source_BS >= FIRST_WORD).sum()} words")


def _tables(subject: Subject) -> Any:
    """Return for each parameter the axis, counted from 1, that grows with the vocabularies; 0 if none does."""
    twice = build_model(subject.config, 2 * VOCABULARY_MULTIPLE, 2 * VOCABULARY_MULTIPLE)
    larger = twice.shapes
    grows = lambda x, y: next((i for i, (m, n) in enumerate(zip(x.shape, y.shape, strict=True), 1) if m != n), 0)  # noqa: E731
    return jax.tree.map(grows, subject.params, larger)


def _with_other_padding(x: jax.Array, axis: int) -> jax.Array:
    if not axis:
        return x
    rows = jnp.moveaxis(x, axis - 1, 0)
    moved = np.random.default_rng(0).standard_normal(rows.shape[1:], np.float32)  # not a constant, which a norm would remove
    return jnp.moveaxis(rows.at[PAD].add(moved), 0, axis - 1)


def neighbours(subject: Subject) -> Verdict:
    """Change each pair of a packed row: the predictions of the others must stay the same."""
    if not getattr(subject.config, "packs", False):
        return does_not_apply(f"a {type(subject.config).__name__} reads one pair a row")
    batch = batch_of(random_pairs(5), [[0, 3, 1], [4, 2]], 24, 24, packed=True)
    before_BTV = subject.logits(batch)
    sides = {"encoder": SOURCE_VOCAB, "decoder": TARGET_VOCAB}
    for segment in range(1, 4):
        changes = {}
        for side, vocab in sides.items():
            tokens, mine = batch[f"{side}_input_tokens"], batch[f"{side}_segment_ids"] == segment
            changes[f"{side}_input_tokens"] = np.where(mine & (tokens >= FIRST_WORD), _other(tokens, vocab), tokens).astype(np.int32)
        changed_BT = (subject.logits(batch | changes) != before_BTV).any(-1)
        segments_BT = batch["decoder_segment_ids"]
        if changed_BT[(segments_BT > 0) & (segments_BT != segment)].any():
            return Verdict(False, f"pair {segment} of a row changes the predictions of another")
        if not changed_BT[segments_BT == segment].all():
            return Verdict(False, f"a prediction of pair {segment} of a row does not depend on its words")
    return Verdict(True, "to the bit, each of five pairs changed")
