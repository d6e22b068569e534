"""A run in a bucket (gs://) is what the same run in a folder is: against an emulator of Google Cloud Storage on this computer."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
import tiny

from jaxnmt import cli
from jaxnmt.errors import UserError
from jaxnmt.runs import directory as run_directory


@pytest.fixture(scope="module")
def bucket():
    """The environment of processes that take an emulator for Google's servers; its bucket is called bucket."""
    pytest.importorskip("gcsfs", reason="gcsfs is not installed (extra gcs)")
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    emulator = pathlib.Path(__file__).with_name("bucket.py")
    server = subprocess.Popen([sys.executable, emulator, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/storage/v1/b/bucket").close()
            break
        except OSError:
            time.sleep(0.1)
    nobody = {"NO_GCE_CHECK": "true", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}  # else Google's servers are looked for, in vain
    yield os.environ | nobody | {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address, "JAX_PLATFORMS": "cpu"}
    server.terminate()
    server.wait()


def in_bucket(env, name):
    """The text of a file in the bucket."""
    place = urllib.parse.quote(name, safe="")
    with urllib.request.urlopen(f"{env['STORAGE_EMULATOR_HOST']}/storage/v1/b/bucket/o/{place}?alt=media") as answer:
        return answer.read().decode()


def remove(env, name):
    address = f"{env['STORAGE_EMULATOR_HOST']}/storage/v1/b/bucket/o/{urllib.parse.quote(name, safe='')}"
    urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()


def jaxnmt(env, *words, lines="", told="stdout"):
    done = subprocess.run([sys.executable, "-m", "jaxnmt", *words], env=env, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return getattr(done, told)


def exact(text):
    return [{name: value for name, value in json.loads(line).items() if name != "timing"} for line in text.splitlines()]


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_in_a_folder(bucket, tmp_path):
    source, target = tiny.write_text(tmp_path, "text", 200, 1).split(",")
    text = ["--data.train", source, target, "--validation.every", "10", "--checkpoints.every", "5"]
    train, said = ["train", tiny.write_config(tmp_path), "--run", "RUN", *text], []
    for run, commands in (
        (str(tmp_path / "run"), [[*train, "--training.steps", "20"]]),
        ("gs://bucket/runs/a", [[*train, "--training.steps", "10"], ["resume", "RUN", "--training.steps", "20"]]),
    ):
        for words in commands:
            jaxnmt(bucket, *(run if word == "RUN" else word for word in words))
        average = ["runs", "average", run, "--last", "2"]
        jaxnmt(bucket, *average)
        jaxnmt(bucket, *average)  # the old one is replaced
        said.append([jaxnmt(bucket, "translate", run, "--checkpoint", name, lines="a b c\nd e\n") for name in ("best", "average")])
        shown = jaxnmt(bucket, "runs", "show", run)
        assert "step 20 of 20" in shown
        said[-1].append(next(line for line in shown.splitlines() if line.startswith("checkpoints:")))  # old ones are removed
    assert said[0] == said[1]
    assert exact(in_bucket(bucket, "runs/a/metrics.jsonl")) == exact((tmp_path / "run" / "metrics.jsonl").read_text())
    assert in_bucket(bucket, "runs/a/samples/20.txt") == (tmp_path / "run" / "samples" / "20.txt").read_text()
    remove(bucket, "runs/a/checkpoints/20/commit_success.txt")  # killed while the last checkpoint was written
    assert "resuming from checkpoint 15" in jaxnmt(bucket, "resume", "gs://bucket/runs/a", told="stderr")
    assert exact(in_bucket(bucket, "runs/a/metrics.jsonl")) == exact((tmp_path / "run" / "metrics.jsonl").read_text())


def test_other_places_are_refused():
    with pytest.raises(UserError, match="only gs://"):
        run_directory.folder("s3://bucket/run")
    assert cli.main(["resume", "s3://bucket/run"]) == 2


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?b"])
def test_a_name_that_a_bucket_takes_for_a_pattern_is_refused(name, capsys):
    for words in (["train", "quickstart", "--run", f"gs://bucket/{name}"], ["resume", f"gs://bucket/{name}"]):
        assert cli.main(words) == 2
        assert f"gs://bucket/{name}: " in capsys.readouterr().err


def test_what_buckets_need_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gcsfs"):
        run_directory.folder("gs://bucket/run")
