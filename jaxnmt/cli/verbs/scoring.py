"""The verb `score`: log-probabilities of given translations, and filtering by them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from jaxnmt.config import Language, Positive
from jaxnmt.errors import UserError
from jaxnmt.io import streams
from jaxnmt.io.pairs import read_pairs, read_texts
from jaxnmt.parallel.log import say
from jaxnmt.run import Checkpoint, Run
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from jaxnmt.decoding.scoring import ScoredPair, Totals

WINDOW = 16  # batches that are read at a time, and whose pairs are grouped by length


@dataclasses.dataclass(frozen=True)
class Scoring:
    output: str = ""
    """File to write, whole or not at all; stdout if empty or -."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    batch_size: Positive[int] = 64
    """Pairs scored together."""
    json: bool = False
    """Write a JSON object for each pair."""
    tokens: bool = False
    """Write a JSON object for each pair, with the log-probability of each target token."""
    alignments: Literal["none", "hard", "soft"] = "none"
    """hard: add the pair's word alignment, `0-0 2-1` (source-target, from 0), as the last column; soft: write a JSON object for each pair,
    with source and target words, and weights."""
    minimum: float | None = None
    """Filter: write `source TAB target` of the pairs whose mean log-probability (with --reverse: dual score) is at least this."""
    reverse: str = ""
    """A run of the other direction: adds its log-probabilities and the dual conditional cross-entropy score (Junczys-Dowmunt 2018)."""


def score(run: str, source: str, target: str | None, options: Scoring) -> None:
    """Score given translations by a teacher-forced pass. For each pair, write `log-probability TAB mean per token TAB tokens`.

    SOURCE and TARGET are files with one sentence a line, plain or compressed; - is stdin. Without TARGET, each line of SOURCE is
    `source TAB target`. The tokens include the end token. The perplexity per token of all pairs is printed to stderr. A pair without a
    source, or with a side that is too long for the model, has the score nan.

    Of a language model, which has no source, SOURCE has the texts.

    With --reverse, four columns follow: log-probability, mean and tokens of the reverse run, and the dual score between 0 and 1.

    With --alignments hard, the pair's word alignment follows; with soft, each line is a JSON object with the words of both sides and the
    weights: one row per target word, with its attention on each source word.

    Examples:
      jaxnmt score runs/quickstart a.en a.fr
      jaxnmt score runs/quickstart a.en a.fr --tokens
      jaxnmt score runs/quickstart a.en a.fr --alignments hard
      jaxnmt score runs/quickstart pairs.tsv --minimum -1.5 --output kept.tsv
      paste a.en a.fr | jaxnmt score runs/en-fr - --reverse runs/fr-en --minimum 0.1
    """
    _check(run, options)
    pairs = _texts(run, source, target) or read_pairs(source, target)
    with streams.line_writer(options.output) as write:
        from jaxnmt.decoding.scoring import Totals

        opened = Run(run, options.checkpoint)
        scorer, aligner = opened.scorer, opened.aligner if options.alignments != "none" else None
        reverse = Run(options.reverse).scorer if options.reverse else None
        done = kept = 0
        totals, reverse_totals = Totals(), Totals()
        while window := list(itertools.islice(pairs, options.batch_size * WINDOW)):
            sources, targets = zip(*window, strict=True)
            scored = scorer.score(sources, targets, options.batch_size, done + 1, reverse, aligner)
            for number, (texts, pair) in enumerate(zip(window, scored, strict=True), done + 1):
                totals.add(pair)
                if pair.reverse:
                    reverse_totals.add(pair.reverse)
                if options.minimum is None:
                    write(_line(number, pair, options))
                elif pair.score >= options.minimum:
                    write("\t".join(texts))
                    kept += 1
            done += len(window)
            say(f"{done:,} pairs scored")
    say(_summary(done, totals))
    if reverse:
        say(f"{options.reverse}: {_summary(done, reverse_totals)}")
    if options.minimum is not None:
        say(f"kept {kept:,} of {done:,} pairs: those with a score of at least {options.minimum:g}")


def _texts(run: str, source: str, target: str | None) -> Iterator[tuple[str, str]] | None:
    """Return the lines of SOURCE as targets, if the run is a language model; None if it is not."""
    if not isinstance(directory.read(directory.folder(run)).task, Language):
        return None
    if target is not None:
        raise UserError(f"{run} is a language model, which scores texts and not pairs: leave out TARGET")
    return read_texts(source)


def _check(run: str, options: Scoring) -> None:
    """Check what can be known before JAX is imported.

    Raises:
        UserError: a run does not exist, both translate the same way, or options contradict each other.
    """
    folders = [directory.folder(name) for name in (run, options.reverse) if name]
    data = [directory.read(folder).data for folder in folders]
    if options.minimum is not None and (options.json or options.tokens or options.alignments != "none"):
        raise UserError(
            "--minimum writes the pairs that are kept, without scores: leave out --json, --tokens and --alignments, or --minimum"
        )
    if options.reverse:
        from jaxnmt.data.identity import languages

        forward, reverse = (languages(folder, each) for folder, each in zip(folders, data, strict=True))
        if all(forward) and forward == reverse != forward[::-1]:
            raise UserError(
                f"--reverse {options.reverse} translates {forward[0]} to {forward[1]}, as {run} does: "
                f"name a run that translates {forward[1]} to {forward[0]}"
            )


def _line(number: int, pair: ScoredPair, options: Scoring) -> str:
    if options.json or options.tokens or options.alignments == "soft":
        dual = {"reverse": _values(pair.reverse, options.tokens), "score": _number(pair.score)} if pair.reverse else {}
        return json.dumps({"pair": number} | _values(pair, options.tokens) | dual | _links(pair, options), ensure_ascii=False)
    columns = [f"{each.log_prob:.4f}\t{each.mean:.4f}\t{len(each.tokens)}" for each in (pair, pair.reverse) if each]
    columns += [f"{pair.score:.6f}"] if pair.reverse else []
    return "\t".join([*columns, *_links(pair, options).values()])


def _links(pair: ScoredPair, options: Scoring) -> dict[str, Any]:
    if not pair.alignment:
        return {}
    return {"alignment": pair.alignment.pharaoh()} if options.alignments == "hard" else pair.alignment.values()


def _values(pair: ScoredPair, tokens: bool) -> dict[str, Any]:
    values = {"log_prob": _number(pair.log_prob), "mean": _number(pair.mean), "num_tokens": len(pair.tokens)}
    return values | ({"tokens": pair.tokens, "token_log_probs": [*map(_number, pair.token_log_probs)]} if tokens else {})


def _number(value: float) -> float | None:
    """Return a number for JSON, which has neither NaN nor infinity."""
    return round(value, 6) if math.isfinite(value) else None


def _summary(pairs: int, totals: Totals) -> str:
    missing = f"; {pairs - totals.pairs:,} pairs have no score" if pairs > totals.pairs else ""
    counts = f"{totals.tokens:,} tokens of {totals.pairs:,} pairs"
    return f"{counts}: log-probability {totals.log_prob:.4f}, perplexity per token {totals.perplexity:.4f}{missing}"
