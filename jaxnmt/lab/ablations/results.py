"""A study's results, gathered from the results of its jobs: means and standard deviations over seeds, at any time."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnmt.config.files import changed_fields
from jaxnmt.evaluation.scores import over_runs
from jaxnmt.evaluation.test_sets import TestSet, open_test_set
from jaxnmt.lab.ablations.study import Job, Study
from jaxnmt.lab.ablations.worker import chosen_rate, read_result
from jaxnmt.lab.compare import as_read
from jaxnmt.lab.figures import to_csv


class Mean(NamedTuple):
    """Mean and sample standard deviation over `runs` values; the deviation of a single value is 0."""

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.runs == 1 else f"{self.mean:.2f} ± {self.deviation:.2f}"


class Row(NamedTuple):
    """A variant's results.

    Attributes:
        differs: its differences from the parent.
        learning_rate: of its runs; None while it is not chosen.
        runs: folders of its finished runs.
        steps, flops: mean of its finished runs; the planned ones while none is finished (0: unknown).
        bleu, chrf, ter: on the test sentences; None while no run is finished.
        perplexity: of reference words in the last training steps, with dropout; near 1 if the model sees what it is to predict.
        target_tokens, seconds: of all its runs together.
        p: p-value of its difference from the parent in BLEU, corrected for the number of variants (Holm 1979); None for the parent,
            and while runs are missing.
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


def finished(study: Study, folder: pathlib.Path, variant: str) -> dict[Job, dict[str, Any]]:
    """Return the results of a variant's finished runs."""
    jobs = (Job(variant, seed) for seed in study.seeds)
    return {job: result for job in jobs if (result := read_result(folder, job)) is not None}


def gather(study: Study, folder: pathlib.Path, sizes: dict[str, Any]) -> list[Row]:
    """Return a row for each variant, in the study's order; `sizes` are those of `budgets.measure`."""
    p_values = significance(study, folder)
    return [_row(study, folder, variant, sizes[variant], p_values.get(variant)) for variant in study.variants]


def significance(study: Study, folder: pathlib.Path) -> dict[str, float]:
    """Test each variant against the parent: paired bootstrap of BLEU (Koehn 2004) with Holm's correction.

    A sentence is resampled with all seeds' translations of it. Variants with a run missing, or with other test sentences than the
    parent's, are left out.
    """
    complete = {name: made for name, made in translations(study, folder).items() if len(made) == len(study.seeds)}
    if len(complete) < 2 or study.parent not in complete:
        return {}
    test = test_set(study, folder)
    bleu = over_runs(list(complete.values()), test.references, test.tokenize)
    return {name: e.p_holm for name, e in zip(complete, bleu.estimates, strict=True) if e.p_holm is not None}


def translations(study: Study, folder: pathlib.Path) -> dict[str, list[list[str]]]:
    """Return each variant's translations of the test sentences, one list per finished run.

    Variants without a finished run, or with other test sentences than the parent's, are left out.
    """
    parent = study.variants[study.parent]
    tested = ["data.test", "data.validation", "data.train", "data.held_out", "data.source_language", "data.target_language"]
    if not parent.data.test and not parent.data.validation:  # then cleaning changes the held-out sentences
        tested += ["data.max_length", "data.cleaning", "tokenizer"]
    found = {}
    for name, experiment in study.variants.items():
        if not any(field.startswith(tuple(tested)) for field in changed_fields(parent, experiment)):
            files = [folder / job.folder / "test.txt" for job in finished(study, folder, name)]
            found[name] = [file.read_text(encoding="utf-8").split("\n")[:-1] for file in files]
    return {name: made for name, made in found.items() if made}


def test_set(study: Study, folder: pathlib.Path) -> TestSet:
    """Return the parent's test sentences as plain text; at least one run that has them must be finished."""
    name = next(iter(translations(study, folder)))
    job = next(iter(finished(study, folder, name)))
    test = open_test_set(study.variants[name], folder / job.folder / "run", "test")
    return as_read(test, study.variants[name], test.normalization)


def _row(study: Study, folder: pathlib.Path, variant: str, size: Any, p: float | None) -> Row:
    done = finished(study, folder, variant)
    results = list(done.values())
    scores = [[metric["value"] for metric in result["test"]["metrics"]] for result in results]
    bleu, chrf, ter = (mean([score[i] for score in scores]) for i in range(3))
    own = study.variants[variant].schedule.learning_rate
    planned = 0 if study.budget.unit == "minutes" else size.steps(study.budget)
    steps = round(statistics.fmean(result["steps"] for result in results)) if results else planned
    differences = changed_fields(study.variants[study.parent], study.variants[variant])
    return Row(
        variant=variant,
        differs=", ".join(f"{field.removeprefix('model.')} {new}" for field, (_, new) in differences.items()),
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
    """Return mean and deviation; None of no values."""
    if not values:
        return None
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


MEANS = ("bleu", "chrf", "ter", "perplexity")  # the fields of a row that are means over runs
HEADINGS = ("variant", "BLEU", "p", "chrF++", "TER", "training ppl", "runs", "parameters", "TFLOP", "steps", "rate", "minutes", "tokens/s")


def cells(row: Row, seeds: int) -> list[str]:
    """Return a row's cells under `HEADINGS`."""
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
    """Return the table as Markdown."""
    lines = [cells(row, len(study.seeds)) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in (HEADINGS, ["---"] * len(HEADINGS), *lines))


def latex(study: Study, rows: Sequence[Row]) -> str:
    """Return the table as a LaTeX tabular."""
    lines = [HEADINGS, *(cells(row, len(study.seeds)) for row in rows)]
    body = [" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in lines]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(HEADINGS) - 1)}}}", body[0], r"\hline", *body[1:], r"\end{tabular}"])


_LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {letter: f"${letter}$" for letter in "<>|"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
)


def table_csv(rows: Sequence[Row]) -> str:
    """Return the numbers at full precision as CSV, one row per variant; `runs` are folders."""
    names = [name for name in Row._fields if name not in (*MEANS, "runs")]
    lines = []
    for row in rows:
        means = [value for name in MEANS for value in (getattr(row, name) or ("", "", 0))]
        lines.append([*(getattr(row, name) for name in names), *means, " ".join(map(str, row.runs))])
    return to_csv([*names, *(f"{name}_{part}" for name in MEANS for part in ("mean", "deviation", "count")), "runs"], lines)
