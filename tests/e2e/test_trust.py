"""Opening a run executes its model's code only if this computer has trained it, or with --trust."""

import json
import os
import shutil
import subprocess
import sys

import mine
import pytest
import tiny

from jaxnmt import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`run`, trained here, with two checkpoints, and text to translate."""
    folder = tmp_path_factory.mktemp("trust")
    source, target = tiny.write_text(folder, "text", 120, 1).split(",")
    (folder / "in").write_text("a b\nc\n")
    command = ["train", str(mine.write(folder)), "--run", str(folder / "run"), "--data.train", source, target]
    assert cli.main([*command, "--data.cache", str(folder / "cache"), "--data.test", source, target]) == 0
    return folder


@pytest.fixture
def downloaded(folder, tmp_path):
    """A copy of the run whose code writes a file when it is executed; -> (the run, that file)."""
    run, marker = shutil.copytree(folder / "run", tmp_path / "run"), tmp_path / "executed"
    code = (run / "model.py").read_text()
    (run / "model.py").write_text(f"{code}\nopen({str(marker)!r}, 'a').close()\n")
    return run, marker


COMMANDS = {
    "translate": ["translate", "RUN", "--input", "FOLDER/in"],
    "evaluate": ["evaluate", "RUN"],
    "compare": ["compare", "RUN", "FOLDER/run", "--samples", "10"],
    "visualize": ["visualize", "RUN", "a b", "--output", "FOLDER/page.html"],
    "probe length": ["probe", "length", "RUN", "--output", "FOLDER/length.svg"],
    "runs average": ["runs", "average", "RUN", "--last", "2"],
    "data prepare": ["data", "prepare", "FOLDER/mine.py", "--run", "RUN", "--data.train", "FOLDER/text.xx", "FOLDER/text.yy"],
    "train": ["train", "FOLDER/mine.py", "--run", "RUN", "--data.train", "FOLDER/text.xx", "FOLDER/text.yy"],
    "resume": ["resume", "RUN", "--training.steps", "13"],
}


def words(name, folder, run):
    return [word.replace("RUN", str(run)).replace("FOLDER", str(folder)) for word in COMMANDS[name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_was_not_trained_here_executes_nothing(name, folder, downloaded, capsys):
    run, marker = downloaded
    assert cli.main(words(name, folder, run)) == 2
    told = capsys.readouterr().err
    assert f"error: opening {run} would execute {run / 'model.py'}, and this computer has trained no run with that code: read it" in told
    assert told.count("\n") == 1 and "repeat the command with --trust" in told
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *(("translate", place) for place in (0, 1, 2, -1)),
        *(pytest.param("evaluate", place, marks=[pytest.mark.slow] if place in (1, 2) else []) for place in (0, 1, 2, -1)),
    ],
)
def test_with_trust_anywhere_it_does_and_only_for_that_command(name, place, folder, downloaded):
    run, marker = downloaded
    command = words(name, folder, run)
    command.insert(place if place >= 0 else len(command), "--trust")
    assert cli.main(command) == 0 and marker.exists()
    assert cli.main(words(name, folder, run)) == 2


def test_going_on_with_it_is_training_it_here(folder, downloaded):
    run, marker = downloaded
    assert cli.main([*words("resume", folder, run), "--trust"]) == 0 and marker.exists()
    assert cli.main(words("translate", folder, run)) == 0


def test_showing_executes_nothing(folder, downloaded, capsys):
    run, marker = downloaded
    for shown in ([str(run)], [str(run.parent)], [str(run), "--trust"]):
        assert cli.main(["runs", "show", *shown]) == 0
    told = capsys.readouterr().out
    assert f"{run}: Mine, step 12 of 12" in told and "model.width" in told and "\nrun  step 12 of 12" in told
    assert cli.main(["runs", "curves", str(run), "--metric", "loss", "--output", str(run.parent / "curves.svg")]) == 0
    assert not marker.exists()


def test_a_class_that_would_be_imported_is_not(folder, downloaded, monkeypatch, capsys):
    run, marker = downloaded
    (run.parent / "evil_twin.py").write_text((run / "model.py").read_text())
    monkeypatch.syspath_prepend(run.parent)
    settings = json.loads((run / "config.json").read_text())
    settings["model"]["type"] = "evil_twin:Mine"
    (run / "config.json").write_text(json.dumps(settings))
    (run / "model.py").unlink()
    assert cli.main(words("translate", folder, run)) == 2
    assert f"opening {run} would execute the module evil_twin" in capsys.readouterr().err and not marker.exists()
    assert cli.main([*words("translate", folder, run), "--trust"]) == 0 and marker.exists()


def in_a_process(*command, **environment):
    return subprocess.run([sys.executable, "-m", "jaxnmt", *command], env=os.environ | environment, capture_output=True, text=True)


def test_a_run_that_was_trained_here_needs_no_flag_wherever_it_is_moved(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "copy" / "elsewhere")
    done = in_a_process(*words("translate", folder, tmp_path / "copy" / "elsewhere"))
    assert done.returncode == 0, done.stderr
    assert "--trust" in in_a_process(*words("translate", folder, folder / "run"), XDG_STATE_HOME=str(tmp_path)).stderr


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_no_error_and_processes_of_ours_go_on_working(folder, tmp_path):
    nowhere = {"XDG_STATE_HOME": "/proc/nowhere"}
    text = [word for part in ("train", "test") for word in (f"--data.{part}", f"{folder}/text.xx", f"{folder}/text.yy")]
    train = ["train", str(folder / "mine.py"), "--run", str(tmp_path / "run"), *text, "--training.steps"]
    for steps in ("2", "3"):  # the second opens the run that the first has begun with the same code
        done = in_a_process(*train, steps, **nowhere)
        assert done.returncode == 0, done.stderr
    assert in_a_process("resume", str(tmp_path / "run"), **nowhere).returncode == 2
    laws = in_a_process("laws", str(folder / "mine.py"), "--only", "devices", **nowhere)  # a process with eight devices opens it
    assert laws.stdout.split()[:2] == ["holds", "devices"], laws.stdout + laws.stderr


def test_trust_goes_with_verbs_that_open_runs(capsys):
    assert cli.main(["laws", "quickstart", "--trust"]) == 2 and "`jaxnmt laws` opens no run" in capsys.readouterr().err
    assert cli.main(["--trust"]) == 0 and capsys.readouterr().out.startswith("jaxnmt: neural machine translation")
    assert cli.main(["launch", "local", "--print", "--", "resume", "runs/x", "--trust"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("resume runs/x --trust")
    for verb, told in (("resume", True), ("train", True), ("ablate", True), ("bench", True)):
        assert cli.main([*verb.split(), "--help"]) == 0
        assert ("--trust executes" in " ".join(capsys.readouterr().out.replace("│", " ").split())) is told


def test_modules_beside_a_run_are_not_imported(tmp_path):
    """Python puts the current folder first where it looks for modules, if it is started with -m."""
    for name in ("jaxnmt", "tyro", "jax"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w').close()\n")
    command = [sys.executable, "-P", "-m", "jaxnmt", "launch", "local", "--processes", "1", "--", "evaluate", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "is not a run" in done.stderr and not (tmp_path / "executed").exists()
