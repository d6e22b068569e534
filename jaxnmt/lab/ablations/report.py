"""A study's report, at any time: means and deviations over its finished runs, as a table on the terminal, Markdown, CSV and LaTeX; learning
curves, and BLEU against the source's length; all of it on one HTML page. Scores are those of the study's task."""

from __future__ import annotations

import html
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnmt import Study, TestSet
from jaxnmt.config.files import changed_fields
from jaxnmt.evaluation.scores import over_runs
from jaxnmt.evaluation.test_sets import open_test_set
from jaxnmt.io import files
from jaxnmt.lab import figures, pages
from jaxnmt.lab.ablations.budgets import Size
from jaxnmt.lab.ablations.study import Job, trials
from jaxnmt.lab.ablations.worker import chosen_rate, read_result
from jaxnmt.lab.compare import as_read
from jaxnmt.lab.probes import length

LEARNING = "Learning curves"
CURVES = "Validation {}, mean over seeds ± standard deviation"
NUMBERS = ("training ppl", "runs", "parameters", "TFLOP", "steps", "rate", "minutes", "tokens/s")

Row = dict[str, Any]
"""A variant's results, as `report.csv` has them:

variant; differs: its differences from the parent; parameters; flops, steps: mean of its finished runs, the planned ones while none is
finished (0: unknown); learning_rate: of its runs, None while it is not chosen; target_tokens, seconds: of all its runs together; p: p-value
of its difference from the parent in the first score, corrected for the number of variants (Holm 1979), None for the parent, while runs are
missing, and for a task without test scores; perplexity: of reference words in the last training steps, with dropout, near 1 if the model
sees what it is to predict; runs: folders of its finished runs; scores: by name, a `Mean` on the test sentences, or of the best validation
for a task without test scores.
"""


class Mean(NamedTuple):
    """Mean and sample standard deviation over `runs` values."""

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.runs == 1 else f"{self.mean:.2f} ± {self.deviation:.2f}"


def write(study: Study, folder: pathlib.Path, sizes: dict[str, Size]) -> None:
    """Write the report's files, each atomically, and print the table."""
    rows = gather(study, folder, sizes)
    metric, lines = learning_curves(study, folder, sizes)
    table = table_of(study, rows)
    drawn = {LEARNING: figures.chart(lines, CURVES.format(metric), "epoch", metric)} if lines else {}
    contents = {
        "report.md": markdown(table),
        "report.csv": table_csv(rows),
        "report.tex": latex(table),
        "curves.csv": figures.lines_csv(lines),
        "curves.svg": drawn.get(LEARNING, ""),
    }
    task = study.variants[study.parent].task
    if (made := translations(study, folder)) and not (task.is_label or task.vectors):
        by_length, _ = length.report(test_set(study, folder), made)
        contents |= {f"length{suffix}": text for suffix, text in by_length.items()}
        drawn[length.TITLE] = by_length[".svg"]
    contents["report.html"] = pages.page(folder.name, _body(study, folder, rows, table, drawn))
    for name, text in contents.items():
        files.write(folder / name, text)  # several workers may finish at the same time
    figures.show([table])


def finished(study: Study, folder: pathlib.Path, variant: str) -> dict[pathlib.Path, dict[str, Any]]:
    """Return the results of a variant's finished runs, by the job's folder."""
    jobs = (Job(variant, seed) for seed in study.seeds)
    return {folder / job.folder: result for job in jobs if (result := read_result(folder, job)) is not None}


def gather(study: Study, folder: pathlib.Path, sizes: dict[str, Size]) -> list[Row]:
    """Return a row for each variant, in the study's order; `sizes` are those of `budgets.measure`."""
    p_values = significance(study, folder)
    return [_row(study, folder, variant, sizes[variant], p_values.get(variant)) for variant in study.variants]


def _row(study: Study, folder: pathlib.Path, variant: str, size: Size, p: float | None) -> Row:
    runs = finished(study, folder, variant)
    results = list(runs.values())
    planned = 0 if study.budget.unit == "minutes" else size.steps(study.budget)
    steps = round(statistics.fmean(result["steps"] for result in results)) if results else planned
    differences = changed_fields(study.variants[study.parent], study.variants[variant])
    own = study.variants[variant].schedule.learning_rate
    return {
        "variant": variant,
        "differs": ", ".join(f"{field.removeprefix('model.')} {new}" for field, (_, new) in differences.items()),
        "parameters": size.parameters,
        "flops": size.flops * size.tokens * steps / size.epoch_steps,
        "learning_rate": chosen_rate(study, folder, variant) if study.learning_rates else own,
        "steps": steps,
        "target_tokens": sum(result["target_tokens"] for result in results),
        "seconds": sum(result["seconds"] for result in results),
        "p": p,
        "perplexity": mean([found for result in results if (found := result["training_perplexity"]) is not None]),
        "runs": tuple(runs),
        "scores": {name: mean(values) for name, values in _scores(results).items()},
    }


def _scores(results: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the values of each score, one for each run that has it."""
    found: dict[str, list[float]] = {}
    for result in results:
        for each in result["test"]["metrics"]:
            found.setdefault(each["name"], []).append(each["value"])
    return found


def mean(values: Sequence[float]) -> Mean | None:
    """Return mean and deviation; None of no values."""
    return Mean(*figures.mean_and_deviation(values), len(values)) if values else None


def significance(study: Study, folder: pathlib.Path) -> dict[str, float]:
    """Test each variant against the parent: paired bootstrap of the first score (Koehn 2004) with Holm's correction.

    A sentence is resampled with all seeds' translations of it. Variants with a run missing, or with other test sentences than the
    parent's, are left out.
    """
    complete = {name: made for name, made in translations(study, folder).items() if len(made) == len(study.seeds)}
    if study.parent not in complete or len(complete) == 1:
        return {}
    tested = over_runs(list(complete.values()), test_set(study, folder).first_metric(study.metrics))
    return {name: e.p_holm for name, e in zip(complete, tested.estimates, strict=True) if e.p_holm is not None}


def translations(study: Study, folder: pathlib.Path) -> dict[str, list[list[str]]]:
    """Return each variant's translations of the test sentences, or their labels, one list per finished run.

    Variants without a finished run, or with other test sentences than the parent's, are left out; without test scores, all are.
    """
    parent = study.variants[study.parent]
    if not parent.task.is_scored:
        return {}
    tested = ["data.test", "data.validation", "data.train", "data.held_out", "data.source_language", "data.target_language"]
    if not parent.data.test and not parent.data.validation:  # then cleaning changes the held-out sentences
        tested += ["data.max_length", "data.cleaning", "tokenizer"]
    found = {}
    for name, experiment in study.variants.items():
        if not any(field.startswith(tuple(tested)) for field in changed_fields(parent, experiment)):
            runs = finished(study, folder, name)
            found[name] = [(run / "test.txt").read_text(encoding="utf-8").split("\n")[:-1] for run in runs]
    return {name: made for name, made in found.items() if made}


def test_set(study: Study, folder: pathlib.Path) -> TestSet:
    """Return the parent's test sentences as plain text; at least one run that has them must be finished."""
    name = next(iter(translations(study, folder)))
    run = next(iter(finished(study, folder, name))) / "run"
    test = open_test_set(study.variants[name], run, "test")
    return as_read(test, study.variants[name], test.normalization)


def learning_curves(study: Study, folder: pathlib.Path, sizes: dict[str, Size]) -> tuple[str, dict[str, figures.Line]]:
    """Return the name of the metric, and its value at each variant's validations by epoch, over its finished seeds."""
    metric, lines = study.variants[study.parent].validation.metric, {}
    for variant in study.variants:
        steps, found = sizes[variant].epoch_steps, finished(study, folder, variant).values()
        curves = [{record["step"] / steps: record[metric] for record in result["validations"] if metric in record} for result in found]
        if curves and all(curves):
            lines[variant] = figures.over_seeds(curves)
    return "BLEU" if metric == "bleu" else metric, lines


def table_of(study: Study, rows: Sequence[Row]) -> figures.Table:
    """Return the table for readers; its title is the budget."""
    tried = f"; learning rates {', '.join(f'{rate:g}' for rate in study.learning_rates)} tried for each" if study.learning_rates else ""
    if len(study.learning_rates) > 1:
        tuning = study.tuning or study.budget
        tried += f" for {tuning.amount:,g} {tuning.unit}"
    title = f"{study.budget.amount:,g} {study.budget.unit} a run, {len(study.seeds)} seeds{tried}"
    names = scores_of(rows)
    headings = ("variant", *names[:1], "p", *names[1:], *NUMBERS)
    return figures.Table(title, headings, [_cells(row, names, len(study.seeds)) for row in rows])


def scores_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of all scores, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row["scores"]))


def _cells(row: Row, names: Sequence[str], seeds: int) -> list[str]:
    runs, seconds, scores = len(row["runs"]), row["seconds"], [str(row["scores"].get(name) or "–") for name in names]
    return [
        row["variant"],
        *scores[:1],
        "–" if row["p"] is None else f"{row['p']:.3f}",
        *scores[1:],
        str(row["perplexity"] or "–"),
        f"{runs} of {seeds}",
        f"{row['parameters']:,}",
        f"{row['flops'] / 1e12:,.3g}" if row["steps"] else "–",
        f"{row['steps']:,}" if row["steps"] else "–",
        f"{row['learning_rate']:g}" if row["learning_rate"] else "–",
        f"{seconds / 60 / runs:.1f}" if runs else "–",
        f"{row['target_tokens'] / seconds if seconds else 0:,.0f}",
    ]


def markdown(table: figures.Table) -> str:
    """Return a table as Markdown."""
    lines = (table.header, ["---"] * len(table.header), *table.rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(table: figures.Table) -> str:
    """Return a table as a LaTeX tabular."""
    heading, *rows = (" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in (table.header, *table.rows))
    begin = rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}"
    return "\n".join([begin, heading, r"\hline", *rows, r"\end{tabular}", ""])


_LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {letter: f"${letter}$" for letter in "<>|"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
)


def table_csv(rows: Sequence[Row]) -> str:
    """Return the numbers at full precision as CSV, one row per variant; a mean has three columns, and `runs` are folders."""
    lines = []
    for row in rows:
        means = {"perplexity": row["perplexity"]} | {name: row["scores"].get(name) for name in scores_of(rows)}
        line = {name: value for name, value in row.items() if name not in ("perplexity", "scores", "runs")}
        for name, value in means.items():
            parts = zip(("mean", "deviation", "count"), value or ("", "", 0), strict=True)
            line |= {f"{name.lower()}_{part}": number for part, number in parts}
        lines.append(line | {"runs": " ".join(map(str, row["runs"]))})
    return figures.to_csv(list(lines[0]), [list(line.values()) for line in lines])


def _body(study: Study, folder: pathlib.Path, rows: Sequence[Row], table: figures.Table, drawn: dict[str, str]) -> str:
    intro = (
        f"Mean ± standard deviation over seeds, on the test sentences. The parent is {study.parent}; p is that of its difference in the "
        "first score, by paired bootstrap over all seeds' translations, corrected for the number of variants (Holm)."
    )
    if not study.variants[study.parent].task.is_scored:
        intro = f"Mean ± standard deviation over seeds of each run's best validation. The parent is {study.parent}."
    parts = [pages.paragraph(intro), pages.table(table)]
    parts += [f"<h2>{name}</h2>\n<figure>{figure}</figure>" for name, figure in drawn.items()]
    parts.append("<h2>Differences from the parent, and the runs of each row</h2>")
    parts.append(pages.definitions([(row["variant"], _runs(row)) for row in rows]))
    if study.learning_rates:
        parts.append("<h2>Learning rates tried</h2>")
        parts.append(pages.table(_trials(study, folder)))
    return "\n".join(parts)


def _runs(row: Row) -> str:
    runs = ", ".join(f"<code>{html.escape(str(run))}</code>" for run in row["runs"]) or "none finished"
    return f"{html.escape(row['differs'] or 'the parent')}. Runs: {runs}"


def _trials(study: Study, folder: pathlib.Path) -> figures.Table:
    rows = []
    for variant in study.variants:
        results = [read_result(folder, trial) for trial in trials(study, variant)]
        scores = [f"{result['validation_score']:.4g}" if result else "–" for result in results]
        rows += [(variant, *scores)] if scores else []
    heading = ("variant", *(f"{rate:g}" for rate in study.learning_rates))
    return figures.Table("Validation score with each rate", heading, rows, "By the validation metric; a loss is negated.")
