"""Runs that are interrupted, taken up again, changed, finished, or meet a bad disk: by the command line, as a user would."""

import errno
import hashlib
import json
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import kill_resume
import pytest

from jaxnmt import cli
from jaxnmt.evaluation import validation
from jaxnmt.training.checkpoint import steps
from jaxnmt.training.metrics import MetricsLog

SETTINGS = {"training.steps": 8, "validation.every": 4, "checkpoints.every": 3, "logging.every": 3, "logging.tensorboard": False}


class Translations:
    """Stands in for the validation's translator: what it does at each validation is a test's to say."""

    do = staticmethod(lambda: None)
    bleu = 0.0

    def __call__(self, experiment, model, tokenizer, params, pairs, languages):
        Translations.do()
        return [source for source, _ in pairs], Translations.bleu


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    kill_resume.write_data(folder)
    return folder


@pytest.fixture
def train(text, monkeypatch):
    """`train(run, {setting: value})` -> exit status."""
    monkeypatch.chdir(text)
    monkeypatch.setenv("JAXNMT_CACHE", str(text / "cache"))
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: None))
    monkeypatch.setattr(validation, "ValidationTranslator", Translations)

    def train(run, settings=None):
        flags = [word for name, value in (SETTINGS | (settings or {})).items() for word in (f"--{name}", str(value))]
        return cli.main(["train", "tiny.py", "--run", str(run), *flags])

    return train


@pytest.fixture
def finished(train, text, tmp_path):
    """A copy of a run of 8 steps."""
    if not (text / "done").exists():
        assert train(text / "done") == 0
    return shutil.copytree(text / "done", tmp_path / "run")


def contents(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.rglob("*") if path.is_file()}


def untimed(run: Path) -> list[dict]:
    return [{name: value for name, value in record.items() if name != "timing"} for record in kill_resume.records(run)]


def error_of(capsys) -> str:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err[err.index("error: ") :]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_tells_how_to_go_on(number, train, finished, tmp_path, monkeypatch, capsys):
    run = tmp_path / "interrupted"
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: os.kill(os.getpid(), number)))
    assert train(run) == 128 + number
    assert steps(run)[-1] == 5  # the signal came while step 4 was validated
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"saved at step 5 of 8; `jaxnmt resume {run}`" in last
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: None))
    assert train(run) == 0
    assert "going on from checkpoint 5" in capsys.readouterr().err
    assert untimed(run) == untimed(finished)


def test_sigterm_again_waits_for_what_is_being_saved(train, tmp_path, monkeypatch, capsys):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Translations, "do", staticmethod(twice))
    assert train(tmp_path / "again") == 143 and steps(tmp_path / "again")[-1] == 5  # it comes while step 4 is validated
    assert "saved at step" in capsys.readouterr().err


def test_a_second_ctrl_c_leaves_at_once(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]))
    assert train(tmp_path / "run") == 130 and steps(tmp_path / "run") == [3]  # one alone would have saved step 5


def test_ctrl_c_while_compiling_leaves_at_once(text, tmp_path):
    session = kill_resume.Session(text, tmp_path / "run", tmp_path / "nothing compiled yet")
    assert session.until(lambda: session.said("compiling"))
    session.process.send_signal(signal.SIGINT)
    assert session.process.wait(timeout=120) == 130
    session.kill()
    assert not session.said("compiled in") and not session.said("Traceback")
    assert session.lines[-1].startswith("interrupted: ") and f"jaxnmt resume {tmp_path / 'run'}" in session.lines[-1]
    assert "compiling" in session.lines[-2]


def test_a_finished_run_says_so_and_is_left_alone(train, finished, capsys):
    before = contents(finished)
    assert train(finished) == 0
    assert "is finished, at step 8 of 8" in capsys.readouterr().err
    assert contents(finished) == before


def test_a_run_that_stopped_early_says_so_and_goes_on_with_more_patience(train, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, {"validation.patience": 1, "training.steps": 16}) == 0
    assert steps(run)[-1] == 8  # BLEU stays as it was at step 4
    before = contents(run)
    capsys.readouterr()
    assert train(run, {"validation.patience": 1, "training.steps": 16}) == 0
    assert "stopped at step 8, after 1 validations without a better bleu" in capsys.readouterr().err
    assert contents(run) == before
    assert train(run, {"validation.patience": 2, "training.steps": 16}) == 0
    assert steps(run)[-1] == 12


def test_more_steps_are_taken(train, finished):
    before = untimed(finished)
    assert train(finished, {"training.steps": 12}) == 0
    assert steps(finished)[-1] == 12
    assert untimed(finished)[: len(before)] == before and untimed(finished)[-1]["step"] == 12


def test_a_setting_that_changes_the_training_is_refused(train, finished, capsys):
    before = contents(finished)
    assert train(finished, {"model.dropout": 0.5, "training.seed": 2}) == 2
    error = error_of(capsys)
    assert "model.dropout: 0.2 → 0.5" in error and "training.seed: 1 → 2" in error
    assert contents(finished) == before


def test_other_text_under_a_run_is_refused(train, finished, text, capsys):
    original = (text / "numbers.b").read_text()
    checkpoints = steps(finished)
    try:
        (text / "numbers.b").write_text(original.replace("sieben", "siebzig", 1))
        assert train(finished, {"training.steps": 12}) == 2
    finally:
        (text / "numbers.b").write_text(original)
    assert "restore the data" in error_of(capsys)
    assert steps(finished) == checkpoints
    assert train(finished, {"training.steps": 12}) == 0


def test_a_torn_line_of_the_log_is_mended(train, finished):
    before = untimed(finished)
    with (finished / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 9, "loss": 1.0}\n{"kind": "tra')
    assert train(finished, {"training.steps": 9}) == 0
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if json.loads(line)["step"] == 9] == [9, 9]  # train, validation
    assert untimed(finished)[: len(before)] == before


def test_a_disk_without_room_for_a_checkpoint(train, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 5000, 5000))
        assert train(tmp_path / "run") == 2
    error = error_of(capsys)
    assert "the disk has 0 MiB left" in error and f"jaxnmt resume {tmp_path / 'run'}" in error
    assert steps(tmp_path / "run") == [] and not kill_resume.half_saved(tmp_path / "run")
    assert train(tmp_path / "run") == 0


def test_a_disk_that_fills_up_while_logging(train, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "metrics.jsonl"))

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", full)
        assert train(tmp_path / "run") == 2
    assert error_of(capsys).startswith(f"error: {tmp_path / 'metrics.jsonl'} cannot be written (No space left on device)")


def test_a_folder_that_cannot_be_written(train, capsys):
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where nobody can make a folder")
    assert train("/proc/runs/new") == 2
    assert "error: /proc/runs/new cannot be written" in error_of(capsys)
