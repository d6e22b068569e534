"""The command from text to score: train, resume, translate, evaluate, in one process, on a corpus of a few letters."""

import io
import json
import pathlib
import shutil

import pytest
import tiny
from training import events

from jaxnmt import cli, run_directory
from jaxnmt.data import identity
from jaxnmt.run_directory import read_metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    source, target = tiny.write_text(folder, "text", 200, 1).split(",")
    config = tiny.write_config(folder)
    run = folder / "run"
    assert cli.main(["train", config, "--run", str(run), "--data.train", source, target]) == 0
    return run


def test_validations_bleu_is_what_evaluate_says(run, capsys):
    for record in read_metrics(run, "validation"):
        capsys.readouterr()
        assert cli.main(["evaluate", str(run), "--split", "validation", "--checkpoint", str(record["step"]), "--json", "True"]) == 0
        scores = json.loads(capsys.readouterr().out)
        bleu = next(metric["value"] for metric in scores["metrics"] if metric["name"] == "BLEU")
        assert bleu == pytest.approx(record["bleu"], abs=1e-9)
    assert max(record["bleu"] for record in read_metrics(run, "validation")) > 0


def test_tensorboard_shows_the_numbers_of_the_metrics_at_the_same_steps(run):
    recorded = events.recorded(run)
    assert {("train/loss", 5), ("train/loss", 60), ("validation/loss", 30), ("validation/bleu", 60)} <= recorded.keys()
    assert events.shown(run) == recorded


def test_lines_are_translated_in_order_and_empty_ones_stay(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b c\n\nd e\n")))
    assert cli.main(["translate", str(run)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4 and lines[1] == lines[3] == "" and lines[0] and lines[2]


def test_resuming_with_more_steps_goes_on_and_other_settings_are_refused(run, capsys):
    assert cli.main(["resume", str(run), "--model.dropout", "0.5"]) == 2
    assert "model.dropout" in capsys.readouterr().err
    assert cli.main(["resume", str(run), "--training.steps", "65"]) == 0
    assert "going on from checkpoint 60" in capsys.readouterr().err
    assert [record["step"] for record in read_metrics(run, "train")] == list(range(5, 70, 5))
    assert events.shown(run) == events.recorded(run)


def test_text_that_has_moved_is_the_same_text_and_other_text_is_refused(run, tmp_path, capsys):
    files = [pathlib.Path(name) for name in run_directory.read(run).data.train]
    moved = [str(shutil.copy(file, tmp_path / f"moved{file.suffix}")) for file in files]
    assert cli.main(["resume", str(run), "--training.steps", "70", "--data.train", *moved]) == 0
    assert "going on from checkpoint" in capsys.readouterr().err
    assert run_directory.read(run).data.train == tuple(moved)
    other = [tmp_path / f"other{file.suffix}" for file in files]
    for file, copy in zip(other, files, strict=True):
        file.write_text("".join(reversed(copy.read_text().splitlines(keepends=True))))
    assert cli.main(["resume", str(run), "--training.steps", "75", "--data.train", *map(str, other)]) == 2
    assert "data.train" in capsys.readouterr().err


def test_text_that_has_moved_to_a_name_without_a_language_keeps_the_one_it_had(run, tmp_path):
    before = identity.read(run)["languages"]
    files = [pathlib.Path(name) for name in run_directory.read(run).data.train]
    moved = [str(shutil.copy(file, tmp_path / name)) for file, name in zip(files, ("source.txt", "target.txt"), strict=True)]
    assert cli.main(["resume", str(run), "--training.steps", "80", "--data.train", *moved]) == 0
    assert identity.read(run)["languages"] == before == ["xx", "yy"]
