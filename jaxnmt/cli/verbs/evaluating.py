"""The verb evaluate: it translates a run's test sentences and scores them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Literal

from jaxnmt.cli.verbs import workers
from jaxnmt.cli.verbs.common import NO_METRICS, Flat, leader_writer, writable
from jaxnmt.cli.verbs.members import Members, check, opened
from jaxnmt.cli.verbs.translating import Translate, translate_windows
from jaxnmt.config import Decoding, NonNegative
from jaxnmt.errors import UserError
from jaxnmt.evaluation.tokenization import METRICS, MetricName, Tokenize
from jaxnmt.parallel import distributed
from jaxnmt.parallel.log import say
from jaxnmt.run import Checkpoint
from jaxnmt.runs import directory


@dataclasses.dataclass(frozen=True)
class Evaluate(Members):
    split: Literal["test", "validation"] = "test"
    """Which of the run's own sentences."""
    data: tuple[str, ...] = ()
    """Other sentences to score on: sources, written as for data.test."""
    references: tuple[str, ...] = ()
    """Files of further reference translations of the same sentences; all are scored together."""
    target_language: str = ""
    """Code of the references' language; when empty, the run's."""
    tokenize: Tokenize = ""
    """BLEU's tokenizer, by sacreBLEU's name; when empty, chosen by the references' script and language."""
    prefix: str = ""
    """Text that every translation begins with, such as the target language's token of an imported NLLB model."""
    checkpoint: Checkpoint = "best"
    """A step, or best, latest, or average (made by `jaxnmt runs average`)."""
    output: str = ""
    """File to write the translations to."""
    metrics: tuple[MetricName, ...] = METRICS
    """Scores to print; those of captions are by default two more, cider and exact."""
    json: bool = False
    """Print the scores as JSON."""
    samples: NonNegative[int] = 0
    """Show this many sentences, the first ones, with reference and translation."""
    workers: NonNegative[int] = 1
    """Processes that translate, each on its share of this computer's cores; 0: one per core."""
    decoding: Annotated[Decoding, Flat] = dataclasses.field(default_factory=Decoding)


def evaluate(run: str, options: Evaluate) -> None:
    """Translate a run's test sentences and score them: by default BLEU, chrF++ and TER by sacreBLEU, with signatures.

    Of a run that captions pictures: CIDEr and exact match too; all captions of a picture are its references.
    Of a run that predicts labels: accuracy, macro-F1 and the expected calibration error; of several labels a text F1, of numbers the error.

    Examples:
      jaxnmt evaluate runs/quickstart
      jaxnmt evaluate runs/quickstart --split validation --beam-size 1
      jaxnmt evaluate runs/quickstart --data other.en other.fr --json True
      jaxnmt evaluate runs/one --ensemble runs/two
      jaxnmt evaluate runs/summary --metrics rouge1 rouge2 rougeL bleu
      jaxnmt evaluate runs/mine --data test.en first.de --references second.de third.de
    """
    from jaxnmt.decoding.rules import rules_of_lines  # which imports NumPy

    if not options.metrics:
        raise UserError(NO_METRICS)
    check(run, options)
    _check_for_labels(run, options)
    writable("--output", options.output)
    distributed.initialize()
    processes = workers.number(options.workers)
    used = opened(run, options)
    test = used.test_set(options.split, options.data, options.references, options.target_language, options.tokenize)
    confidences: list[float] = []
    if processes == 1 and not test.labels:
        translator = used.translator
    with leader_writer(options.output) if options.output else contextlib.nullcontext(str) as write:
        say(f"{'reading' if test.labels else 'translating'} {len(test.sources):,} sentences of {test.name}")
        if test.labels:
            predictions = used.predict(test.sources, options.decoding.batch_size)
            hypotheses, confidences = [each.label for each in predictions], [each.probability for each in predictions]
        elif processes == 1:
            rules = rules_of_lines(len(test.sources), options.prefix, (), ()) if options.prefix else ()
            hypotheses = [candidates[0].text for candidates in translator.translate(test.sources, options.decoding, rules=rules)]
        else:
            hypotheses = _in_processes(run, options, test.sources, processes)
        for hypothesis in hypotheses:
            write(hypothesis)
    if not distributed.is_leader():
        return
    names = ("source", *["reference"] * len(test.references), "prediction" if test.labels else "translation")
    for rows in list(zip(test.sources, *test.references, hypotheses, strict=True))[: options.samples]:
        print("\n".join(f"{name:<13}{text}" for name, text in zip(names, rows, strict=True)) + "\n")
    scores = test.score(hypotheses, options.metrics, confidences)
    print(json.dumps({"data": test.name, **dataclasses.asdict(scores)}, indent=2, ensure_ascii=False) if options.json else scores)


def _check_for_labels(run: str, options: Evaluate) -> None:
    """Check that no option is given that a run of labels or numbers has no use for.

    Raises:
        UserError: one is.
    """
    plain, task = Evaluate(), directory.read(run).task
    for name in ("references", "target_language", "tokenize", "prefix", "metrics", "workers", "ensemble") if task.is_label else ():
        if getattr(options, name) != getattr(plain, name):
            raise UserError(f"--{name.replace('_', '-')} is for translations, and {run} was trained for the task {type(task).__name__}")


def _in_processes(run: str, options: Evaluate, sources: Sequence[str], processes: int) -> list[str]:
    """Return the best translation of each sentence, made by several processes."""
    members = {field.name: getattr(options, field.name) for field in dataclasses.fields(Members)}
    best = dataclasses.replace(options.decoding, n_best=1)
    given = Translate(prefix=options.prefix, checkpoint=options.checkpoint, decoding=best, **members)
    size = best.batch_size * workers.WINDOW
    windows = workers.numbered(list(sources[start : start + size]) for start in range(0, len(sources), size))
    with contextlib.closing(translate_windows(run, given, windows, processes)) as parts:
        return [line for lines, _ in parts for line in lines]
