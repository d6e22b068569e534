"""A study's report: the table on the terminal; the same as Markdown, CSV and LaTeX; learning curves, and BLEU against the source's
length; all of it on one HTML page."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence

from jaxnmt.io import files
from jaxnmt.lab import figures, pages
from jaxnmt.lab.ablations import results
from jaxnmt.lab.ablations import study as studies
from jaxnmt.lab.ablations.budgets import Size
from jaxnmt.lab.ablations.results import Row
from jaxnmt.lab.ablations.study import Study
from jaxnmt.lab.ablations.worker import read_result
from jaxnmt.lab.probes import length
from jaxnmt.lab.tables import Table, show

LEARNING = "Learning curves"
CURVES = "Validation BLEU, mean over seeds ± standard deviation"


def write(study: Study, folder: pathlib.Path, sizes: dict[str, Size]) -> None:
    """Write the report's files, each atomically, and print the table."""
    rows = results.gather(study, folder, sizes)
    lines = learning_curves(study, folder, sizes)
    table = Table(_budget(study), results.HEADINGS, tuple(tuple(results.cells(row, len(study.seeds))) for row in rows))
    drawn = {LEARNING: figures.chart(lines, CURVES, "epoch", "BLEU")} if lines else {}
    by_length = {}
    if made := results.translations(study, folder):
        test = results.test_set(study, folder)
        bins = length.bins_of(test)
        curves = length.curves(test, made, bins)
        by_length = {"length.svg": length.drawn(curves, length.band(made)), "length.csv": length.numbers(curves, bins)}
        drawn[length.TITLE] = by_length["length.svg"]
    contents = {
        "report.md": results.markdown(study, rows) + "\n",
        "report.csv": results.table_csv(rows),
        "report.tex": results.latex(study, rows) + "\n",
        "curves.csv": figures.lines_csv(lines),
        "curves.svg": drawn.get(LEARNING, ""),
        **by_length,
        "report.html": pages.page(folder.name, _body(study, folder, rows, table, drawn)),
    }
    for name, text in contents.items():
        files.write(folder / name, text)  # several workers may finish at the same time
    show([table])


def learning_curves(study: Study, folder: pathlib.Path, sizes: dict[str, Size]) -> dict[str, figures.Line]:
    """Return each variant's validation BLEU by epoch, over its finished seeds."""
    lines = {}
    for variant in study.variants:
        steps, found = sizes[variant].epoch_steps, results.finished(study, folder, variant).values()
        curves = [{record["step"] / steps: record["bleu"] for record in result["validations"] if "bleu" in record} for result in found]
        if curves and all(curves):
            lines[variant] = figures.over_seeds(curves)
    return lines


def _budget(study: Study) -> str:
    trials = f"; learning rates {', '.join(f'{rate:g}' for rate in study.learning_rates)} tried for each" if study.learning_rates else ""
    tuning = study.tuning or study.budget
    tried = f"{trials} for {tuning.amount:,g} {tuning.unit}" if len(study.learning_rates) > 1 else trials
    return f"{study.budget.amount:,g} {study.budget.unit} a run, {len(study.seeds)} seeds{tried}"


def _body(study: Study, folder: pathlib.Path, rows: Sequence[Row], table: Table, drawn: dict[str, str]) -> str:
    intro = (
        f"Mean ± standard deviation over seeds, on the test sentences. The parent is {study.parent}; p is that of its difference in "
        "BLEU, by paired bootstrap over all seeds' translations, corrected for the number of variants (Holm)."
    )
    parts = [pages.paragraph(intro), pages.table(table)]
    parts += [f"<h2>{name}</h2>\n<figure>{figure}</figure>" for name, figure in drawn.items()]
    parts.append("<h2>Differences from the parent, and the runs of each row</h2>")
    parts.append(pages.definitions([(row.variant, _runs(row)) for row in rows]))
    if study.learning_rates:
        parts.append("<h2>Learning rates tried</h2>")
        parts.append(pages.table(_trials(study, folder)))
    return "\n".join(parts)


def _runs(row: Row) -> str:
    runs = ", ".join(f"<code>{html.escape(str(run))}</code>" for run in row.runs) or "none finished"
    return f"{html.escape(row.differs or 'the parent')}. Runs: {runs}"


def _trials(study: Study, folder: pathlib.Path) -> Table:
    rows = []
    for variant in study.variants:
        if trials := [read_result(folder, trial) for trial in studies.trials(study, variant)]:
            rows.append((variant, *(f"{result['validation_score']:.4g}" if result else "–" for result in trials)))
    heading = ("variant", *(f"{rate:g}" for rate in study.learning_rates))
    return Table("Validation score with each rate", heading, tuple(rows), "BLEU, or the negative loss: higher is better.")
