"""`jaxnmt runs curves`: each validation over what had been trained by then."""

import csv
import json

import pytest

from jaxnmt import cli
from jaxnmt.config import Experiment, replace
from jaxnmt.runs import directory as run_directory

TRAIN = [(10, 0.5, 1000, 30.0), (20, 1.0, 2100, 30.0), (30, 1.5, 3000, 60.0)]  # step, epoch, target tokens so far, seconds since the last
VALIDATIONS = [(10, 3.0, 5.0), (25, 2.0, 9.0), (30, None, 12.0)]  # step, loss, BLEU


@pytest.fixture
def run(tmp_path):
    run_directory.start(tmp_path / "run", replace(Experiment(), **{"data.train": ("a.en", "a.de")}))
    records = [
        {"kind": "train", "step": step, "epoch": epoch, "target_tokens": tokens, "timing": {"seconds": seconds}}
        for step, epoch, tokens, seconds in TRAIN
    ]
    records += [{"kind": "validation", "step": step, "loss": loss, "bleu": bleu} for step, loss, bleu in VALIDATIONS]
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("against", "x"),
    [("step", [10, 25, 30]), ("epoch", [0.5, 1.25, 1.5]), ("tokens", [1000, 2550, 3000]), ("minutes", [0.5, 1.5, 2])],
)
def test_a_validation_stands_where_the_training_was(run, against, x):
    output = run.parent / "curves.svg"
    assert cli.main(["runs", "curves", str(run), "--against", against, "--output", str(output)]) == 0
    rows = list(csv.DictReader(output.with_suffix(".csv").open()))
    assert [(row["line"], float(row["x"]), float(row["y"])) for row in rows] == list(zip(["run"] * 3, x, [5, 9, 12], strict=True))
    assert "<svg" in output.read_text()


def test_a_validation_without_a_number_is_no_point_and_a_run_without_validations_no_curve(run, capsys):
    output = run.parent / "loss.svg"
    assert cli.main(["runs", "curves", str(run), "--metric", "loss", "--output", str(output)]) == 0
    assert len(output.with_suffix(".csv").read_text().splitlines()) == 1 + 2
    (run / "metrics.jsonl").write_text("")
    assert cli.main(["runs", "curves", str(run), "--output", str(output)]) == 2
    assert "no validation with a bleu yet" in capsys.readouterr().err
