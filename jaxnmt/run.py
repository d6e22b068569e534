"""The Python interface of a run: `load` it, and use it. JAX is imported when a model is needed, not before."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from jaxnmt.config import Input, checks
from jaxnmt.decoding_run import DecodingRun
from jaxnmt.errors import UserError
from jaxnmt.evaluation.tokenization import METRICS, MetricName
from jaxnmt.training.trained import Checkpoint as Checkpoint
from jaxnmt.training.trained import Weights as Weights

if TYPE_CHECKING:
    from jaxnmt.decoding.alignments import Alignment
    from jaxnmt.decoding.predictor import Prediction
    from jaxnmt.decoding.scoring import ScoredPair
    from jaxnmt.decoding.translation import Translation
    from jaxnmt.evaluation.scores import MetricResult, Scores, TestName
    from jaxnmt.evaluation.test_sets import TestSet


def load(folder: str | pathlib.Path, checkpoint: Checkpoint = "best", trust: bool = False, weights: Weights = "trained") -> Run:
    """Open a trained run by its folder. The parameters are read when they are first used.

    Args:
        folder: the run's folder, local or in a bucket (gs://).
        checkpoint: a step, "best" (by validation.metric), "latest", or "average" (of several, see `Run.average`).
        trust: execute the code of a run's own model although this computer has not trained it.
        weights: "int8" for a quarter of the memory, and faster products on CPUs that have instructions for them; "bfloat16" for GPUs and
            TPUs; "trained": as they are in the checkpoint.

    Raises:
        UserError: the folder is not a run, has no such checkpoint, its model's code is not trusted, or its model has no such weights.
    """
    run = Run(folder, checkpoint, trust, weights)
    run.checkpoint  # noqa: B018  a checkpoint that does not exist is reported now
    return run


class Run(DecodingRun):
    """A trained model, and the folder in which training keeps it.

    Attributes:
        folder: the run's folder.
        config: its experiment.
        weights: the type of the weights in decoding, see `load`.
    """

    @overload
    def translate(self, text: str, **options: Any) -> Translation: ...
    @overload
    def translate(self, text: Sequence[str], **options: Any) -> list[Translation]: ...
    def translate(
        self,
        text: str | Sequence[str],
        *,
        prefix: str | Sequence[str] = "",
        alternatives: int = 0,
        constraints: Sequence[str] | Sequence[Sequence[str]] = (),
        forbidden: Sequence[str] | Sequence[Sequence[str]] = (),
        terminology: str | pathlib.Path = "",
        unk_table: str | pathlib.Path = "",
        format: Literal["text", "html"] = "text",  # noqa: A002  the flag's name
        protect: bool = False,
        max_input: int = 0,
        **decoding: Any,
    ) -> Any:
        """Translate a sentence or a list of sentences.

        Args:
            text: a sentence, or several.
            prefix: text that the translation begins with; one for all sentences, or a list with one for each.
            alternatives: return the translations that begin with the prefix and, after it, with each of this many tokens, the likeliest
                ones there; 0: return the best translation.
            constraints: phrases that must occur in the translation; of "a|b", one must. For all sentences, or a list of phrases for each.
            forbidden: phrases that must not occur in the translation, given likewise.
            terminology: a file of lines `source phrase TAB target phrase`: the second must occur if the sentence has the first.
            unk_table: a file of lines `source word TAB target word`, with which unk="replace" replaces unknown words; others are copied.
            format: "html" carries inline tags over to the words of the translation by word alignment.
            protect: keep placeholders (`%s`, `{name}`), URLs and e-mail addresses.
            max_input: translate a sentence in parts if it has more than this many tokens; 0: as many as `data.max_length`.
            decoding: fields of `Decoding`, such as beam_size=8; the others are as the run's config says.

        Returns:
            A `Translation` for a sentence, a list of them for a list. If n_best is above 1, or with alternatives, each is a list of
            translations, best first.

        Raises:
            UserError: a field does not exist, its value is invalid, a rule of a translation cannot be met; or `format` is "html" and
                the model has no attention.
        """
        from jaxnmt.decoding.rules import Rules, check_together, rules_of_lines
        from jaxnmt.decoding.terminology import read_terminology

        settings, given, lines = self.decoding(decoding), Input(format, protect, max_input), [text] if isinstance(text, str) else text
        checks.check_input(given)
        check_together(settings, bool(constraints or terminology), alternatives)
        files = {"terminology": terminology, "unk_table": unk_table}
        tables: dict[str, Any] = {name: read_terminology(str(file), name) for name, file in files.items() if file}
        rules = rules_of_lines(len(lines), prefix, constraints, forbidden, Rules(**tables, alternatives=alternatives))
        found = self.translator_of(given).translate(lines, settings, rules=rules)
        best = found if settings.n_best > 1 or alternatives else [candidates[0] for candidates in found]
        return best[0] if isinstance(text, str) else best

    def translate_document(self, file: str | pathlib.Path, overwrite: bool = False, **options: Any) -> bytes:
        """Translate a document, and return it with its translations; all else of it stays as it is.

        Args:
            file: a file in PO, XLIFF (1.2 or 2), HTML or plain text; its suffix says which.
            overwrite: also translate entries of PO and XLIFF that have a translation.
            options: as `translate` takes them, apart from alternatives, format and protect; placeholders are always kept.

        Raises:
            UserError: the file cannot be read, an option is invalid, or the document has tags and the model has no attention.
        """
        from jaxnmt.data import identity
        from jaxnmt.decoding.documents import open_document

        document = open_document(file, overwrite, identity.languages(self.folder, self.config.data))
        best = self.translate(document.lines, **options | {"n_best": 1, "format": document.format, "protect": True})
        return document.written([each.text for each in best])

    @overload
    def predict(self, text: str, batch_size: int = 64) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, text: Sequence[str], batch_size: int = 64) -> list[Prediction]: ...
    def predict(self, text: str | Sequence[str], batch_size: int = 64) -> Any:
        """Predict the label, the labels or the number of a text or of a list of texts.

        Args:
            text: a text, or several. A longer one than `data.max_length` is cut.
            batch_size: texts that are read together; no prediction depends on it.

        Raises:
            UserError: the run was trained for another task.
        """
        found = self.predictor.predict([text] if isinstance(text, str) else text, batch_size)
        return found[0] if isinstance(text, str) else found

    def stream(
        self,
        text: str,
        *,
        prefix: str = "",
        constraints: Sequence[str] = (),
        terminology: str | pathlib.Path = "",
        max_input: int = 0,
        **decoding: Any,
    ) -> Iterator[str]:
        """Translate a sentence, and yield each piece of the text as soon as its tokens are chosen: greedily, or drawn.

        Joined, the pieces are the text that `translate` returns with beam_size=1.

        Args:
            text: a sentence.
            prefix: text that the translation begins with.
            constraints: as `translate` takes them for one sentence.
            terminology: as `translate` takes it.
            max_input: as `translate` takes it.
            decoding: fields of `Decoding`, such as temperature=1; beam_size and n_best are 1.

        Raises:
            UserError: as `translate`; or beam_size or n_best is above 1.
        """
        from jaxnmt.decoding.rules import Rules, rules_of_lines
        from jaxnmt.decoding.terminology import read_terminology

        settings = self.decoding({"beam_size": 1, "n_best": 1, "mbr": "none"} | decoding)
        given = Input(max_input=max_input)
        checks.check_input(given)
        terms = read_terminology(str(terminology), "terminology") if terminology else None
        (rules,) = rules_of_lines(1, prefix, constraints, (), Rules(terminology=terms))
        translator: Any = self.translator_of(given)
        return translator.stream(text, settings, rules=rules)

    @overload
    def align(self, text: str, **decoding: Any) -> Alignment: ...
    @overload
    def align(self, text: Sequence[str], **decoding: Any) -> list[Alignment]: ...
    def align(self, text: str | Sequence[str], **decoding: Any) -> Any:
        """Translate, and return the attention of each target word over the source words: `Alignment.weights_TS`.

        Args:
            text: a sentence, or several; the best translation of each is aligned.
            decoding: fields of `Decoding`, as `translate` takes them.

        Raises:
            UserError: as `translate`; or the model has no attention over the source.
        """
        lines, settings = [text] if isinstance(text, str) else text, self.decoding(decoding)
        candidates = [[best] for best in self.translate(lines, **decoding | {"n_best": 1})]
        found = [best for (best,) in self.aligner.align(lines, candidates, settings.batch_size)]
        return found[0] if isinstance(text, str) else found

    @overload
    def score(  # type: ignore[overload-overlap]  # a str is a Sequence[str], too
        self, sources: str, targets: str, reverse: Run | None = None, batch_size: int = 64, alignments: bool = False
    ) -> ScoredPair: ...
    @overload
    def score(
        self, sources: Sequence[str], targets: Sequence[str], reverse: Run | None = None, batch_size: int = 64, alignments: bool = False
    ) -> list[ScoredPair]: ...
    def score(self, sources: Any, targets: Any, reverse: Run | None = None, batch_size: int = 64, alignments: bool = False) -> Any:
        """Return the log-probabilities of given translations, by a teacher-forced pass.

        Args:
            sources: a sentence, or several.
            targets: its translation, or theirs.
            reverse: a run of the other direction, for the dual conditional cross-entropy score.
            batch_size: pairs scored together; no score depends on it.
            alignments: also align the words of each pair: `ScoredPair.alignment`.

        Raises:
            UserError: there are not as many targets as sources; or the pairs are to be aligned, and the model has no attention.
        """
        single = isinstance(sources, str) and isinstance(targets, str)
        sources, targets = ([side] if isinstance(side, str) else side for side in (sources, targets))
        if len(sources) != len(targets):
            raise UserError(f"there are {len(sources):,} sources and {len(targets):,} targets: give one target for each source")
        scorer, aligner = self.scorer, self.aligner if alignments else None
        found = scorer.score(sources, targets, batch_size, reverse=reverse.scorer if reverse else None, aligner=aligner)
        return found[0] if single else found

    def evaluate(self, test: TestSet | None = None, metrics: Sequence[MetricName] = METRICS, **decoding: Any) -> Scores:
        """Translate test sentences and return BLEU, chrF++ and TER, or other scores.

        Args:
            test: the sentences, such as `test_set("validation")`; None: `test_set()`.
            metrics: "bleu", "chrf", "chrf++", "ter", "rouge1", "rouge2", "rougeL", "cider" or "exact"; for captions the last two are
                added to the default ones; of labels and numbers there are others, and all.
            decoding: fields of `Decoding`, as `translate` takes them.

        Raises:
            UserError: the sentences cannot be read, or as `translate`.
        """
        self.decoding(decoding)  # a mistake in it is reported before the sentences are read
        test = test or self.test_set()
        if test.labels:
            found = self.predict(test.sources)
            return test.score([each.label for each in found], metrics, [each.probability for each in found])
        return test.score([best.text for best in self.translate(test.sources, **decoding | {"n_best": 1})], metrics)

    def test_set(
        self,
        split: Literal["test", "validation"] = "test",
        data: str | Sequence[str] = (),
        references: str | Sequence[str] = (),
        target_language: str = "",
        tokenize: str = "",
    ) -> TestSet:
        """Return sentences with their references, for `evaluate` and `TestSet.score`.

        Args:
            split: the run's test sentences, for which its validation sentences serve if it has none; or its validation sentences.
            data: other sources, written as `data.test`.
            references: files of further reference translations of the same sentences.
            target_language: code of the references' language; empty: the run's.
            tokenize: sacreBLEU's tokenizer for BLEU; empty: chosen by the references' script and language.

        Raises:
            UserError: the sentences cannot be read, or a file does not have exactly one line per sentence.
        """
        from jaxnmt.evaluation.test_sets import open_test_set

        return open_test_set(self.config, self.folder, split, _words(data), _words(references), target_language, tokenize)

    def compare(
        self,
        *others: Run,
        split: Literal["test", "validation"] = "test",
        metrics: Sequence[MetricName] = METRICS,
        test: TestName = "paired-bootstrap",
        samples: int = 0,
    ) -> tuple[MetricResult, ...]:
        """Compare this run, the baseline, with others on its test sentences; each run decodes as its own config says.

        Args:
            others: the runs to compare with this one.
            split: "test" or "validation": which of this run's sentences.
            metrics: as `evaluate` takes them; of labels and numbers always accuracy, F1 or the mean absolute error.
            test: "paired-bootstrap" or "approximate-randomisation".
            samples: resamples or trials; 0: sacreBLEU's 1,000 or 10,000.

        Returns:
            For each metric an `Estimate` of each run: score, 95 % interval, and the p of its difference from the baseline.

        Raises:
            UserError: the test sentences cannot be read.
        """
        from jaxnmt.evaluation import labels
        from jaxnmt.evaluation.scores import paired

        sentences = self.test_set(split)
        made = [run.translations(sentences.sources) for run in (self, *others)]
        if sentences.labels:
            return labels.paired(sentences.labels, made, sentences.references[0], test, samples)
        return paired(made, sentences.known, sentences.metrics(metrics), test, sentences.tokenize, samples)

    def translations(self, sources: Sequence[str], **decoding: Any) -> list[str]:
        """Return the best translation, or the label, of each sentence. The run's folder keeps them for the next time."""
        from jaxnmt.evaluation import translations

        decoding |= {"n_best": 1}

        def make() -> list[str]:
            if self.config.task.is_label:
                return [each.label for each in self.predict(sources)]
            return [best.text for best in self.translate(sources, **decoding)]

        contents = ""
        if self.config.task.vectors:
            from jaxnmt.data import pictures, prepared

            contents = pictures.contents(sources, prepared.cache_folder(self.config.data) / "texts")
        return translations.kept(self.folder, self._found, self.weights, sources, self.decoding(decoding), make, contents)


def _words(words: str | Sequence[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)
