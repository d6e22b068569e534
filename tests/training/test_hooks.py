"""What a hook of the user's sees, and what it can do."""

import gzip
import json

import pytest
import tiny

from jaxnmt import cli
from jaxnmt.errors import UserError
from jaxnmt.runs.directory import checkpoints, read_metrics
from jaxnmt.training.hooks import Hook, Profile
from jaxnmt.training.loop import Trainer, default_hooks

PLAIN = {"training.accumulation": 1, "training.ema_decay": 0.0, "logging.every": 1, "validation.every": 0}
PLAIN |= {"batching.layout": "buckets", "batching.max_shapes": 1, "model": tiny.RECURRENT["bag"]}


def session(folder, *hooks, **changes):
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        tiny.experiment(folder, **(PLAIN | {"training.steps": 8, "checkpoints.every": 6} | changes)), run, default_hooks(more=hooks)
    )
    trainer.run()
    return trainer


class Spy(Hook):
    """Writes down what happens, and stops the run after a step."""

    def __init__(self, stop_at=0):
        self.seen, self.losses, self.stop_at = [], [], stop_at

    def start(self, trainer):
        self.seen.append(("start", trainer.step))

    def record(self, trainer, finished):
        self.losses.append((finished.step, float(finished.metrics.sums.loss) / float(finished.metrics.sums.tokens)))

    def is_due(self, trainer, step):
        return step % 3 == 0

    def run(self, trainer, step):
        self.seen.append(("run", step, len(self.losses), int(trainer.state.step)))
        if step == self.stop_at:
            trainer.stop("enough")

    def close(self):
        self.seen.append("closed")


def test_a_hook_sees_every_step_finished_when_it_is_due_and_a_resumed_session_from_its_start(tmp_path):
    first, second = Spy(), Spy()
    session(tmp_path, first, **{"training.steps": 6})
    session(tmp_path, second)
    assert first.seen == [("start", 0), ("run", 3, 3, 3), ("run", 6, 6, 6), "closed"]
    assert second.seen == [("start", 6), "closed"]
    logged = [(record["step"], record["loss"]) for record in read_metrics(tmp_path / "run", "train")]
    assert [step for step, _ in first.losses + second.losses] == [step for step, _ in logged] == list(range(1, 9))
    assert [loss for _, loss in first.losses + second.losses] == pytest.approx([loss for _, loss in logged], rel=1e-6)


def test_a_hook_that_stops_the_run_leaves_it_logged_and_saved(tmp_path):
    trainer = session(tmp_path, Spy(stop_at=3), **{"logging.every": 2})
    assert trainer.stopped == "enough" and checkpoints(tmp_path / "run") == [3]
    assert [record["step"] for record in read_metrics(tmp_path / "run", "train")] == [2]
    assert [record["step"] for record in read_metrics(tmp_path / "run", "validation")] == []
    session(tmp_path, **{"logging.every": 2})
    tiny.assert_same(session(tmp_path / "whole", **{"logging.every": 2}).state.params, session(tmp_path).state.params)


def test_a_hook_is_closed_after_an_error(tmp_path):
    class Failing(Spy):
        def run(self, trainer, step):
            raise RuntimeError("mine")

    spy = Failing()
    with pytest.raises(RuntimeError, match="mine"):
        session(tmp_path, spy)
    assert spy.seen == [("start", 0), "closed"]


def test_a_profile_holds_the_steps_it_names_and_changes_nothing(tmp_path):
    plain = session(tmp_path / "plain")
    traced = session(tmp_path, Profile(2, 3, tmp_path / "trace"))
    tiny.assert_same(plain.state.params, traced.state.params)
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    (perfetto,) = (tmp_path / "trace").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    launches = [event for event in events if "train_step" in event.get("name", "") and "Execute" in event.get("name", "")]
    assert launches or any("train_step" in json.dumps(event) for event in events)


def test_steps_that_are_not_trained_are_refused_and_another_trace_can_begin(tmp_path):
    with pytest.raises(UserError, match="--profile 7:9: .*steps 1 to 8"):
        session(tmp_path, Profile(7, 9, tmp_path / "trace"))
    session(tmp_path / "next", Profile(1, 1, tmp_path / "next" / "trace"))


@pytest.mark.parametrize("steps", ["3", "5:2", "0:2", "a:b"])
def test_words_that_are_no_steps_are_refused(steps, capsys):
    assert cli.main(["train", "quickstart", "--profile", steps]) == 2
    assert f"--profile {steps}" in capsys.readouterr().err
