"""Runs that are interrupted, taken up again, changed, finished, or meet a bad disk: by the command line, as a user would."""

import errno
import fcntl
import hashlib
import io
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from collections import namedtuple
from pathlib import Path

import kill_resume
import pytest

from jaxnmt import cli
from jaxnmt.errors import UserError
from jaxnmt.evaluation import validation
from jaxnmt.runs.directory import checkpoints as steps
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.metrics import MetricsLog

SETTINGS = {"training.steps": 8, "validation.every": 4, "checkpoints.every": 3, "logging.every": 3, "logging.tensorboard": False}


class Translations:
    """Stands in for the validation's translator: what it does at each validation is a test's to say."""

    do = staticmethod(lambda: None)
    bleu = staticmethod(lambda: 0.0)

    def __call__(self, trainer, params):
        Translations.do()
        return [source for source, _ in trainer.data.validation], Translations.bleu()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")  # the model is the one that is traced soonest
    kill_resume.write_data(folder, kill_resume.BAG)
    return folder


@pytest.fixture
def train(text, monkeypatch):
    """`train(run, {setting: value})` -> exit status."""
    monkeypatch.chdir(text)
    monkeypatch.setenv("JAXNMT_CACHE", str(text / "cache"))
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: None))
    monkeypatch.setattr(validation, "ValidationTranslator", Translations)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests may ignore it

    def train(run, settings=None):
        flags = [word for name, value in (SETTINGS | (settings or {})).items() for word in (f"--{name}", str(value))]
        return cli.main(["train", "tiny.py", "--run", str(run), *flags])

    yield train
    signal.signal(signal.SIGHUP, hangup)


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
    assert train(run) == (130 if number == signal.SIGINT else 85)
    assert steps(run)[-1] == 5  # the signal came while step 4 was validated
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"saved at step 5 of 8; `jaxnmt resume {run}`" in last
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: None))
    assert train(run) == 0
    assert "resuming from checkpoint 5" in capsys.readouterr().err
    assert untimed(run) == untimed(finished)


class Lost(io.StringIO):
    """stderr that cannot be written any more once a line of step 3 was."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        if "step 3/" in self.getvalue():
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EPIPE, 85), (errno.ENOSPC, 2), (errno.EIO, 85)], ids=["pipe", "full disk", "terminal"]
)
def test_stderr_that_is_lost_does_not_lose_the_training(number, status, train, finished, tmp_path, monkeypatch):
    run = tmp_path / "lost"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Lost(number))
        assert train(run) == status
    assert steps(run)[-1] == 5  # the line of step 4's validation was lost
    assert train(run) == 0
    assert untimed(run) == untimed(finished)


def test_an_ignored_sighup_stays_ignored(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: os.kill(os.getpid(), signal.SIGHUP)))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert train(tmp_path / "run") == 0 and steps(tmp_path / "run")[-1] == 8
    finally:
        signal.signal(signal.SIGHUP, ignored)


def in_a_process(run):
    """The command that trains in a process of its own, long enough to be interrupted, and its environment."""
    steps = ["--training.steps", "90", "--validation.every", "0", "--logging.every", "2", "--logging.tensorboard", "False"]
    return [sys.executable, "-m", "jaxnmt", "train", "tiny.py", "--run", str(run), *steps], os.environ | {"COLUMNS": "200"}


def test_a_closed_pipe_ends_a_process_with_its_status_and_the_training_saved(train, text, tmp_path):
    command, environment = in_a_process(tmp_path / "run")
    reader = f"{shlex.join(command)} 2>&1 >/dev/null | grep -m 1 'step 4/'; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", reader], cwd=text, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "85" and done.stderr == "" and 4 < steps(tmp_path / "run")[-1] < 90


@pytest.mark.parametrize("ignored", [False, True], ids=["SIGHUP", "ignored SIGHUP"])
def test_a_terminal_that_is_closed(ignored, train, text, tmp_path):
    def with_a_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    command, environment = in_a_process(tmp_path / "run")
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen(command, cwd=text, env=environment, **streams, start_new_session=True, preexec_fn=with_a_terminal)
    os.close(theirs)
    shown = b""
    while b"epoch 0." not in shown:  # beside the progress bar
        shown += os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait(120) == (0 if ignored else 85)
    assert (steps(tmp_path / "run")[-1] == 90) is ignored and steps(tmp_path / "run")


def test_sigterm_again_waits_for_what_is_being_saved(train, tmp_path, monkeypatch, capsys):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Translations, "do", staticmethod(twice))
    assert train(tmp_path / "again") == 85 and steps(tmp_path / "again")[-1] == 5  # it comes while step 4 is validated
    assert "saved at step" in capsys.readouterr().err


def test_a_second_ctrl_c_leaves_at_once(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Translations, "do", staticmethod(lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]))
    assert train(tmp_path / "run") == 130 and steps(tmp_path / "run") == [3]  # one alone would have saved step 5


def test_ctrl_c_while_compiling_leaves_at_once(text, tmp_path):
    session = kill_resume.Session(text, tmp_path / "run", tmp_path / "nothing compiled yet")
    assert session.until(lambda: session.said("; compiling"))
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


def test_a_run_that_stopped_early_says_so_and_goes_on_with_more_patience(train, tmp_path, capsys, monkeypatch):
    run, scores = tmp_path / "run", iter([9.0, 8.0, 7.0])
    monkeypatch.setattr(Translations, "bleu", staticmethod(lambda: next(scores)))
    assert train(run, {"validation.patience": 1, "training.steps": 16}) == 0
    assert steps(run)[-1] == 8
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


@pytest.mark.parametrize("other", [pytest.param("settings", marks=pytest.mark.slow), "text"])
def test_a_try_that_saved_nothing_binds_the_run_to_nothing(other, train, finished, text, tmp_path, monkeypatch):
    def fails(store, state, progress, score):
        raise UserError("no room")

    original, settings = (text / "numbers.b").read_text(), {"model.dropout": 0.5, "tokenizer.vocab_size": 300}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", fails)
            if other == "text":
                (text / "numbers.b").write_text(original.replace("sieben", "siebzig"))
            assert train(tmp_path / "again", settings if other == "settings" else {}) == 2
    finally:
        (text / "numbers.b").write_text(original)
    left = contents(tmp_path / "again")
    assert {"metrics.jsonl", "data.json", "tokenizer/tokenizer.json"} <= left.keys() and not steps(tmp_path / "again")
    assert train(tmp_path / "again") == 0
    assert untimed(tmp_path / "again") == untimed(finished)
    now, expected = contents(tmp_path / "again"), contents(finished)
    same = [name for name in expected if not name.startswith(("checkpoints", "metrics"))]
    assert {name: now[name] for name in same} == {name: expected[name] for name in same}


def test_what_data_prepare_has_done_is_not_done_again(train, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXNMT_CACHE", str(tmp_path / "cache"))
    assert cli.main(["data", "prepare", "tiny.py", "--run", str(tmp_path / "run")]) == 0
    assert "training a tokenizer" in (said := capsys.readouterr().err) and "reading and tokenising" in said
    assert train(tmp_path / "run") == 0
    assert "training a tokenizer" not in (said := capsys.readouterr().err) and "reading and tokenising" not in said


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
