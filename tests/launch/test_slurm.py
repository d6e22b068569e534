"""`jaxnmt launch slurm` and `ablate --submit slurm` on a real SLURM: nodes of this computer, started and ended by these tests."""

import csv
import os
import re
import signal
import sys
import time

import kill_resume
import pytest
import slurm_cluster
import tiny
from processes import apart

from jaxnmt.config.files import save_config
from jaxnmt.runs.directory import checkpoints as steps

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing())]

SETTINGS = {"training.steps": 24, "validation.every": 12, "checkpoints.every": 5, "logging.every": 2, "logging.tensorboard": False}
ENDLESS = {"training.steps": 1_000_000, "validation.every": 0, "checkpoints.every": 1_000_000, "logging.every": 10}


def train(run, **settings):
    flags = [word for name, value in (SETTINGS | settings).items() for word in (f"--{name}", str(value))]
    return ["train", "tiny.py", "--run", run, *flags]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    kill_resume.write_data(folder)
    with slurm_cluster.cluster(folder) as running:
        yield running


@pytest.fixture(autouse=True)
def no_job_is_left(cluster):
    yield
    cluster.cancel_all()
    assert not [pid for node in cluster.nodes for pid in cluster.processes(node)]


@pytest.fixture(scope="module")
def one(cluster):
    """The folder of a run that one process on one node has trained."""
    job = cluster.launch(*train("one"), nodes=1)
    assert job.ended()["JobState"] == "COMPLETED", job.log()
    return cluster.folder / "one"


def failed(job, *statuses):
    """Return the log of a job that ended with one of these statuses (any, if none is given) and was not queued again."""
    end = job.ended()
    assert (end["JobState"], end["Restarts"]) == ("FAILED", "0"), job.log()
    assert not statuses or end["ExitCode"] in [f"{status}:0" for status in statuses], job.log()
    assert "queued again" not in job.log()
    return job.log()


def saved_at(job):
    """Return the steps that sessions of a job say they have saved."""
    return [int(step.replace(",", "")) for step in re.findall(r"saved at step ([\d,]+) of", job.log())]


def measured(what, since):
    """Print how long something took: with `pytest -s`, the figures of docs/launch.md."""
    print(f"\n{what}: {time.monotonic() - since:.1f} s")


# ---- jobs that save


def test_two_nodes_save_when_asked_are_queued_again_and_reach_the_losses_of_one(cluster, one):
    run = cluster.folder / "two"
    job = cluster.launch(*train("two"))
    job.until("step 4/")
    asked = time.monotonic()
    job.signal("TERM")
    job.until("saved at step")
    measured("from SIGTERM to `saved`", asked)
    assert job.ended()["JobState"] == "PENDING", job.log()
    measured("from SIGTERM to queued again", asked)
    (saved,) = saved_at(job)
    assert steps(run)[-1] == saved and f"job {job.number} has saved and is queued again" in job.log()
    assert f"process 0 at {cluster.nodes[0]}:" in job.log() and ", waiting for 1 other\n" in job.log()
    job.restart_now()
    end = job.until_state("COMPLETED", "FAILED")
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), job.log()
    assert f"resuming from checkpoint {saved}" in job.log() and saved_at(job) == [saved]
    assert apart(one, run, "train") < 1e-4 and apart(one, run, "validation") < 1e-4


def test_at_the_time_limit_a_job_saves_and_is_queued_again_and_scancel_ends_it(cluster):
    run = cluster.folder / "limit"
    job = cluster.launch(*train("limit", **ENDLESS), SBATCH_TIMELIMIT="1", SBATCH_SIGNAL="TERM@20")
    assert job.ended(180)["JobState"] == "PENDING", job.log()
    (saved,) = saved_at(job)
    assert steps(run) == [saved]
    job.restart_now()
    job.until(f"resuming from checkpoint {saved}")
    job.until(r"queued again[\s\S]*step [\d,]+/")
    cluster.run("scancel", job.number)
    end = job.ended()
    assert (end["JobState"], end["Restarts"]) == ("CANCELLED", "1")
    assert len(saved_at(job)) == 2 and steps(run)[-1] == saved_at(job)[-1] > saved  # it has the time to save
    assert job.log().count("queued again") == 1


def test_a_study_saves_at_its_limit_is_queued_again_and_has_the_table_of_one_process(cluster):
    parent = tiny.experiment(cluster.folder / "text", **{"training.ema_decay": 0.0, "validation.metric": "loss"})
    save_config(parent, cluster.folder / "parent.json")
    (cluster.folder / "heads.py").write_text(
        "import pathlib\nfrom jaxnmt.lab.ablations.study import Budget, Study\nfrom jaxnmt.config import replace\n"
        "from jaxnmt.config.files import read_config\n\n\ndef study():\n"
        f"    parent = read_config(pathlib.Path({str(cluster.folder / 'parent.json')!r}))\n"
        "    variants = {'one head': replace(parent, **{'model.num_heads': 1}), 'two heads': parent}\n"
        "    return Study(variants=variants, budget=Budget(6, 'steps'), seeds=(1,))\n"
    )
    ablate = ["jaxnmt", "ablate", "heads.py", "--folder"]
    cluster.run(*ablate, "alone", cwd=cluster.folder)
    submit = ["--submit", "slurm", "--workers", "1", "--cpus", "1", "--gpus", "1", "--setup", "echo set up"]
    told = cluster.run(*ablate, "shared", *submit, cwd=cluster.folder)
    job, folder = slurm_cluster.Job(cluster, told.split()[-1]), cluster.folder / "shared"
    cluster.until(lambda: list(folder.glob("runs/*/*/result.json")), 120, f"nothing was finished: {job.fields()}")
    job.signal("TERM")
    assert job.ended()["JobState"] == "PENDING", (folder / "slurm-1.txt").read_text()
    job.restart_now()
    assert job.until_state("COMPLETED", "FAILED", seconds=180)["JobState"] == "COMPLETED"
    log = (folder / "slurm-1.txt").read_text()
    assert log.count("set up\n") == 2 and log.count("queued again") == 1  # the second session has not removed the first one's lines
    tables = [list(csv.DictReader((cluster.folder / name / "report.csv").open())) for name in ("alone", "shared")]
    without_speed = [[{**row, "seconds": "", "runs": ""} for row in table] for table in tables]
    assert without_speed[0] == without_speed[1]


def test_of_an_array_only_the_task_that_has_saved_is_queued_again(cluster):
    script = cluster.script(*train("array"), nodes=1)
    work = "bash -c 'case $SLURM_ARRAY_TASK_ID in 1) exit 2 ;; 2) sleep 15 ;; 3) sleep 5; exit 85 ;; esac'"
    job = cluster.submit(re.sub(r"(srun .*) jaxnmt .*", lambda srun: f"{srun[1]} {work}", script), "--array=1-3")
    ended = {n: slurm_cluster.Job(cluster, f"{job.number}_{n}").ended() for n in (3, 1, 2)}
    assert [(ended[n]["JobState"], ended[n]["Restarts"]) for n in (1, 2, 3)] == [("FAILED", "0"), ("COMPLETED", "0"), ("PENDING", "1")]


# ---- jobs that fail: none is queued again


def test_a_run_that_is_not_there(cluster):
    log = failed(cluster.launch("evaluate", "nowhere"), 2, 143)
    assert "error: nowhere does not exist" in log and "Traceback" not in log


def test_a_mistake_in_the_settings_while_another_node_is_two_seconds_slower(cluster):
    script = cluster.script(*train("mistake"), options=["--setup", "export BEFORE_JAXNMT='[ $SLURM_PROCID = 0 ] || sleep 2'"])
    job = cluster.submit(script.replace("--training.steps 24", "--training.stepz 24"))
    assert "did you mean --training.steps" in failed(job, 143)  # the slower one's, which srun ends


def test_a_task_that_is_killed(cluster):
    job = cluster.launch(*train("killed", **ENDLESS))
    job.until("step 20/")
    (victim,) = [pid for pid in cluster.processes(cluster.nodes[1]) if "command.py" in slurm_cluster.command_of(pid)]
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    failed(job)
    measured("from the death of a task to the end of the job", killed)
    assert not saved_at(job)


def test_a_host_whose_name_does_not_resolve(cluster):
    log = failed(cluster.submit(cluster.script(*train("nowhere")), f"--nodelist={cluster.nodes[1]},{cluster.nodes[2]}"), 75, 143)
    assert re.search(rf"error: process \d of 2: process 0 is at {cluster.nodes[1]}:\d+, and {cluster.nodes[1]} does not resolve", log)


def test_peers_that_do_not_come(cluster):
    setup = "export WAIT_SECONDS=6 BEFORE_JAXNMT='[ $SLURM_PROCID = 0 ] || sleep 300'"
    log = failed(cluster.launch(*train("waiting"), options=["--setup", setup]), 143)  # the others', which srun ends
    assert re.search(rf"process 0 at {cluster.nodes[0]}:\d+, waiting for 1 other\n", log)
    assert "error: process 0 of 2: not all of the 1 others have connected to process 0 at" in log and "***" not in log


def test_evaluate_is_not_queued_again_at_its_limit(cluster, one):
    job = cluster.launch("evaluate", "one")
    job.until("waiting for 1 other")
    job.signal("TERM")
    assert "queued again" not in failed(job, 143)


def test_a_set_up_that_fails(cluster):
    assert "the set-up failed with status 4" in failed(cluster.launch(*train("set-up"), options=["--setup", "(exit 4); true"]), 4)


def test_a_frozen_node(cluster):
    run, node = cluster.folder / "frozen", cluster.nodes[1]
    job = cluster.launch(*train("frozen", **ENDLESS | {"checkpoints.every": 50}))
    cluster.until(lambda: steps(run), 120, "no checkpoint")
    frozen = cluster.node_processes(node)
    cluster.until(lambda: kill_resume.half_saved(run), 120, "nothing was being saved", every=0.005)
    stopped = time.monotonic()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        end = job.ended(slurm_cluster.NODE_TIMEOUT * 4)
        measured(f"from a node that freezes to queued again (SlurmdTimeout={slurm_cluster.NODE_TIMEOUT})", stopped)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGKILL)
    assert end["JobState"] == "PENDING", job.log()
    cluster.start_node(node)
    found, lost = steps(run)[-1], kill_resume.half_saved(run)
    job.restart_now()
    unfinished = rf"; the save of step {found + 50} was not finished\n" if lost else r"\n"
    job.until(rf"resuming the run frozen from checkpoint {found}{unfinished}")
    job.until(rf"resuming from checkpoint {found}[\s\S]*step [\d,]+/")


# ---- what a job is given


def test_a_task_that_sees_one_gpu_takes_that_one(cluster):
    show = f'{sys.executable} -c "from jaxnmt.parallel import peers; print(peers.read_environment().devices)"'
    script = cluster.script(*train("gpus"), nodes=1, options=["--gpus", "2"])
    for option, devices in (("", ["[0]", "[1]"]), ("--gpus-per-task=1", ["[0]", "[0]"]), ("--gpu-bind=single:1", ["[0]", "[0]"])):
        job = cluster.submit(re.sub(r"(srun .*) jaxnmt .*", lambda srun, option=option: f"{srun[1]} {option} {show}", script))
        assert job.ended()["JobState"] == "COMPLETED", job.log()
        assert sorted(job.log().splitlines()) == devices, option


def test_two_steps_of_one_job_do_not_meet(cluster, one):
    script = cluster.script(*train("step"), options=["--cpus", "2"])
    step = re.search(r"^srun .*", script, re.M)[0].replace("--cpus-per-task=2", "--cpus-per-task=1 --exact --mem=0")
    both = [f"{step.replace('--run step', f'--run step-{n}')} & steps+=($!)" for n in (1, 2)]
    wait = 'status=0; for step in "${steps[@]}"; do wait "$step" || status=$?; done'
    job = cluster.submit(re.sub(r"^srun [\s\S]*?status=\$\?$", lambda _: "\n".join([*both, wait]), script, flags=re.M))
    assert job.ended(120)["JobState"] == "COMPLETED", job.log()
    for n in (1, 2):
        assert apart(one, cluster.folder / f"step-{n}", "train") < 1e-4


def test_what_a_site_asks_for_is_named_by_variables(cluster):
    variables = {"PARTITION": "other", "MEM_PER_NODE": "100M", "EXCLUSIVE": "user", "CONSTRAINT": "fast"}
    job = cluster.launch(
        *train("asked"), nodes=1, options=["--setup", "exit 0"], **{f"SBATCH_{name}": value for name, value in variables.items()}
    )
    job.ended()
    asked = job.fields()
    assert (asked["Partition"], asked["MinMemoryNode"], asked["Features"], asked["OverSubscribe"]) == ("other", "100M", "fast", "USER")
