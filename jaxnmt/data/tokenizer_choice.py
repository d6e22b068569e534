"""Choose the tokenizer of a run: that of the settings or of `init.from`, one trained earlier on the same text, or a new one."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from jaxnmt import config
from jaxnmt.data import shards
from jaxnmt.data.cleaning import Reason, clean, rules_of
from jaxnmt.data.source import Source
from jaxnmt.data.tokenizer import Tokenizer, joiner_of, load_tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.io.text import decode

Say = Callable[[str], None]
"""Receives one line for the user."""

WAITING = "another process is preparing the same data: waiting for it"
FORMAT = 1
"""Increase it when the same text would be prepared differently (cleaning included): older caches are not used then."""


def cache_key(experiment: config.Experiment, sources: Sequence[Source], **settings) -> str:
    """Return the fingerprint of what is made from the sources with these settings."""
    texts = [source.fingerprint() for source in sources]
    ingredients = {"format": FORMAT, "texts": texts, "cleaning": dataclasses.asdict(rules_of(experiment)), **settings}
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]


def choose_tokenizer(experiment: config.Experiment, sources: Sequence[Source], cache: Path, say: Say) -> Tokenizer:
    """Return the tokenizer that the settings name, that of the run `init.from`, one trained earlier on the same text, or a new one."""
    options, task = experiment.tokenizer, experiment.task
    labels = {"labels": task.labels} if isinstance(task, config.Classification) else {}
    given, half = _given(experiment), _trains_other_side(experiment)
    pictures = task.vectors
    if labels or pictures or not task.pairs or half:
        options = dataclasses.replace(options, joint=True)  # of one side
    if given:
        options = config.replace(options, normalization=given.normalization)
        whose = f"the {experiment.init.only}'s" if half else "the"
        say(f"{whose} vocabulary is that of {experiment.init.from_}, which tokenizer.vocab_size does not change")
    if (given or options.model) and not (half or labels or pictures):
        return given or train_tokenizer(options, ())
    more: dict[str, Any] = labels | ({"pictures": True} if pictures else {})
    more |= {"given": given.fingerprint(), "only": experiment.init.only} if given else {}
    key = cache_key(experiment, sources, tokenizer=dataclasses.asdict(options), trainer=sentencepiece.__version__, **more)
    cached = cache / "tokenizers" / key
    with files.lock(cached.with_suffix(".lock"), say, WAITING):
        if (cached / "tokenizer.json").exists():
            return load_tokenizer(cached)
        tokenizer = given if given and not half else _train(experiment, options, sources, say)
        if given and half:
            tokenizer = given.with_target(tokenizer) if experiment.init.only == "encoder" else tokenizer.with_target(given)
        if labels:
            tokenizer = tokenizer.with_labels((decode(label) for source in sources for _, label in source.pairs()), labels["labels"])
        if pictures:
            tokenizer = tokenizer.with_pictures()
        tokenizer.save(cached)
        return tokenizer


def _train(experiment: config.Experiment, options: config.Tokenizer, sources: Sequence[Source], say: Say) -> Tokenizer:
    """Return a tokenizer that is trained on the sources, or on the side that `init.from` has no vocabulary for."""
    began, pairs, half = time.monotonic(), min(sum(map(len, sources)), options.max_sentences), _trains_other_side(experiment)
    side = int(experiment.init.only == "encoder")
    sides = shards.SIDES[side] if half else "joint" if options.joint else "separate"
    say(f"training a tokenizer ({options.kind}, {sides}) on {pairs:,} pairs")
    sample: Iterable[tuple[str, str]] = () if options.model else _sample(experiment, sources)
    if half:
        sample = ((pair[side], "") for pair in sample)
    tokenizer = train_tokenizer(options, sample)
    is_smaller = options.vocab_size not in (0, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    requested = f" ({options.vocab_size:,} were requested)" if is_smaller else ""
    say(f"tokenizer: {sizes_of(tokenizer)} tokens{requested}, {time.monotonic() - began:.1f} s")
    return tokenizer


def _trains_other_side(experiment: config.Experiment) -> bool:
    """Return whether only one side's vocabulary is that of `init.from`: two are wanted, and either the encoder or the decoder is taken."""
    kinds = experiment.task.is_label or experiment.tokenizer.joint or not experiment.task.pairs
    init = experiment.init
    return bool(init.from_) and init.vocabulary == "keep" and init.only != "all" and not kinds


def _given(experiment: config.Experiment) -> Tokenizer | None:
    """Return the tokenizer of the run that `init.from` names; None if it names none, or `init.vocabulary` is map.

    Raises:
        UserError: it is missing, or the settings contradict it.
    """
    run, options = experiment.init.from_, experiment.tokenizer
    if not run:
        return None
    given, task = load_tokenizer(files.to_path(run) / "tokenizer"), experiment.task
    taken = experiment.init.only if _trains_other_side(experiment) else "all"
    two_texts = task.pairs and not task.vectors and not task.is_label  # of which one can have a vocabulary of its own
    other_side = "set tokenizer.joint to False and init.only to"
    if given.reads_pictures and not task.vectors and taken != "decoder":
        way = f"{other_side} decoder" if two_texts else "choose a run that reads texts"
        raise UserError(f"init.from {run} reads pictures and has no vocabulary for texts: {way}")
    if given.has_labels and not task.is_label and taken != "encoder":
        way = f"{other_side} encoder" if two_texts else "choose a run that writes texts"
        raise UserError(f"init.from {run} predicts labels and has no vocabulary for target texts: {way}")
    if (options.kind == "words", joiner_of(options)) != (given.pretokenized, given.joiner):
        kind = f"words and tokenizer.joiner to {given.joiner!r}" if given.pretokenized else "unigram"
        raise UserError(f"init.from {run} brings its vocabulary, which tokenizer.kind {options.kind} does not fit: set it to {kind}")
    if experiment.init.vocabulary == "map":
        return None
    if given.joint != options.joint and not (task.is_label or task.vectors or _trains_other_side(experiment)):
        brought = "one vocabulary for both sides" if given.joint else "a vocabulary for each side"
        other = ", or init.only to encoder, and the target gets a vocabulary of its own" if given.joint else ""
        raise UserError(f"init.from {run} brings {brought}, and tokenizer.joint is {options.joint}: set it to {given.joint}{other}")
    return given


def sizes_of(tokenizer: Tokenizer) -> str:
    """Return the sizes of both vocabularies, or one if they are equal. Pictures have no vocabulary."""
    sizes = (tokenizer.target_vocab_size,) if tokenizer.reads_pictures else (tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    return " and ".join(f"{size:,}" for size in dict.fromkeys(sizes))


def _sample(experiment: config.Experiment, sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    """Yield about `tokenizer.max_sentences` cleaned pairs, spread evenly over all sources; without targets if these are no other text."""
    both = experiment.task.pairs and not experiment.task.is_label and not experiment.task.vectors
    count, total = experiment.tokenizer.max_sentences, sum(map(len, sources))
    pairs = itertools.chain.from_iterable(source.pairs() for source in sources)
    for index, pair in enumerate(pairs):
        if index * count // total != (index + 1) * count // total:
            cleaned = clean(pair, rules_of(experiment), experiment.tokenizer.normalization)
            if not isinstance(cleaned, Reason):
                yield cleaned if both else (cleaned[experiment.task.vectors], "")
