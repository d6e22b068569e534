"""A file is there whole or not at all, after a power cut too: its bytes reach the disk, then its name, then the folder."""

import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.data.prepared import prepare
from jaxnmt.io import files, streams
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
    for old, new, parent in (("average.new", "average", tmp_path.name), (f".{prepared.fingerprint}", prepared.fingerprint, "cache")):
        assert order[order.index(("rename", old, new)) + 1] == ("sync", parent)
