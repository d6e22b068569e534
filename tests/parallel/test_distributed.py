"""Real processes on loopback, from launch/local.sh: what several do is what one does."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
import types

import kill_resume
import processes
import pytest
from processes import Job, apart

from jaxnmt.errors import SAVED, UserError
from jaxnmt.parallel import distributed, peers
from jaxnmt.runs.directory import checkpoints as steps

SETTINGS = {"training.steps": 16, "validation.every": 8, "checkpoints.every": 5, "logging.every": 2, "logging.tensorboard": False}


def train(run, **settings):
    flags = [word for name, value in (SETTINGS | settings).items() for word in (f"--{name}", str(value))]
    return ["train", "tiny.py", "--run", str(run), *flags]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    kill_resume.write_data(folder, kill_resume.BAG)
    return folder


@pytest.fixture(scope="module")
def start(text):
    """`start(count, words, name)` -> a job whose log has that name."""
    environment = {"JAXNMT_CACHE": str(text / "cache")}
    return lambda count, words, name, **more: Job(count, words, text / f"{name}.log", text, **environment, **more)


@pytest.fixture(scope="module")
def one(start, text):
    """The folder of a run by one process."""
    job = start(1, train(text / "one"), "one")
    assert job.status() == 0, job.said()
    return text / "one"


def test_two_processes_stopped_by_sigterm_and_then_one_are_as_one_from_the_start(start, one, text):
    run = text / "two"
    job = start(2, train(run), "two")
    assert job.until("step 4/"), job.said()
    os.kill(job.workers()[1], signal.SIGTERM)
    assert job.status() == SAVED, job.said()
    said = job.said()
    assert said.count("saved at step") == said.count("starting the run") == said.count("compiled in") == 1
    assert 4 < steps(run)[-1] < 16 and f"saved at step {steps(run)[-1]} of 16" in said
    assert "on 2 cpu devices" in said and "Traceback" not in said and job.out() == ""
    saved = steps(run)[-1]
    job = start(1, train(run), "two-on")
    assert job.status() == 0 and f"resuming from checkpoint {saved}" in job.said(), job.said()
    assert apart(one, run, "train") < 1e-4 and apart(one, run, "validation") < 1e-4
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["16.txt", "8.txt"]
    assert steps(run) == steps(one)  # of those that two processes saved, what is not kept is gone


@pytest.mark.slow
def test_sighup_to_one_process_or_a_closed_pipe_stops_all_at_one_step_and_with_one_status(start, text):
    endless = {"training.steps": 100_000, "validation.every": 0, "checkpoints.every": 100_000}
    job = start(2, train(text / "hung", **endless), "hung")
    assert job.until("step 4/"), job.said()
    os.kill(job.workers()[1], signal.SIGHUP)
    assert job.status() == SAVED, job.said()
    assert len(steps(text / "hung")) == 1 and "Traceback" not in job.said()
    command = shlex.join(map(str, [processes.LAUNCHER, 2, *train(text / "closed", **endless)]))
    reader = f"{command} 2>&1 >/dev/null | grep -m 1 'step 4/'; echo ${{PIPESTATUS[0]}}"
    environment = os.environ | {"JAXNMT_PYTHON": sys.executable, "PYTHONPATH": str(processes.ROOT), "JAXNMT_CACHE": str(text / "cache")}
    done = subprocess.run(["bash", "-c", reader], cwd=text, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "85" and len(steps(text / "closed")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "count,axes",
    [(2, {"mesh.fsdp": 2}), (4, {}), (4, {"mesh.fsdp": 2, "mesh.tensor": 2}), (3, {})],
    ids=["fsdp", "four", "tensor", "three"],
)
def test_meshes_over_processes_are_as_one(start, one, text, count, axes, request):
    name = request.node.callspec.id
    job = start(count, train(text / name, **axes), name)
    assert job.status(400) == 0, job.said()
    assert apart(one, text / name, "train") < 1e-4 and apart(one, text / name, "validation") < 1e-4
    on = start(1, train(text / name, **{"training.steps": 18}), f"{name}-on")
    assert on.status() == 0 and "resuming from checkpoint 16" in on.said()


@pytest.mark.slow
def test_two_processes_stopped_at_random_moments_are_as_if_never_stopped_and_reach_ones_losses(start, text, one):
    job = start(2, train(text / "unstopped"), "unstopped")
    assert job.status() == 0, job.said()
    run, chance = text / "stopped", random.Random(os.getpid())
    told = processes.stopped_and_resumed(2, train(run), run, text, 2, chance, JAXNMT_CACHE=str(text / "cache"))
    assert apart(text / "unstopped", run, "train") == apart(text / "unstopped", run, "validation") == 0, told  # to the bit
    assert apart(one, run, "train") < 1e-4 and apart(one, run, "validation") < 1e-4, told


@pytest.mark.slow
def test_translations_and_scores_of_three_processes_are_ones(start, one, text):
    source = text / "numbers.a"
    found = []
    for count in (1, 3):
        job = start(count, ["translate", str(one), "--input", str(source), "--n-best", "2", "--beam-size", "3"], f"translate-{count}")
        assert job.status() == 0, job.said()
        job_2 = start(count, ["evaluate", str(one), "--split", "validation"], f"evaluate-{count}")
        assert job_2.status() == 0, job_2.said()
        found.append((job.out(), job_2.out()))
    assert found[0] == found[1] and len(found[0][0].splitlines()) == 800


@pytest.mark.slow
def test_a_failure_of_any_process_is_told_with_its_number(start, text):
    job = start(2, ["train", "tiny.py", "--run", str(text / "none"), "--data.train", "nowhere.a,nowhere.b"], "none")
    assert job.status() == 2
    assert "process 0 of 2: error: data.train: there is no file" in job.said()
    assert "process 1 of 2: error: process 0 could not prepare the data: data.train: there is no file" in job.said()
    job = start(2, train(text / "grid", **{"mesh.data": 3}), "grid")
    assert job.status() == 2
    assert all(f"process {n} of 2: error: mesh.data 3" in job.said() for n in (0, 1)) and "Traceback" not in job.said()


@pytest.mark.slow
def test_a_process_that_is_stuck_ends_all(start, text):
    changes = {"training.steps": 100_000, "training.stuck_minutes": 0.1, "validation.every": 0, "checkpoints.every": 100_000}
    job = start(2, train(text / "stuck", **changes), "stuck")  # without saving, where the watchdog is paused
    assert job.until("step 20/"), job.said()
    stuck = job.workers()[1]
    os.kill(stuck, signal.SIGSTOP)
    try:
        assert job.until("nothing done for 0.1 minutes since step", 60), job.said()
        assert "stuck is process 1" in job.said()
    finally:
        os.kill(stuck, signal.SIGKILL)
    assert job.status(60) != 0


class Store:
    """Stands in for the key-value store of JAX's coordinator."""

    def __init__(self, **at):
        self.at = {f"jaxnmt/at/{n[1:]}": str(step) for n, step in at.items()}

    def key_value_set(self, key, value, allow_overwrite=False):
        self.at[key] = value

    def key_value_dir_get(self, folder):
        return list(self.at.items())


def test_the_watchdog_names_the_process_that_is_behind_and_leaves(monkeypatch, capsys):
    left = []
    monkeypatch.setattr(distributed, "_process", distributed._Process(1, 3, Store(p0=7, p1=7, p2=5)))
    monkeypatch.setattr(os, "_exit", left.append)
    now = [0.0]
    monkeypatch.setattr(distributed, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    dog = distributed.Watchdog(0.002)
    for _ in range(10):
        now[0] += 0.1  # less than the limit each time, more in all
        dog.at(7)
        time.sleep(0.04)  # a look of the dog's lies in between
    assert not left
    now[0] += 1
    end = time.monotonic() + 10
    while not left and time.monotonic() < end:
        time.sleep(0.02)
    dog.stop()
    assert left[0] == 75
    said = capsys.readouterr().err
    assert said.startswith("process 1 of 3: nothing done for 0.002 minutes since step 7 was begun; stuck is process 2, at step 5")


def test_the_watchdog_is_paused_while_validating_and_saving(monkeypatch):
    left, now = [], [0.0]
    monkeypatch.setattr(distributed, "_process", distributed._Process(0, 2, Store(p0=7, p1=7)))
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(distributed, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    dog = distributed.Watchdog(0.002)
    dog.at(7)
    with dog.paused():
        now[0] += 100
        time.sleep(0.2)  # several looks of the dog's
    now[0] += 0.1
    time.sleep(0.2)
    assert not left
    now[0] += 1
    end = time.monotonic() + 10
    while not left and time.monotonic() < end:
        time.sleep(0.02)
    dog.stop()
    assert left[0] == 75


def test_a_process_that_has_saved_leaves_with_85_though_srun_ends_it_when_another_has_left(monkeypatch):
    import jax

    monkeypatch.setattr(distributed, "_process", distributed._Process(0, 2, types.SimpleNamespace(wait_at_barrier=lambda *_: None)))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: os.kill(os.getpid(), signal.SIGTERM))
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        assert distributed.shutdown(SAVED) == SAVED and not heard
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_environment_says_whether_there_are_others(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "MEGASCALE_COORDINATOR_ADDRESS", "SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert not peers.are_expected() and not distributed.is_distributed() and distributed.is_leader() and distributed.prefix() == ""
    told = {
        "JAX_COORDINATOR_ADDRESS": "10.0.0.1:8476",
        "MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1:8080",
        "SLURM_STEP_NUM_TASKS": "16",
        "TPU_WORKER_HOSTNAMES": "t-0,t-1",
        "JAXNMT_DISTRIBUTED": "auto",
    }
    for name, value in told.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert peers.are_expected(), name
    for name, value in {"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not peers.are_expected(), name
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:8476")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES is 'two'"):
        distributed.initialize()


def test_what_fails_in_process_0_is_raised_in_the_others(monkeypatch):
    class Client:
        said: dict = {}

        def key_value_set(self, key, value):
            self.said[key] = value

        def blocking_key_value_get(self, key, timeout):
            return self.said[key]

    begun = []

    def everywhere():
        with distributed.leader_first("read the data"):
            begun.append(distributed.prefix())
            raise failure

    # A mistake has a mistake's status in all processes, and what may pass has not: a JobSet ends at the former alone.
    for failure, status in ((UserError("there is none"), 2), (OSError("there is none"), 1)):
        for index, error in ((0, "there is none"), (1, "process 0 could not read the data: there is none")):
            monkeypatch.setattr(distributed, "_process", distributed._Process(index, 2, Client()))
            monkeypatch.setattr(distributed, "_uses", type(distributed._uses)())
            with pytest.raises(type(failure) if index == 0 else UserError, match=error) as raised:
                everywhere()
        assert raised.value.status == status
    assert begun == ["process 0 of 2: "] * 2
