"""A study's results, gathered from what its jobs have left: means and deviations over seeds, at any time."""

from __future__ import annotations

import csv
import io
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnmt.config.files import changed_fields
from jaxnmt.evaluation.significance import over_runs
from jaxnmt.evaluation.test_sets import TestSet, open_test_set
from jaxnmt.lab.ablations import study as studies
from jaxnmt.lab.ablations.study import Job, Study
from jaxnmt.lab.ablations.worker import chosen_rate, read_result
from jaxnmt.lab.compare import as_read


class Mean(NamedTuple):
    """Mean and sample standard deviation of as many values; the deviation of a single one is 0."""

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.runs == 1 else f"{self.mean:.2f} ± {self.deviation:.2f}"


class Row(NamedTuple):
    """A variant's results.

    Attributes:
        differs: what sets it apart from the parent.
        learning_rate: that its runs trained with.
        runs: how many of its runs are finished, and which folders they are in.
        steps, flops: of a run, made; planned while none is finished (0: nobody knows).
        bleu, chrf, ter: on the test sentences; None while nothing is finished.
        perplexity: of the last steps in training, of reference words, dropout on; a model that has seen what it is to predict is near 1.
        target_tokens, seconds: of all its runs together.
        p: how likely a difference in BLEU from the parent as large as this one is by chance, corrected for the number of variants
            (Holm 1979); None for the parent, and while runs are missing.
    """

    variant: str
    differs: str
    parameters: int
    flops: float
    learning_rate: float | None
    steps: int
    runs: tuple[pathlib.Path, ...]
    bleu: Mean | None
    chrf: Mean | None
    ter: Mean | None
    perplexity: Mean | None
    target_tokens: float
    seconds: float
    p: float | None

    @property
    def tokens_per_second(self) -> float:
        return self.target_tokens / self.seconds if self.seconds else 0.0


def gather(study: Study, folder: pathlib.Path, sizes: dict[str, Any]) -> list[Row]:
    """A row for each variant, in the study's order; `sizes` as `budgets.measure` finds them."""
    p_values = significance(study, folder)
    return [_row(study, folder, variant, sizes[variant], p_values.get(variant)) for variant in study.variants]


def significance(study: Study, folder: pathlib.Path) -> dict[str, float]:
    """Paired bootstrap of BLEU against the parent (Koehn 2004), Holm's correction; a sentence is drawn with all seeds' translations of it.

    Variants with a run missing, or with other test sentences than the parent's, are left out.
    """
    whole = {name: made for name, made in translations(study, folder).items() if len(made) == len(study.seeds)}
    if len(whole) < 2 or study.parent not in whole:
        return {}
    test = test_set(study, folder)
    bleu = over_runs(list(whole.values()), test.references, test.tokenize)
    return {name: e.p_holm for name, e in zip(whole, bleu.estimates, strict=True) if e.p_holm is not None}


def translations(study: Study, folder: pathlib.Path) -> dict[str, list[list[str]]]:
    """Of the test sentences, by the finished runs of each variant that has some.

    Variants with other test sentences than the parent's are left out.
    """
    parent = study.variants[study.parent]
    tested = ["data.test", "data.validation", "data.train", "data.held_out", "data.source_language", "data.target_language"]
    if not parent.data.test and not parent.data.validation:  # then what is held out depends on what is dropped
        tested += ["data.max_length", "data.cleaning", "tokenizer"]
    apart = {name: changed_fields(parent, e) for name, e in study.variants.items()}
    alike = [name for name, fields in apart.items() if not any(field.startswith(tuple(tested)) for field in fields)]
    files = {name: [folder / job.folder / "test.txt" for job in _finished(study, folder, name)] for name in alike}
    return {name: [file.read_text(encoding="utf-8").split("\n")[:-1] for file in each] for name, each in files.items() if each}


def test_set(study: Study, folder: pathlib.Path) -> TestSet:
    """The parent's test sentences, as people read them; something that shares them is finished."""
    name = next(iter(translations(study, folder)))
    test = open_test_set(study.variants[name], folder / _finished(study, folder, name)[0].folder / "run", "test")
    return as_read(test, study.variants[name], test.normalization)


def _finished(study: Study, folder: pathlib.Path, variant: str) -> list[Job]:
    jobs = [Job(variant, seed) for seed in study.seeds]
    return [job for job in jobs if read_result(folder, job) is not None]


def _row(study: Study, folder: pathlib.Path, variant: str, size: Any, p: float | None) -> Row:
    done = _finished(study, folder, variant)
    results = [result for job in done if (result := read_result(folder, job)) is not None]
    scores = [[metric["value"] for metric in result["test"]["metrics"]] for result in results]
    bleu, chrf, ter = (mean([score[i] for score in scores]) for i in range(3))
    own = study.variants[variant].schedule.learning_rate
    planned = 0 if study.budget.unit == "minutes" else size.steps(study.budget)  # what a clock will allow nobody knows
    steps = round(statistics.fmean(result["steps"] for result in results)) if results else planned
    return Row(
        variant=variant,
        differs=_told(studies.differences(study, variant)),
        parameters=size.parameters,
        flops=size.flops * size.tokens * steps / size.epoch_steps,
        learning_rate=chosen_rate(study, folder, variant) if study.learning_rates else own,
        steps=steps,
        runs=tuple(folder / job.folder for job in done),
        bleu=bleu,
        chrf=chrf,
        ter=ter,
        perplexity=mean([found for result in results if (found := result["training_perplexity"]) is not None]),
        target_tokens=sum(result["target_tokens"] for result in results),
        seconds=sum(result["seconds"] for result in results),
        p=p,
    )


def mean(values: Sequence[float]) -> Mean | None:
    """None of no values."""
    if not values:
        return None
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


def _told(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{field.removeprefix('model.')} {new}" for field, (_, new) in differences.items())


MEANS = ("bleu", "chrf", "ter", "perplexity")  # the fields of a row that are means over runs
HEADINGS = ("variant", "BLEU", "p", "chrF++", "TER", "training ppl", "runs", "parameters", "TFLOP", "steps", "rate", "minutes", "tokens/s")


def cells(row: Row, seeds: int) -> list[str]:
    """A row's cells under `HEADINGS`."""
    return [
        row.variant,
        str(row.bleu or "–"),
        "–" if row.p is None else f"{row.p:.3f}",
        *(str(value or "–") for value in (row.chrf, row.ter, row.perplexity)),
        f"{len(row.runs)} of {seeds}",
        f"{row.parameters:,}",
        f"{row.flops / 1e12:,.3g}" if row.steps else "–",
        f"{row.steps:,}" if row.steps else "–",
        f"{row.learning_rate:g}" if row.learning_rate else "–",
        f"{row.seconds / 60 / len(row.runs):.1f}" if row.runs else "–",
        f"{row.tokens_per_second:,.0f}",
    ]


def markdown(study: Study, rows: Sequence[Row]) -> str:
    """The table, as Markdown."""
    lines = [cells(row, len(study.seeds)) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in (HEADINGS, ["---"] * len(HEADINGS), *lines))


def latex(study: Study, rows: Sequence[Row]) -> str:
    """The table, as a LaTeX tabular."""
    lines = [HEADINGS, *(cells(row, len(study.seeds)) for row in rows)]
    body = [" & ".join(_escaped(cell) for cell in line) + r" \\" for line in lines]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(HEADINGS) - 1)}}}", body[0], r"\hline", *body[1:], r"\end{tabular}"])


_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {letter: f"${letter}$" for letter in "<>|"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def table_csv(rows: Sequence[Row]) -> str:
    """The numbers themselves, a line a variant; `runs` are folders."""
    out = io.StringIO()
    names = [name for name in Row._fields if name not in (*MEANS, "runs")]
    scores = [f"{metric}_{part}" for metric in MEANS for part in ("mean", "deviation", "count")]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *scores, "runs"])
    for row in rows:
        values = [value for metric in (getattr(row, name) for name in MEANS) for value in (metric or ("", "", 0))]
        writer.writerow([*(getattr(row, name) for name in names), *values, " ".join(map(str, row.runs))])
    return out.getvalue()
