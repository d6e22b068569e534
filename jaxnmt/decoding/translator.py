"""Text in, text out: tokenise, group by length, search, detokenise, and restore the order of the input."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import EOS
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding import rules as target_rules
from jaxnmt.decoding import unknown_words
from jaxnmt.decoding.batches import LENGTHS, Group, bucket, groups, most_rows, output_limit, pad, padded_rows, row_sizes
from jaxnmt.decoding.options import num_hypotheses, search_options
from jaxnmt.decoding.programs import Searches, in_turn
from jaxnmt.decoding.rules import Rules, TokenRules
from jaxnmt.decoding.search import NEVER, Hypotheses, LogitProcessor, SearchOptions
from jaxnmt.decoding.streaming import check_stream, growing_text
from jaxnmt.decoding.translation import Translation, by_risk, joined, of_candidates
from jaxnmt.errors import UserError
from jaxnmt.io.text import normalise
from jaxnmt.models.blocks import FEW, LatestBlocks
from jaxnmt.parallel import log
from jaxnmt.parallel.platform import platform_of
from jaxnmt.parallel.sharding import mesh_of, num_shards

if TYPE_CHECKING:
    from jaxnmt.decoding.alignments import Aligner
    from jaxnmt.decoding.lexicon import Lexicon
    from jaxnmt.models.encoder_decoder import Batch
    from jaxnmt.models.seq2seq import Seq2Seq

SENTENCE_END = re.compile(r"(?<=[.!?…]) +|(?<=[。！？]) *(?=[^。！？」』”’）])")


class Translator:
    """Translates with given parameters.

    A search is compiled once for each (rows, source length, target length) and each set of options that change the program
    (`SearchOptions`); numbers, such as the length penalty and each sentence's length limit, are arguments of the program.

    Attributes:
        reads_source: whether a line is the source.
        least_sentences: pad batches as if a call had at least this many sentences, so that the last lines of a long file reuse the programs
            of the lines before.
    """

    reads_source = True
    least_sentences = 1

    def __init__(
        self,
        model: Seq2Seq,
        params: Any,
        tokenizer: Tokenizer,
        max_length: int,
        warn: Callable[[str], None] = log.warn,
        make_lexicon: Callable[[], Lexicon] | None = None,
        cache_key: tuple[object, ...] = (),
    ) -> None:
        """Make a translator; sentences are spread over the devices that the parameters lie on.

        Args:
            model: as it decodes (`models.parameters.for_decoding`).
            params: the parameters, replicated if they lie on several devices, or sharded (`MeshSearch`).
            tokenizer: of source and target.
            max_length: source tokens, EOS included, that the model was trained on. Longer input is split.
            warn: is called with a line for people about each line of input that is split.
            make_lexicon: returns the candidates of `decoding.shortlist`, which needs it.
            cache_key: identifies the model in the cache of traced programs, see `StagedSearch`.
        """
        self.model, self._params, self.tokenizer, self.max_length = model, params, tokenizer, max_length
        self._blocks = LatestBlocks()  # which copies share
        self.warn, self.make_lexicon = warn, make_lexicon
        self._processors = functools.cache(self._make_processors)  # so that a search is compiled once
        self.mesh = mesh_of(params)
        self._cache_key = cache_key
        self._programs = functools.cache(functools.partial(Searches.of, mesh=self.mesh))
        self._narrowing = functools.cache(self._make_narrowing)
        self._origin: Translator | None = None

    @property
    def params(self) -> Any:
        """The parameters."""
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        self._params = params
        self._blocks.clear()

    def _uses_blocks(self, rows: int, decoding: cfg.Decoding) -> bool:
        """Return whether batches with this many rows are searched for with weights in `Blocks`."""
        return rows * num_hypotheses(decoding) in FEW and platform_of(self.mesh).weights_in_blocks

    def _params_for(self, uses_blocks: bool) -> Any:
        return self._blocks.of(self.params, lambda: self.model.step_weights) if uses_blocks else self.params

    def with_params(self, params: Any) -> Translator:
        """Return a translator with other parameters of the same model and layout. Both share their compiled programs."""
        other = copy.copy(self)
        other._params, other._origin = params, self
        vars(other).pop("aligner", None)  # which reads the other parameters
        return other

    def translate(
        self, lines: Sequence[str], decoding: cfg.Decoding, first: int = 1, rules: Sequence[Rules] = ()
    ) -> list[list[Translation]]:
        """Return up to `decoding.n_best` translations of each line, best first; with a temperature, samples in the order of their numbers.

        The translation of an empty line is empty. A line longer than the model can read is split at sentence ends, or else anywhere, with a
        warning.

        Args:
            lines: the sentences.
            decoding: how to search, and how many translations to return.
            first: number of the first line, for warnings.
            rules: what each line's translation must and must not contain; empty: nothing.

        Raises:
            UserError: a line's rules cannot be met, or samples or a sibling penalty are asked for beside constraints, or
                unknown words are to be replaced and the model has no attention.
        """
        _check_rules(rules, decoding)
        if decoding.mbr != "none":
            candidates = self.translate(lines, of_candidates(decoding), first, rules)
            return [by_risk(each, decoding) for each in candidates]
        aligner = self.aligner if decoding.unk == "replace" else None
        tables = [each.unk_table for each in rules] or [None] * len(lines)
        if any(tables) and not aligner:
            raise UserError(f"an unk_table has no effect with decoding.unk {decoding.unk}: set decoding.unk replace")
        pieces = [(row, part) for row, line in enumerate(lines) for part in self._parts(first + row, line.strip())]
        sentences = [ids for _, ids in pieces]
        if any(each != Rules() for each in rules):
            find = functools.partial(self._search_all, decoding)
            translated = target_rules.search(find, sentences, self._rules_of_parts(lines, pieces, rules, first), self.tokenizer)
        else:
            translated = self._search_all(decoding, sentences)
        found: list[list[list[Translation]]] = [[] for _ in lines]
        for (row, _), translations in zip(pieces, translated, strict=True):
            found[row].append(translations)
        made = [joined(parts) for parts in found]
        return unknown_words.replaced(lines, made, aligner, tables, decoding.batch_size) if aligner else made

    @functools.cached_property
    def aligner(self) -> Aligner:
        """Aligns translations with their sources.

        Raises:
            UserError: the model has no attention over the source.
        """
        from jaxnmt.decoding.alignments import Aligner  # which reads this module

        return self._origin.aligner.with_translator(self) if self._origin else Aligner(self)

    @functools.cached_property
    def lexicon(self) -> Lexicon:
        """The candidates of `decoding.shortlist`.

        Raises:
            UserError: the run has no lexicon yet, and its training data cannot be read.
        """
        if self._origin:
            return self._origin.lexicon
        if self.make_lexicon is None:
            raise UserError("decoding.shortlist needs a lexicon, which a run has and this translator has not: set it to 0")
        return self.make_lexicon()

    def _narrowed(
        self, sentences: Sequence[list[int]], decoding: cfg.Decoding, batch: Batch
    ) -> tuple[Searches, Any, Batch, Callable[[Any], np.ndarray]]:
        """Return searches, parameters and arrays for a batch, in the ids of its shortlist, and a function that turns these ids back."""
        params = self._params_for(self._uses_blocks(len(batch["encoder_input_tokens"]), decoding))
        if not decoding.shortlist:
            return self._whole, params, batch, np.asarray
        if self._processors(decoding):
            raise UserError(
                "decoding.shortlist numbers tokens anew, and the config's own logit processors know the old numbers: set it to 0"
            )
        from jaxnmt.decoding.shortlist import of_batch

        shortlist = of_batch(self.lexicon, decoding.shortlist, sentences, batch, self.tokenizer.target_vocab_size)
        width = len(shortlist.words_V)
        narrowing, cache_key = self._narrowing(width), self._cache_key and (*self._cache_key, "narrowed", width)
        return (
            self._programs(narrowing.model, cache_key),
            narrowing.params(params, shortlist.words_V),
            shortlist.batch,
            shortlist.whole,
        )

    def stream(self, line: str, decoding: cfg.Decoding, number: int = 1, rules: Rules | None = None) -> Iterator[str]:
        """Return an iterator over the text of a line's translation, which yields each piece as soon as its tokens are chosen.

        Joined, the pieces are the text that `translate` returns.

        Args:
            line: the sentence.
            decoding: how to choose each token: greedily, or by drawing it.
            number: of the line, for warnings.
            rules: what the translation must contain; None: nothing.

        Raises:
            UserError: a token that is chosen is not final; or as `translate`.
        """
        rules = rules or Rules()
        check_stream(decoding)
        _check_rules([rules], decoding)
        if rules.forbidden or rules.alternatives:
            raise UserError(f"line {number}: forbidden phrases and alternatives need whole translations, which a stream does not wait for")
        parts = self._parts(number, line.strip())
        return self._streamed(parts, decoding, self._rules_of_parts([line], [(0, ids) for ids in parts], [rules], number))

    def _streamed(self, parts: Sequence[list[int]], decoding: cfg.Decoding, rules: Sequence[TokenRules]) -> Iterator[str]:
        for part, (ids, own) in enumerate(zip(parts, rules, strict=True)):
            if part:
                yield " "
            yield from growing_text(self.tokenizer, self._hypotheses(ids, decoding, own))

    def _hypotheses(self, ids: list[int], decoding: cfg.Decoding, rules: TokenRules) -> Iterator[tuple[list[int], bool]]:
        """Yield the tokens of a sentence's translation each time that one is chosen, and whether they are all."""
        batch, extra = self._batch([ids], 1) | target_rules.arrays([rules], 1, [rules]), rules.extra_tokens
        width = batch["encoder_input_tokens"].shape[1]
        searches, params, batch, whole = self._narrowed([ids], decoding, batch)
        limits: np.ndarray = np.array([output_limit(len(ids), decoding) + extra], np.int32)
        for beams in searches.stepwise(self.options(decoding, width, extra), params, batch, limits):
            if np.asarray(beams.open_B)[0]:
                yield whole(beams.live_BWT)[0, 0].tolist(), False  # padded with PAD
            elif np.asarray(beams.done.scores_BW)[0, 0] > NEVER:
                yield whole(beams.done.tokens_BWT)[0, 0].tolist(), True

    def warm(self, decoding: cfg.Decoding) -> int:
        """Compile the search for any number of sentences of every length. Returns the number of batch shapes."""
        decoding = of_candidates(decoding)
        shapes: set[tuple[int, ...]] = set()  # pictures, and the empty source of a language model, have one length
        for length in (length for length in LENGTHS if length <= bucket(self.max_length)):
            source = self._as_source([EOS] * (length - 1))
            width = self._batch([source], 1)["encoder_input_tokens"].shape[1]
            for rows in row_sizes(most_rows(width, *self._budget(decoding)), num_shards("B", self.mesh)):
                batch = self._batch([source], rows)
                if (shape := batch["encoder_input_tokens"].shape) in shapes:
                    continue
                shapes.add(shape)
                searches, params, batch, _ = self._narrowed([], decoding, batch)
                searches.batch.warm(self.options(decoding, shape[1]), params, batch)
        return len(shapes)

    def options(self, decoding: cfg.Decoding, source_length: int, extra: int = 0) -> SearchOptions:
        """Return the options of a search, see `search_options`."""
        return search_options(decoding, source_length, extra, self._processors(decoding))

    def _make_narrowing(self, width: int) -> Any:
        from jaxnmt.decoding.shortlist import Narrowing  # which imports flax

        return Narrowing(self.model, width)

    def _make_processors(self, decoding: cfg.Decoding) -> tuple[LogitProcessor, ...]:
        """Return the logit processors of the user's own `Decoding` class."""
        make = getattr(decoding, "processors", None)
        return tuple(make(self.tokenizer)) if make else ()

    def _parts(self, number: int, line: str) -> list[list[int]]:
        """Return the tokens of a line, in as many parts as the model needs to read it."""
        ids, limit = self.tokenizer.encode_source([line])[0], self.max_length - 1
        if len(ids) <= limit:
            return [ids] if ids else []
        self.warn(f"line {number} has {len(ids)} tokens; the model reads {limit} (data.max_length): translated in parts")
        parts: list[list[int]] = []
        for sentence in self.tokenizer.encode_source(SENTENCE_END.split(line)):
            if parts and len(parts[-1]) + len(sentence) <= limit:
                parts[-1] = parts[-1] + sentence
            else:
                parts += [sentence[start : start + limit] for start in range(0, len(sentence), limit)]
        return parts

    def _rules_of_parts(self, lines, pieces, rules: Sequence[Rules], first: int) -> list[TokenRules]:
        """Return the rules of each piece of the lines."""
        found = []
        for row, parts in itertools.groupby(pieces, key=lambda piece: piece[0]):
            texts = [self.tokenizer.decode_source(ids) for _, ids in parts]
            texts = texts if len(texts) > 1 else [lines[row]]
            found += target_rules.tokenised(rules[row], texts, self.tokenizer, first + row)
        return found

    def _search_all(
        self, decoding: cfg.Decoding, sentences: Sequence[list[int]], rules: Sequence[TokenRules] = ()
    ) -> list[list[Translation]]:
        """Translate sentences in groups of similar length. Returns the results in the order given."""
        results: list[list[Translation]] = [[] for _ in sentences]
        with contextlib.closing(self._found(decoding, sentences, rules)) as each:
            for i, (tokens_WT, scores_W, _) in each:
                found = zip(tokens_WT[: decoding.n_best], scores_W, strict=False)
                some = [self._translation(sentences[i], ids.tolist(), float(score)) for ids, score in found if score > NEVER]
                if rules and rules[i].rank > 0 and not some:  # there are fewer tokens than alternatives
                    continue
                if rules and not some:
                    self.warn(f"no translation of {self.tokenizer.decode_source(sentences[i])!r} meets its constraints: it is empty")
                results[i] = some or [Translation("", NEVER, (), ((sentences[i], []),))]  # or every score is NaN
        return results

    def _found(
        self, decoding: cfg.Decoding, sentences: Sequence[list[int]], rules: Sequence[TokenRules]
    ) -> Generator[tuple[int, Hypotheses]]:
        """Yield the number of each sentence, and its hypotheses, in any order."""
        batches = self._groups(sentences, decoding, rules)
        if decoding.shortlist:
            yield from in_turn(self._narrowed_searches(sentences, decoding, batches))
        else:
            for uses_blocks, some in itertools.groupby(batches, lambda group: self._uses_blocks(len(group.limits_B), decoding)):
                yield from self._whole.batch.each(self._params_for(uses_blocks), some)

    def _groups(self, sentences: Sequence[list[int]], decoding: cfg.Decoding, rules: Sequence[TokenRules]) -> Iterator[Group]:
        """Yield groups of sentences of similar length."""
        extra = max((each.extra_tokens for each in rules), default=0)
        for group in groups([len(ids) + 1 for ids in sentences], *self._budget(decoding)):
            chosen = [sentences[i] for i in group]
            rows = self._rows(len(sentences), bucket(len(chosen[-1]) + 1), decoding)
            batch = self._batch(chosen, rows)
            width = batch["encoder_input_tokens"].shape[1]
            limits: np.ndarray = np.ones(rows, np.int32)
            limits[: len(group)] = [output_limit(len(ids), decoding) for ids in chosen]
            if rules:
                limits[: len(group)] += [rules[i].extra_tokens for i in group]
                batch |= target_rules.arrays([rules[i] for i in group], rows, rules)
            yield Group(self.options(decoding, width, extra), batch, limits, group)

    def _narrowed_searches(
        self, sentences: Sequence[list[int]], decoding: cfg.Decoding, groups: Iterator[Group]
    ) -> Iterator[tuple[list[int], Callable[[], Hypotheses]]]:
        """Start a search of each group in its own shortlist. Yields its numbers, and the function that waits for the result."""
        for options, batch, limits_B, numbers in groups:
            searches, params, batch, whole = self._narrowed([sentences[i] for i in numbers], decoding, batch)
            yield numbers, functools.partial(_finished, searches.batch.start(options, params, batch, limits_B), whole)

    def _budget(self, decoding: cfg.Decoding) -> tuple[int, int]:
        """Return how many sentences, and how many source tokens, one search takes: those of a batch, or of its part."""
        searches = self._whole.batch.searches_of(decoding.batch_size * num_hypotheses(decoding))
        return -(-decoding.batch_size // searches), -(-decoding.batch_tokens // searches)

    def _rows(self, count: int, length: int, decoding: cfg.Decoding) -> int:
        """Return the rows of a batch of this padded source length, if there are `count` sentences in all."""
        most = most_rows(length, *self._budget(decoding))
        return padded_rows(max(count, self.least_sentences), most, num_shards("B", self.mesh))

    @property
    def _whole(self) -> Searches:
        """The searches in the whole vocabulary."""
        return self._programs(self.model, self._cache_key)

    def _as_source(self, ids: list[int]) -> list[int]:
        """Return a sentence with these tokens, for `_source`."""
        return ids

    def _batch(self, sentences: Sequence[list[int]], rows: int) -> dict[str, np.ndarray]:
        """Return what the model's encoder reads."""
        return {"encoder_input_tokens": self._source(sentences, rows)}

    def _source(self, sentences: Sequence[list[int]], rows: int) -> np.ndarray:
        """Return the source tokens of a batch, one sentence a row; further rows are empty sentences."""
        return pad([[*ids, EOS] for ids in sentences], rows, EOS)

    def _translation(self, source: list[int], ids: list[int], score: float) -> Translation:
        text = normalise(self.tokenizer.decode_target(ids))  # a line end may be a token too, as a byte
        ids = ids[: ids.index(EOS)]
        return Translation(text, score, tuple(self.tokenizer.target_pieces(ids)), ((source, ids),))


def _finished(finish: Callable[[], Hypotheses], whole: Callable[[Any], np.ndarray]) -> Hypotheses:
    """Wait for a search, and return its result in the whole vocabulary."""
    found = finish()
    return found._replace(tokens_BWT=whole(found.tokens_BWT))


def _check_rules(rules: Sequence[Rules], decoding: cfg.Decoding) -> None:
    constrained = any(each.constraints or each.terminology for each in rules)
    target_rules.check_together(decoding, constrained, max((each.alternatives for each in rules), default=0))
