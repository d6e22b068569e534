"""Text that has not changed is not read again; text that may have changed is."""

import gzip
import os
import shutil
import time
import types

import pytest

from jaxnmt.config import Data, Experiment, Tokenizer, replace
from jaxnmt.data import identity, source, sources
from jaxnmt.data.prepared import prepare
from jaxnmt.data.sources import open_sources
from jaxnmt.errors import UserError
from jaxnmt.io.text import open_text
from jaxnmt.lab.ablations import budgets
from jaxnmt.lab.ablations.study import Budget, Study

SILENT = lambda line: None  # noqa: E731
NAMES = ("train.en", "train.de", "more.tsv", "test.tsv")


@pytest.fixture(autouse=True)
def a_minute_later(monkeypatch):
    """What a test writes was written a minute ago: no other clock can be set back than a file's time of change."""
    monkeypatch.setattr(source, "time", types.SimpleNamespace(time=lambda: time.time() + 60))


def age(path, seconds=60.0):
    """Make a file look as if it had been written so long ago."""
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


@pytest.fixture
def text(tmp_path):
    """Training text of both kinds and test sentences, written a minute ago."""
    lines = [" ".join(f"w{i * k % 97}" for k in range(1, 4 + i % 7)) for i in range(200)]
    contents = ["".join(f"{line}\n" for line in lines)] * 2 + ["".join(f"{line}\t{line}\n" for line in lines[:50])] * 2
    for name, content in zip(NAMES, contents, strict=True):
        (tmp_path / name).write_text(content)
        age(tmp_path / name)
    return [str(tmp_path / name) for name in NAMES]


@pytest.fixture
def experiment(text, tmp_path):
    data = Data(train=tuple(text[:3]), test=(text[3],), cache=str(tmp_path / "cache"), held_out=20, workers=1)
    return Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0))


@pytest.fixture
def opened(monkeypatch):
    """The names of the text files that have been opened, in order."""
    names = []

    def recorded(file, field):
        names.append(os.path.basename(file))
        return open_text(file, field)

    monkeypatch.setattr(sources, "open_text", recorded)
    return names


def opens(opened, do):
    """The files that a function opens, and its result."""
    opened.clear()
    result = do()
    return set(opened), result


def test_a_second_start_of_the_same_or_another_run_opens_no_training_text(experiment, tmp_path, opened):
    first, before = opens(opened, lambda: prepare(experiment, tmp_path / "run", SILENT))
    assert first == set(NAMES[:3])
    for run in ("run", "another run"):
        again, after = opens(opened, lambda run=run: prepare(experiment, tmp_path / run, SILENT))
        assert again == set() and after.fingerprints == before.fingerprints and after.validation == before.validation
    elsewhere = replace(experiment, **{"data.cache": str(tmp_path / "another host's cache")})
    assert opens(opened, lambda: prepare(elsewhere, tmp_path / "run", SILENT))[0] == set(NAMES[:3])


def test_a_second_start_of_a_study_opens_no_text_and_of_its_variants_one_reads_it(experiment, tmp_path, opened):
    variants = {"a": experiment, "b": replace(experiment, **{"training.seed": 2})}
    study = Study(variants=variants, budget=Budget(1, "steps"), seeds=(1,))
    first, sizes = opens(opened, lambda: budgets.measure(study, tmp_path / "study"))
    assert first == set(NAMES)
    assert opens(opened, lambda: budgets.measure(study, tmp_path / "study")) == (set(), sizes)


def rewritten(path):
    """The file with one word replaced by another of the same length, in the same place."""
    with open(path, "r+") as file:
        file.write("w9")


def replaced(path):
    """Another file under the same name, of the same size and with the same time of change."""
    stat = os.stat(path)
    shutil.copy(path, f"{path}.new")
    rewritten(f"{path}.new")
    os.utime(f"{path}.new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(f"{path}.new", path)


def with_its_time_restored(path):
    stat = os.stat(path)
    rewritten(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [rewritten, replaced, with_its_time_restored])
@pytest.mark.parametrize("name", ["train.en", "more.tsv"])
def test_changed_text_is_found_whatever_its_size_and_time_say(name, change, experiment, tmp_path, opened):
    before = prepare(experiment, tmp_path / "run", SILENT)
    change(tmp_path / name)
    again, after = opens(opened, lambda: prepare(experiment, tmp_path / "run", SILENT))
    assert name in again and after.fingerprints["fingerprint"] != before.fingerprints["fingerprint"]
    assert not identity.same(before.fingerprints, after.fingerprints)


def test_touched_text_is_read_once_and_is_the_same_text(experiment, tmp_path, opened):
    before = prepare(experiment, tmp_path / "run", SILENT)
    age(tmp_path / "train.en", 30)
    again, after = opens(opened, lambda: prepare(experiment, tmp_path / "run", SILENT))
    assert again == {"train.en", "train.de"} and after.fingerprints == before.fingerprints
    assert opens(opened, lambda: prepare(experiment, tmp_path / "run", SILENT))[0] == set()


def test_moved_text_is_compared_by_content_and_read_once(experiment, tmp_path, opened):
    before = prepare(experiment, tmp_path / "run", SILENT)
    (tmp_path / "train.en").rename(tmp_path / "moved.en")
    (tmp_path / "moved.de.gz").write_bytes(gzip.compress((tmp_path / "train.de").read_bytes()))
    age(tmp_path / "moved.de.gz")
    places = (str(tmp_path / "moved.en"), str(tmp_path / "moved.de.gz"), experiment.data.train[2])
    moved = replace(experiment, **{"data.train": places})
    again, fields = opens(opened, lambda: identity.moved(moved, before.fingerprints, ["train"]))
    assert again == {"moved.en", "moved.de.gz"} and fields == ["data.train"]
    again, after = opens(opened, lambda: prepare(moved, tmp_path / "run", SILENT))
    assert again == set() and identity.same(before.fingerprints, after.fingerprints)


@pytest.mark.parametrize("seconds", [-59, -3600])
def test_text_that_may_change_within_its_time_stamp_is_read_again(seconds, experiment, tmp_path, opened):
    """Written just now, or, by another computer's clock, in the future: a second change would leave the same size and time."""
    age(tmp_path / "train.en", seconds)
    prepare(experiment, tmp_path / "run", SILENT)
    assert opens(opened, lambda: prepare(experiment, tmp_path / "run", SILENT))[0] == {"train.en", "train.de"}


def test_text_that_was_written_just_now_with_an_older_time_is_read_again(experiment, tmp_path, opened, monkeypatch):
    """As `cp -p` and `tar x` do; where times of change are coarse, a second copy may leave the same ones."""
    monkeypatch.setattr(source, "time", time)
    prepare(experiment, tmp_path / "run", SILENT)
    assert opens(opened, lambda: prepare(experiment, tmp_path / "run", SILENT))[0] == set(NAMES[:3])


def test_a_damaged_cache_is_not_believed(experiment, tmp_path, opened):
    before = prepare(experiment, tmp_path / "run", SILENT)
    kept = list((tmp_path / "cache" / "texts").iterdir())
    assert len(kept) == 2
    for damage in (b"", b"[]", b"{}", b"null", kept[0].read_bytes()[:-9]):
        for path in kept:
            path.write_bytes(damage)
        again, after = opens(opened, lambda: prepare(experiment, tmp_path / "run", SILENT))
        assert again == set(NAMES[:3]) and after.fingerprints == before.fingerprints


def test_a_cache_that_cannot_be_written_costs_time_alone(text, tmp_path, opened):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        again, (text_file,) = opens(opened, lambda: open_sources((text[2],), "data.train", tmp_path / "file"))
        assert again == {"more.tsv"} and len(text_file) == 50 and text_file.fingerprint()


def test_what_is_wrong_with_text_is_said_at_each_start(tmp_path):
    (tmp_path / "a.tsv").write_text("a b\nc\td\n")
    age(tmp_path / "a.tsv")
    for _ in range(2):
        with pytest.raises(UserError, match="a.tsv:1 has no tab"):
            open_sources((str(tmp_path / "a.tsv"),), "data.train", tmp_path / "cache")


class InBucket:
    """A file in a bucket, as etils sees it."""

    def __init__(self, mtime, length):
        self._stat = types.SimpleNamespace(mtime=mtime, length=length)

    def __fspath__(self):
        return "gs://bucket/a.en"

    def stat(self):
        return self._stat


def test_a_file_in_a_bucket_is_known_by_its_size_and_time_and_read_where_the_bucket_tells_none(tmp_path):
    then, reads = int(time.time()) - 60, []

    def digest(*stat):
        return source.StatCache(tmp_path, "aligned", [InBucket(*stat)]).get("digest", lambda: reads.append(stat) or len(reads))

    assert [digest(then, 5), digest(then, 5), digest(then + 1, 5), digest(then + 1, 6)] == [1, 1, 2, 3]
    assert [digest(0, 5), digest(0, 5), digest(then, None), digest(then, None)] == [4, 5, 6, 7]
    now = int(source.time.time())
    assert [digest(now, 5), digest(now, 5)] == [8, 9]
