"""Text in, text out: tokenise, group by length, search, put words together again, in the order of the input."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.search import NEVER, Hypotheses, LogitProcessor, SearchOptions, search
from jaxnmt.io.lines import normalise
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel import compiler
from jaxnmt.parallel.distributed import is_leader
from jaxnmt.parallel.sharding import mesh_of, num_shards, per_device, replicated, to_mesh
from jaxnmt.training.checkpoint import scores
from jaxnmt.training.trained import load

LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # source positions that searches are compiled for
_SENTENCE_END = re.compile(r"(?<=[.!?…]) +|(?<=[。！？]) *(?=[^。！？」』”’）])")


class Translation(NamedTuple):
    """A translation.

    Attributes:
        score: log-probability divided by the length penalty; of a line translated in parts, their sum.
        parts: the ids of source and target, end tokens left out; more than one pair where a line was translated in parts.
    """

    text: str
    score: float
    parts: tuple[tuple[list[int], list[int]], ...] = ()


class Translator:
    """Translates with given parameters.

    A search is compiled once for each (rows, source length, room for the translation, beam size); the length penalty and each sentence's
    length limit are arguments of the program.
    """

    def __init__(
        self,
        model: Seq2Seq,
        params: Any,
        tokenizer: Tokenizer,
        max_length: int,
        processors: tuple[LogitProcessor, ...] = (),
        warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr) if is_leader() else None,
    ):
        """`max_length`: source tokens, EOS included, that the model was trained on; longer input is split or cut, with a warning.

        Sentences are spread over the devices that the parameters lie on.
        """
        self.model, self.params, self.tokenizer, self.max_length = model, params, tokenizer, max_length
        self.processors, self.warn = processors, warn
        self.mesh = mesh_of(params)
        laid = {} if self.mesh is None else {"out_shardings": replicated(self.mesh)}  # so that every process has every translation
        self._search = jax.jit(functools.partial(_search, model, self.mesh), **laid)

    @classmethod
    def from_run(cls, run: Path, checkpoint: int | str = "best") -> Translator:
        """The model of a run's checkpoint: a step, "best", "latest" or "average"; whatever mesh it was trained on.

        Raises:
            UserError: the run has no (such) checkpoint.
        """
        compiler.check()
        trained = load(run, checkpoint)
        if is_leader():
            note = " (the newest, since none has a validation score yet)" if checkpoint == "best" and not scores(run) else ""
            print(f"{trained.checkpoint} of {run}{note}", file=sys.stderr)
        return cls(trained.model, trained.params, trained.tokenizer, trained.experiment.data.max_length)

    def translate(self, lines: Sequence[str], decoding: cfg.Decoding, first: int = 1) -> list[list[Translation]]:
        """Up to `decoding.n_best` translations of each line, best first. An empty line's is empty; a line longer than the model can read
        is split at sentence ends, or else any_across_devices, with a warning that counts lines from `first`."""
        pieces = [(row, part) for row, line in enumerate(lines) for part in self._parts(first + row, line.strip())]
        found: list[list[list[Translation]]] = [[] for _ in lines]
        for (row, _), translations in zip(pieces, self._search_all([ids for _, ids in pieces], decoding), strict=True):
            found[row].append(translations)
        return [_joined(parts) for parts in found]

    def _parts(self, number: int, line: str) -> list[list[int]]:
        """The tokens of a line, in as many parts as the model needs to read it."""
        ids, limit = self.tokenizer.encode_source([line])[0], self.max_length - 1
        if len(ids) <= limit:
            return [ids] if ids else []
        self.warn(f"line {number} has {len(ids)} tokens; the model reads {limit} (data.max_length): translated in parts")
        parts: list[list[int]] = []
        for sentence in self.tokenizer.encode_source(_SENTENCE_END.split(line)):
            if parts and len(parts[-1]) + len(sentence) <= limit:
                parts[-1] = parts[-1] + sentence
            else:
                parts += [sentence[start : start + limit] for start in range(0, len(sentence), limit)]
        return parts

    def _search_all(self, sentences: Sequence[list[int]], decoding: cfg.Decoding) -> list[list[Translation]]:
        """Searches sentences in groups of similar length; results in the order given."""
        results: list[list[Translation]] = [[] for _ in sentences]
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        for start in range(0, len(order), decoding.batch_size):
            group = order[start : start + decoding.batch_size]
            length = bucket(max(len(sentences[i]) for i in group) + 1)
            rows = padded_rows(len(group), decoding.batch_size, num_shards("B", self.mesh))
            tokens: np.ndarray = np.full((rows, length), PAD, np.int32)
            limits: np.ndarray = np.ones(rows, np.int32)
            for row, i in enumerate(group):
                tokens[row, : len(sentences[i]) + 1] = [*sentences[i], EOS]
                limits[row] = output_limit(len(sentences[i]), decoding)
            tokens[len(group) :, 0] = EOS  # rows to fill the shape: empty sentences that end at once
            options = SearchOptions(decoding.beam_size, room(length, decoding), float(decoding.length_penalty), self.processors)
            hypotheses: Hypotheses = jax.device_get(self._search(options, self.params, *self._laid_out(tokens, limits)))
            for row, i in enumerate(group):
                found = zip(hypotheses.tokens_BWT[row][: decoding.n_best], hypotheses.scores_BW[row], strict=False)
                some = [self._translation(sentences[i], ids.tolist(), float(score)) for ids, score in found if score > NEVER]
                results[i] = some or [Translation("", NEVER, ((sentences[i], []),))]  # the model's scores are no numbers
        return results

    def _laid_out(self, tokens: np.ndarray, limits: np.ndarray):
        arrays = {"encoder_input_tokens": tokens, "limits": limits}
        batch = arrays if self.mesh is None else to_mesh(arrays, self.mesh)
        return batch, batch.pop("limits")

    def _translation(self, source: list[int], ids: list[int], score: float) -> Translation:
        text = normalise(self.tokenizer.decode_target(ids))  # a line end may be a token too, as a byte
        return Translation(text, score, ((source, ids[: ids.index(EOS)]),))


def _search(model: Seq2Seq, mesh: jax.sharding.Mesh | None, options: SearchOptions, params, batch, limits_B) -> Hypotheses:
    """Search on each device for its own sentences."""

    def find(replicated_arguments, batch, limits_B):
        options, params = replicated_arguments
        return search(model, options, params, batch, limits_B, mesh)

    return (find if mesh is None else per_device(find, mesh))((options, params), batch, limits_B)


def padded_rows(count: int, most: int, devices: int = 1) -> int:
    """Return the number of rows that a batch of `count` sentences is padded to: few sizes, so that few programs are compiled.

    Each device gets a power of two, at most its share of `most`, the batch size. Only the device count may take the sum above `most`.
    """
    needed, share = -(-count // devices), -(-most // devices)
    return devices * min(1 << (needed - 1).bit_length(), share)


def bucket(length: int) -> int:
    """Return the compiled source length that a length is padded to."""
    return next((size for size in LENGTHS if size >= length), -(-length // 512) * 512)


def output_limit(source_tokens: int, decoding: cfg.Decoding) -> int:
    """Return the length of the longest translation of a sentence, EOS included; a function of the sentence alone."""
    return max(1, int(decoding.max_length_ratio * source_tokens) + decoding.max_length_extra)


def room(source_length: int, decoding: cfg.Decoding) -> int:
    """Return how many tokens the compiled search of a source length has room for.

    This is what the default length limits need, doubled until it holds the limits of `decoding`: other limits seldom compile anew, and the
    defaults, which cost memory and time at each step, get no more than they need.
    """
    tokens, needed = output_limit(source_length, cfg.Decoding()), output_limit(source_length, decoding)
    while tokens < needed:
        tokens *= 2
    return tokens


def _joined(parts: list[list[Translation]]) -> list[Translation]:
    """The translations of a line from those of its parts: the k-th best of each, one after the other."""
    if not parts:
        return [Translation("", 0.0)]
    if len(parts) == 1:
        return parts[0]
    depth = min(map(len, parts))
    chosen = [[part[k] for part in parts] for k in range(depth)]
    return [
        Translation(
            " ".join(part.text for part in each), sum(part.score for part in each), tuple(pair for part in each for pair in part.parts)
        )
        for each in chosen
    ]
