"""A file is there whole or not at all, after a power cut too: its bytes reach the disk, then its name, then the folder."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.data.prepared import prepare
from jaxnmt.errors import UserError
from jaxnmt.io import files, streams
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.training.checkpoints import Checkpoints


@pytest.fixture
def order(monkeypatch):
    """What is synced and renamed, in order: (what, name)."""
    done = []
    sync, replace = os.fsync, os.replace

    def fsync(file):
        done.append(("sync", pathlib.Path(os.readlink(f"/proc/self/fd/{file}")).name))
        sync(file)

    def renamed(old, new):
        done.append(("rename", pathlib.Path(old).name, pathlib.Path(new).name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    return done


def by_write(path):
    files.write(path, "text\n")


def by_stream(path):
    with streams.line_writer(str(path)) as write:
        write("text")


def by_shard(path):
    with files.open_atomic(path) as file:
        np.savez(file, text=np.arange(3))


@pytest.mark.parametrize("write", [by_write, by_stream, by_shard])
def test_the_file_reaches_the_disk_before_its_name_and_the_name_before_the_end(write, order, tmp_path):
    write(tmp_path / "file")
    ((_, synced), (_, renamed, name), (_, folder)) = order
    assert [kind for kind, *_ in order] == ["sync", "rename", "sync"]
    assert synced == renamed != name == "file" and folder == tmp_path.name
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), files.open_atomic(tmp_path / "file") as file:
        file.write(b"new")
        raise RuntimeError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_is_put_in_its_place_stays_there(order, tmp_path):
    Checkpoints(tmp_path)._write_average({"a": jnp.ones(3)}, {"steps": [1]})
    prepared = prepare(tiny.experiment(tmp_path), tmp_path / "tokenizer", say=lambda line: None)
    for old, new, parent in (("average.new", "average", tmp_path.name), ("merged", prepared.fingerprints["fingerprint"], "cache")):
        assert order[order.index(("rename", old, new)) + 1] == ("sync", parent)


HOLD = """
import pathlib, sys, time
from jaxnmt.io import files
with files.lock(pathlib.Path(sys.argv[1]), print, "waiting"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_holds_a_lock_and_the_system_releases_it_when_that_process_is_killed(tmp_path):
    path, said = tmp_path / "folder" / "lock", []
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="busy"), files.lock(path, said.append, when_held=UserError("busy")):
            raise AssertionError("two processes hold the lock")
        threading.Timer(0.3, holder.kill).start()
        with files.lock(path, said.append, when_held="waiting"):
            assert holder.wait(10) == -signal.SIGKILL and said == ["waiting"]
    finally:
        holder.kill()
    with files.lock(path, said.append, when_held=UserError("busy")):
        pass


def test_a_file_system_without_locks_is_reported_and_stops_nothing(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    said = []
    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.lock(tmp_path / "lock", said.append, when_held=UserError("busy")):
        assert len(said) == 1 and f"{tmp_path / 'lock'} cannot be locked (No locks available)" in said[0]


def test_names_become_paths_on_this_computer_or_in_a_bucket(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.to_path("~/a.en") == pathlib.Path("/home/me/a.en") and files.to_path("a.en") == pathlib.Path("a.en")
    bucket = files.to_path("gs://bucket/a.en")
    assert isinstance(bucket, LiteralPath) and files.in_bucket(bucket) and files.to_path(bucket) is bucket
