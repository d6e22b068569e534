"""`jaxnmt translate --workers`: the same lines as one process, and no process is left."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tiny

from jaxnmt import cli
from jaxnmt.io.workers import cores

pytestmark = pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    source, target = tiny.write_text(folder, "text", 100, 1).split(",")
    run = folder / "run"
    assert cli.main(["train", tiny.write_config(folder), "--run", str(run), "--data.train", source, target]) == 0
    return run


def test_two_processes_write_what_one_does(run, tmp_path, capsys):
    lines = [" ".join("abcdefghij"[i % 10 : i % 10 + 1 + i % 7]) for i in range(70)]
    lines[3], lines[40] = "", "a b c d e f g h i j"  # translated in parts
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in lines))
    files = ["--input", str(tmp_path / "in"), "--n-best", "2", "--output"]
    for workers in ("1", "2"):
        assert cli.main(["translate", str(run), *files, str(tmp_path / workers), "--workers", workers]) == 0
    assert (tmp_path / "1").read_text() == (tmp_path / "2").read_text() and "by 2 processes" in capsys.readouterr().err


def test_two_processes_translate_a_document_as_one_does(run, tmp_path, capfd):
    bits = ["a b c d", "e {name} f", "  g h", "", "d %s e f g h i j"]
    lines = [f"{bits[i % 5]} {' '.join('abcdefghij'[i % 7 : i % 7 + 1 + i % 4])}" for i in range(60)]
    (tmp_path / "in.txt").write_text("\n".join(lines))
    said = {}
    for workers in ("1", "2"):
        out = tmp_path / f"{workers}.txt"
        command = ["translate", str(run), "--document", str(tmp_path / "in.txt"), "--output", str(out), "--workers", workers]
        assert cli.main([*command, "--batch-size", "4"]) == 0
        said[workers] = sorted(line for line in capfd.readouterr().err.splitlines() if line.startswith("line "))
    assert (tmp_path / "1.txt").read_text() == (tmp_path / "2.txt").read_text() != (tmp_path / "in.txt").read_text()
    assert said["1"] == said["2"] and said["1"]  # what the model does not copy, by the numbers of the document's lines


def test_more_processes_than_cores_are_refused(run, capsys):
    assert cli.main(["evaluate", str(run), "--workers", "9999"]) == 2
    assert f"9999 is more than the {len(cores())} cores" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_says_the_same(run, tmp_path, capsys):
    for workers in ("1", "2"):
        assert cli.main(["evaluate", str(run), "--split", "validation", "--output", str(tmp_path / workers), "--workers", workers]) == 0
    assert (tmp_path / "1").read_text() == (tmp_path / "2").read_text()
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


def workers_of(pid):
    """The processes that a process has spawned; not Python's resource tracker, which ends with it."""
    found = [int(word) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    return [child for child in found if b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(("ended_by", "status"), [("Ctrl-C", 130), ("a worker's death", 2), ("a closed pipe", 141)])
def test_no_process_is_left(ended_by, status, run, tmp_path):
    if not pathlib.Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    command = [sys.executable, "-m", "jaxnmt", "translate", str(run), "--workers", "2"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with (tmp_path / "err").open("w") as err, subprocess.Popen(command, stderr=err, **pipes) as process:
        process.stdin.write("a b c\n")
        assert process.stdout.readline()  # although stdin stays open
        pids = workers_of(process.pid)
        assert len(pids) in (1, 2)
        if ended_by == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            if ended_by == "a closed pipe":
                process.stdout.close()
            else:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
            process.stdin.write("d e\n")
        assert process.wait(60) == status
    said = (tmp_path / "err").read_text()
    assert "Traceback" not in said and "resource_tracker" not in said and ("error: a process that translates died" in said) == (status == 2)
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)
