"""N steps in one go are k steps, an end of any kind, and N - k more: to the bit."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

from jaxnmt.training.display import Display
from jaxnmt.training.loop import Trainer, default_hooks


class Crash(Exception):
    pass


def fake_scores(trainer, params):
    """Translations and a score that depend on every bit of the parameters."""
    total = float(sum(np.abs(np.asarray(x, np.float64)).sum() for x in jax.tree.leaves(params)))
    return [f"{total!r}"] * len(trainer.data.validation), total


def session(folder, run):
    """Train until the end of the run or of its process."""
    run.mkdir(exist_ok=True)
    changes = {"validation.metric": "bleu", "training.steps": 10, "checkpoints.keep_latest": 3}
    trainer = Trainer(tiny.experiment(folder, **changes), run, default_hooks(fake_scores), signals=True)
    trainer.run()
    return trainer


def outcome(trainer):
    progress = vars(trainer.progress) | {"seconds": 0, "unlogged": 0}
    lines = [json.loads(line) for line in (trainer.folder / "metrics.jsonl").read_text().splitlines()]
    records = [{name: value for name, value in line.items() if name != "timing"} for line in lines]
    samples = {path.name: path.read_text() for path in (trainer.folder / "samples").iterdir()}
    return progress, records, samples


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    return folder, session(folder, folder / "whole")


def at_step(monkeypatch, step, action):
    """Act when a session reaches a step, before anything of it is logged or saved."""
    plain = Display.step

    def reach(self, number):
        plain(self, number)
        if number == step:
            action()

    monkeypatch.setattr(Display, "step", reach)


def crash(folder, run, monkeypatch):
    """An exception two steps after the checkpoint of step 3; a power cut leaves half a line."""
    with monkeypatch.context() as patch, pytest.raises(Crash):
        at_step(patch, 6, lambda: (_ for _ in ()).throw(Crash))
        session(folder, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 5, "loss": 99}\n{"kind": "tra')
    (run / "samples" / "5.txt").write_text("of a step that is not saved")
    return 4


def interrupt(folder, run, monkeypatch):
    """Ctrl-C in the middle of a logging window, twice."""
    for step in (5, 7):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGINT))
            session(folder, run)
    return 7


def kill(folder, run, monkeypatch):
    """kill -9 of another process, which hears nothing of it."""
    code = (
        "import os, pathlib, signal, sys; sys.path.insert(0, sys.argv[1]); import pytest, conftest\n"
        "sys.path.insert(0, sys.argv[1] + '/laws')\n"
        "import test_resume as t; p = pytest.MonkeyPatch(); folder, run = map(pathlib.Path, sys.argv[2:])\n"
        "t.at_step(p, 9, lambda: os.kill(os.getpid(), signal.SIGKILL)); t.session(folder, run)"
    )
    tests = os.path.dirname(tiny.__file__)
    killed = subprocess.run([sys.executable, "-c", code, tests, str(folder), str(run)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    return None  # the last save may have been under way


@pytest.mark.parametrize("end", [*(pytest.param(end, marks=pytest.mark.slow) for end in (crash, interrupt)), kill])
def test_a_run_that_ended_too_soon_goes_on_as_if_it_had_not(end, undisturbed, monkeypatch):
    folder, whole = undisturbed
    run = folder / end.__name__
    saved = end(folder, run, monkeypatch)
    assert not (run / "checkpoints" / "10").exists()
    seen = []
    monkeypatch.setattr(Display, "say", lambda self, line: seen.append(line))
    trainer = session(folder, run)
    going_on = [line for line in seen if "resuming from" in line]
    assert len(going_on) == 1 and (saved is None or going_on == [f"resuming from checkpoint {saved}"])
    tiny.assert_same(trainer.state, whole.state)
    assert int(trainer.state.step) == 10
    for found, expected in zip(outcome(trainer), outcome(whole), strict=True):
        assert found == expected


def test_the_record_is_whole_and_training_moves(undisturbed):
    folder, whole = undisturbed
    progress, records, samples = outcome(whole)
    assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 6, 8, 10]
    assert [r["step"] for r in records if r["kind"] == "validation"] == [4, 8, 10]
    assert sorted(samples, key=len) == ["4.txt", "8.txt", "10.txt"]
    moved = jax.tree.map(lambda p, e: not np.array_equal(p, e), whole.state.params, whole.state.ema)
    assert all(jax.tree.leaves(moved))
    losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert len(set(losses)) == 5 and losses[-1] < losses[0]


def test_a_run_that_is_done_stays_as_it_is(undisturbed):
    folder, whole = undisturbed
    before = outcome(whole)
    again = session(folder, folder / "whole")
    tiny.assert_same(again.state, whole.state)
    assert outcome(again) == before
