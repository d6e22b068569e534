import dataclasses
import gc
import gzip
import hashlib
import inspect
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import unicodedata

import numpy as np
import pytest

from jaxnmt.config import Cleaning, Data, Experiment, MaskedLanguage, Tokenizer, replace
from jaxnmt.data import cleaning, prepared, shards, tokenizer_choice
from jaxnmt.data.cleaning import Reason, check
from jaxnmt.data.prepared import Prepared, prepare
from jaxnmt.data.sources import open_sources
from jaxnmt.data.tokenizer import load_tokenizer
from jaxnmt.errors import UserError

SILENT = lambda line: None  # noqa: E731
CHUNK = 50


def sentences(count: int, first: int = 0) -> list[tuple[str, str]]:
    """Pairs of 3 to 9 words, every fifth source sentence said twice with two translations."""
    pairs = []
    for i in range(first, first + count):
        j = i - 1 if i % 5 == 0 and i > first else i
        pairs.append(
            (" ".join(f"w{j * k % 97}" for k in range(1, 4 + j % 7)) + f" n{j}", " ".join(f"x{i * k % 89}" for k in range(1, 4 + i % 7)))
        )
    return pairs


def write(path: pathlib.Path, pairs) -> str:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return str(path)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK", CHUNK)
    data = Data(train=(write(tmp_path / "train.en-de.tsv", sentences(430)),), cache=str(tmp_path / "cache"), held_out=40, workers=1)
    return Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0, joint=False))


def key(result: Prepared) -> str:
    return result.fingerprints["fingerprint"]


def contents(corpus) -> list[bytes]:
    return [a.tobytes() for a in (corpus.source.ids, corpus.source.offsets, corpus.target.ids, corpus.target.offsets)]


def texts(result, experiment, corpus=0) -> list[str]:
    """The target texts of a corpus, decoded."""
    return [result.tokenizer.decode_target(result.train[corpus].target[i]) for i in range(len(result.train[corpus]))]


def files(folder: pathlib.Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_ids_are_those_of_the_text_in_order(experiment, tmp_path):
    experiment = replace(experiment, **{"data.held_out": 0})
    result = prepare(experiment, tmp_path / "tokenizer", SILENT)
    pairs, (corpus,) = sentences(430), result.train
    assert len(corpus) == 430 and result.validation == []
    assert corpus.source.ids.dtype == corpus.target.ids.dtype == np.uint16
    assert corpus.source.offsets.dtype == np.int64 and corpus.source.lengths.dtype == np.int32
    for i in (0, 49, 50, 51, 429):
        assert corpus.source[i].tolist() == result.tokenizer.encode_source([pairs[i][0]])[0]
        assert corpus.target[i].tolist() == result.tokenizer.encode_target([pairs[i][1]])[0]
        assert (corpus.source.lengths[i], corpus.target.lengths[i]) == (len(pairs[i][0].split()), len(pairs[i][1].split()))
    assert result.languages == ("en", "de")
    assert not corpus.source.ids.flags.writeable


def test_the_longest_pairs_are_shown_as_text_however_pairs_were_dropped(tmp_path):
    first = write(tmp_path / "a.tsv", [("", "dropped"), ("a b c", "x y"), ("a", "y" * 200), ("a b c d", "x y z")])
    second = write(tmp_path / "b.tsv", [("c", "z"), ("d d d d d", "z")])
    data = Data(train=(f"{first}@1", f"{second}@1"), held_out=0, cache=str(tmp_path / "cache"), cleaning=Cleaning(max_ratio=1e9))
    result = prepare(Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0)), tmp_path / "tokenizer", SILENT)
    corpus, index = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1])
    expected = [f"{first}: a b c d => x y z", f"{second}: d d d d d => z", f"{first}: a b c => x y", f"{first}: a => {'y' * 99}…"]
    assert result.longest(corpus, index, most=4) == expected
    assert result.longest(corpus[:2], index[:2]) == expected[2:]


def test_wide_vocabularies_get_wide_ids(tmp_path):
    words = [f"w{i}" for i in range(66_000)]
    train = write(tmp_path / "a.tsv", [(" ".join(words[i : i + 100]), "x y " * 60) for i in range(0, len(words), 100)])
    data = Data(train=(train,), cache=str(tmp_path / "c"), held_out=0)
    experiment = Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0, joint=False))
    (corpus,) = prepare(experiment, tmp_path / "t", SILENT).train
    assert corpus.source.ids.dtype == np.uint32 and len(np.unique(corpus.source.ids)) == 66_000


def test_no_held_out_sentence_is_trained_on(experiment, tmp_path):
    said: list[str] = []
    result = prepare(experiment, tmp_path / "tokenizer", said.append)
    held = {source for source, _ in result.validation}
    everything = sentences(430)
    trained = {tuple(result.train[0].source[i]) for i in range(len(result.train[0]))}
    assert not trained & {tuple(ids) for ids in result.tokenizer.encode_source(sorted(held))}
    assert sorted(result.validation) == sorted(pair for pair in everything if pair[0] in held)
    assert 30 <= len(result.validation) <= 40 and len(result.train[0]) + len(result.validation) == 430
    assert any(f"{len(result.validation)} validation pairs held out" in line for line in said)
    assert prepare(experiment, tmp_path / "tokenizer", SILENT).validation == result.validation


def test_at_most_a_tenth_is_held_out(experiment, tmp_path):
    result = prepare(replace(experiment, **{"data.held_out": 1000}), tmp_path / "t", SILENT)
    assert 35 <= len(result.validation) <= 43


def test_held_out_sentences_are_kept_from_all_sources(experiment, tmp_path):
    other = write(tmp_path / "other.tsv", [(source, f"{target} again") for source, target in sentences(200, 100)])
    experiment = replace(experiment, **{"data.train": (*experiment.data.train, f"{other}@3")})
    result = prepare(experiment, tmp_path / "t", SILENT)
    assert result.weights == [1.0, 3.0] and len(result.train) == 2
    held = set(map(tuple, result.tokenizer.encode_source([source for source, _ in result.validation])))
    for corpus in result.train:
        assert not held & {tuple(corpus.source[i]) for i in range(len(corpus))}
    assert sum(map(len, result.train)) + len(result.validation) == 630 == result.report["read"]
    assert any(target.endswith("again") for _, target in result.validation)


def test_given_validation_pairs_are_never_dropped(experiment, tmp_path):
    (tmp_path / "val.tsv").write_bytes(b"\xff\tx\n\t\n" + b"a " * 500 + b"\tb\nsame\tsame\nsame\tsame\n")
    result = prepare(replace(experiment, **{"data.validation": (str(tmp_path / "val.tsv"),)}), tmp_path / "t", SILENT)
    assert [target for _, target in result.validation] == ["x", "", "b", "same", "same"]
    assert result.report["held out"] == 0 and len(result.train[0]) == 430


def test_dropped_pairs_are_counted_by_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK", 3)
    lines = [b"a b\tc d", b"\tc", b"\xff\tc", b"a b\tc d", b"a b\tc e", b"a b c d e\tc", b"v w x y\tv w x y", b"a b\tc d"]
    lines.append(b"a\tb c d e f")
    (tmp_path / "a.tsv").write_bytes(b"\n".join(lines))
    data = Data(train=(str(tmp_path / "a.tsv"),), cache=str(tmp_path / "c"), max_length=5, held_out=0)
    experiment = Experiment(data=data, tokenizer=Tokenizer(kind="words"))
    result = prepare(experiment, tmp_path / "t", SILENT)
    counts = {"invalid UTF-8": 1, "empty side": 1, "too many characters": 0, "length ratio": 0, "duplicate": 2, "too many tokens": 2}
    assert result.report == {"read": 9, **counts, "held out": 0, "kept": 3}
    assert texts(result, experiment) == ["c d", "c e", "v w x y"]  # four tokens and the end token are five
    kept = replace(experiment, **{"data.cleaning.drop_duplicates": False})
    assert prepare(kept, tmp_path / "t", SILENT).report["kept"] == 5
    assert "6 dropped" in result.describe() and "2 duplicate" in result.describe()


def test_a_mixture_keeps_a_pair_that_two_of_its_sources_have(tmp_path):
    """A part of a corpus may be listed again with a weight of its own; `data check` and the help say the same."""
    names = [
        write(tmp_path / f"{name}.tsv", pairs) for name, pairs in (("all", [("a b", "c d")] * 2 + [("e", "f")]), ("part", [("e", "f")]))
    ]
    experiment = Experiment(data=Data(train=tuple(names), cache=str(tmp_path / "c"), held_out=0), tokenizer=Tokenizer(kind="words"))
    result = prepare(experiment, tmp_path / "t", SILENT)
    assert list(map(len, result.train)) == [2, 1] and result.report["duplicate"] == 1
    report = check(open_sources(experiment.data.train, "data.train"), experiment.data.cleaning)
    assert (report.kept, report.dropped[Reason.DUPLICATE]) == (3, 1)
    text = inspect.getsource(Cleaning)
    assert "in the same source" in text[text.index("drop_duplicates: bool") :]


def test_composed_and_decomposed_text_is_the_same_text(experiment, tmp_path):
    """It is dropped as a duplicate, and a sentence with two translations is held out in both forms or in neither."""
    accents = [(f"é{source}", f"ü{target}") for source, target in sentences(300)]
    both = [tuple(unicodedata.normalize("NFD", side) for side in pair) for pair in accents[:50]]
    both += [(unicodedata.normalize("NFD", source), f"{target} noch") for source, target in accents]
    changes = {"data.train": (write(tmp_path / "mixed.tsv", accents + both),)}
    result = prepare(replace(experiment, **changes), tmp_path / "nfc", SILENT)
    assert result.report["duplicate"] == 50 and result.report["held out"] > 10
    held_out = {source for source, _ in result.validation}
    trained = {result.tokenizer.decode_source(result.train[0].source[i]) for i in range(len(result.train[0]))}
    assert not held_out & trained and all(unicodedata.is_normalized("NFC", text) for text in held_out | trained)
    as_it_is = prepare(replace(experiment, **changes, **{"tokenizer.normalization": "none"}), tmp_path / "none", SILENT)
    assert as_it_is.report["duplicate"] == 0 and key(as_it_is) != key(result)


def test_text_that_is_split_otherwise_than_the_joiner_says_is_refused_before_anything_is_made(experiment, tmp_path):
    changes = {"data.train": (write(tmp_path / "pieces.tsv", [("▁Hello ▁wor ld", "▁Hallo ▁Wel t")] * 20),)}
    with pytest.raises(UserError, match="set tokenizer.joiner to '▁'"):
        prepare(replace(experiment, **changes), tmp_path / "pieces", SILENT)
    assert not (tmp_path / "pieces").exists()


def test_first_of_equal_pairs_stays_however_the_hashes_are_cut(tmp_path, monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 60, 200, dtype=np.uint64)
    paths = [tmp_path / f"{start}.npz" for start in (0, 70, 140)]
    for path, part in zip(paths, np.split(hashes, [70, 140]), strict=True):
        np.savez(path, pair_hash=part)
    expected = [value not in hashes[:i] for i, value in enumerate(hashes)]
    for size in (1000, 50, 7):
        monkeypatch.setattr(cleaning, "SLICE", size)
        masks = [keep for _, keep in shards._without_duplicates(paths, drop_duplicates=True)]
        assert np.concatenate(masks).tolist() == expected


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    """But for nine bytes a pair while duplicates are looked for (16 are allowed); sample, chunks and slices are as large as set."""
    monkeypatch.setattr(shards, "CHUNK", 500)
    monkeypatch.setattr(cleaning, "SLICE", 2000)

    def peak(count):
        words = [f"w{number}" for number in range(100)]
        pairs = ((f"{words[i % 100]} {words[i // 100]} a b c", f"{words[i // 100]} {words[i % 100]} x y z") for i in range(count))
        data = Data(train=(write(tmp_path / f"{count}.tsv", pairs),), cache=str(tmp_path / str(count)), held_out=20, workers=1)
        experiment = Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0, max_sentences=100))
        gc.collect()
        tracemalloc.start()
        try:
            assert len(prepare(experiment, tmp_path / f"t{count}", SILENT).train[0]) == count - 20
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    once, fourfold = peak(2000), peak(8000)
    assert fourfold < once + 16 * 6000, (once, fourfold)


def test_two_workers_equal_one(experiment, tmp_path):
    one = prepare(experiment, tmp_path / "t", SILENT)
    two = prepare(replace(experiment, **{"data.workers": 2, "data.cache": str(tmp_path / "two")}), tmp_path / "t", SILENT)
    assert contents(one.train[0]) == contents(two.train[0]) and one.validation == two.validation
    first, second = (files(tmp_path / cache / key(one)) for cache in ("cache", "two"))
    assert first == second and len(first) == 5


def test_chunks_leave_no_trace(experiment, tmp_path, monkeypatch):
    one = prepare(experiment, tmp_path / "t", SILENT)
    monkeypatch.setattr(shards, "CHUNK", 10_000)
    two = prepare(replace(experiment, **{"data.cache": str(tmp_path / "two")}), tmp_path / "t", SILENT)
    assert contents(one.train[0]) == contents(two.train[0]) and one.validation == two.validation


def test_workers_import_no_jax(tmp_path):
    """Although the script that starts them has imported it, and has no main guard."""
    (tmp_path / "probe.py").write_text(
        "import sys\ndef modules(path, pairs, recipe):\n    return len({'jax', 'grain', 'tensorflow'} & set(sys.modules))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import jax, probe\nfrom jaxnmt.data import shards\n"
        "jobs = iter([('a', []), ('b', []), ('c', [])])\n"
        "shards.write_shard = probe.modules\n"
        "print(probe.modules(0, 0, 0), list(shards._in_parallel(jobs, None, 2)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(pathlib.Path(prepared.__file__).parents[2])])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "1 [0, 0, 0]\n", done.stderr


def die(path, pairs, recipe):
    os._exit(9)


def test_a_worker_that_dies_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "write_shard", die)
    with pytest.raises(UserError, match="process that tokenises died.*data.workers"):
        list(shards._in_parallel(iter([(tmp_path, []), (tmp_path, [])]), None, 2))


class Stop(Exception):
    pass


@pytest.mark.parametrize("fail_at", [0, 3, 8, "merge"])
def test_interrupted_preparation_goes_on_where_it_was(experiment, tmp_path, monkeypatch, fail_at):
    undisturbed = prepare(experiment, tmp_path / "t", SILENT)
    again = replace(experiment, **{"data.cache": str(tmp_path / "again")})
    calls: list[int] = []

    def tokenise(pairs, recipe, *weights, real=shards.tokenise):
        if len(calls) == fail_at:
            raise Stop
        calls.append(len(pairs))
        return real(pairs, recipe, *weights)

    def merging(*arguments, real=shards.merge):
        real(*arguments)
        if fail_at == "merge":
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(shards, "tokenise", tokenise)
        patch.setattr(shards, "merge", merging)
        with pytest.raises(Stop):
            prepare(again, tmp_path / "t", SILENT)
    done = len(calls)
    assert not (tmp_path / "again" / key(undisturbed)).exists()
    fail_at = None
    calls.clear()
    monkeypatch.setattr(shards, "tokenise", tokenise)
    result = prepare(again, tmp_path / "t", SILENT)
    assert len(calls) == 9 - done  # 430 pairs are 9 chunks
    assert contents(result.train[0]) == contents(undisturbed.train[0]) and result.validation == undisturbed.validation
    assert result.report == undisturbed.report
    assert {p.name for p in (tmp_path / "again").iterdir()} - {"texts"} == {key(result), f"{key(result)}.lock"}


SCRIPT = """
import sys
from jaxnmt.data import shards
from jaxnmt.data.prepared import prepare
from jaxnmt.config import Data, Experiment, Tokenizer
shards.CHUNK = 50
train, cache, folder = sys.argv[1:]
data = Data(train=(train,), cache=cache, held_out=40, workers=2)
prepare(Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0, joint=False)), folder)
"""


def run_script(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(prepared.__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_kill_9_then_again_equals_undisturbed(experiment, tmp_path):
    train = write(tmp_path / "long.tsv", sentences(20_000))
    experiment = replace(experiment, **{"data.train": (train,)})
    undisturbed = prepare(experiment, tmp_path / "t", SILENT)
    cache = tmp_path / "killed"
    victim = run_script(train, str(cache), str(tmp_path / "t"))
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.parts/[0-9]*.npz"))) < 5 and time.monotonic() < deadline and victim.poll() is None:
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    left = len(list(cache.glob("*.parts/[0-9]*.npz")))
    assert 5 <= left < 400 and not (cache / key(undisturbed)).exists(), "killed too late to show anything"
    said: list[str] = []
    result = prepare(replace(experiment, **{"data.cache": str(cache)}), tmp_path / "t", said.append)
    assert any("resumed" in line for line in said)
    assert files(cache / key(result)) == files(tmp_path / "cache" / key(undisturbed))


def test_two_processes_at_once(experiment, tmp_path):
    undisturbed = prepare(experiment, tmp_path / "t", SILENT)
    both = [run_script(experiment.data.train[0], str(tmp_path / "both"), str(tmp_path / f"t{i}")) for i in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("prepared 430 pairs" in output for output in outputs) == 1
    assert files(tmp_path / "both" / key(undisturbed)) == files(tmp_path / "cache" / key(undisturbed))


def test_a_second_call_reads_no_tokens_anew(experiment, tmp_path, monkeypatch):
    first = prepare(experiment, tmp_path / "t", SILENT)
    monkeypatch.setattr(shards, "tokenise", None)
    monkeypatch.setattr(tokenizer_choice, "train_tokenizer", None)
    second = prepare(experiment, tmp_path / "other run", SILENT)
    assert contents(first.train[0]) == contents(second.train[0]) and first.report == second.report
    assert load_tokenizer(tmp_path / "other run").fingerprint() == first.tokenizer.fingerprint()


def test_a_damaged_cache_is_made_again(experiment, tmp_path):
    """As a cluster leaves it that deletes files by their age, or a copy that was cut off."""
    folder = tmp_path / "cache" / key(prepare(experiment, tmp_path / "t", SILENT))
    before = files(folder)
    for name in before:
        for damage in (pathlib.Path.unlink, lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 16 * 8])):
            damage(folder / name)
            prepare(experiment, tmp_path / "t", SILENT)
            assert files(folder) == before


def test_a_full_disk_is_said_and_leaves_nothing_believed(experiment, tmp_path, monkeypatch):
    undisturbed = prepare(experiment, tmp_path / "t", SILENT)
    experiment = replace(experiment, **{"data.cache": str(tmp_path / "full")})

    def savez(file, real=np.savez, **arrays):
        real(file, **arrays)
        if len(list((tmp_path / "full").glob("*.parts/*.npz"))) == 4:
            file.truncate(100)
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", savez)
        with pytest.raises(UserError, match="data.cache.*No space left"):
            prepare(experiment, tmp_path / "t", SILENT)
    result = prepare(experiment, tmp_path / "t", SILENT)
    assert files(tmp_path / "full" / key(result)) == files(tmp_path / "cache" / key(undisturbed))


def test_fingerprint_follows_what_is_prepared_and_nothing_else(experiment, tmp_path):
    def fingerprint(folder="t", **changes):
        return key(prepare(replace(experiment, **changes), tmp_path / folder, SILENT))

    same = fingerprint()
    copy = shutil.copy(experiment.data.train[0], tmp_path / "copy.tsv")
    zipped = tmp_path / "copy.tsv.gz"
    zipped.write_bytes(gzip.compress(pathlib.Path(copy).read_bytes()))
    for unchanged in ({"data.train": (str(copy),)}, {"data.train": (str(zipped),)}, {"data.workers": 2}, {"training.seed": 9}):
        assert fingerprint(**unchanged) == same, unchanged
    other = write(tmp_path / "other.tsv", [*sentences(429), ("one", "other")])
    validation = write(tmp_path / "validation.tsv", sentences(3))
    changed = [
        fingerprint(**{"data.train": (other,)}),
        fingerprint("another tokenizer", **{"tokenizer.vocab_size": 50}),
        fingerprint(**{"data.cleaning.max_ratio": 3.0}),
        fingerprint(**{"data.cleaning.drop_duplicates": False}),
        fingerprint(**{"data.max_length": 8}),
        fingerprint(**{"data.held_out": 30}),
        fingerprint(**{"data.validation": (validation,)}),
    ]
    assert len({same, *changed}) == len(changed) + 1


def test_the_tokenizer_of_the_run_stays(experiment, tmp_path):
    first = prepare(experiment, tmp_path / "t", SILENT)
    second = prepare(replace(experiment, **{"tokenizer.vocab_size": 30}), tmp_path / "t", SILENT)
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()


def test_the_tokenizer_sees_a_sample_spread_evenly(tmp_path):
    pairs = [(f"s{i} a", f"t{i} b") for i in range(1000)]
    data = Data(train=(write(tmp_path / "a.tsv", pairs[:400]), write(tmp_path / "b.tsv", pairs[400:])), cache=str(tmp_path / "c"))
    experiment = Experiment(data=data, tokenizer=Tokenizer(kind="words", vocab_size=0, max_sentences=10))
    prepare(experiment, tmp_path / "t", SILENT)
    seen = sorted(int(line[1:]) for line in (tmp_path / "t" / "joint.vocab").read_text().split() if line[0] == "s" and line[1:].isdigit())
    assert len(seen) == 10 and all(100 * k <= n < 100 * (k + 1) for k, n in enumerate(seen))


def test_subwords_reach_the_cache(tmp_path):
    pairs = [("naïve — 日本 👩‍👩‍👧", "ﬁn ½"), *sentences(60)]
    data = Data(train=(write(tmp_path / "a.tsv", pairs),), cache=str(tmp_path / "c"), held_out=0)
    result = prepare(Experiment(data=data, tokenizer=Tokenizer(vocab_size=450)), tmp_path / "t", SILENT)
    assert texts(result, None) == [target for _, target in pairs]


@pytest.mark.parametrize(
    "content, changes, message",
    [
        (
            b"a b c d\te f g h\n" * 3,
            {"data.max_length": 4},
            r"no pair of .*a.tsv is left.*1 read|no pair of .*a.tsv is left.*3 too many tokens",
        ),
        (b"\xff\tb\n\xff\tc\na\t\n", {}, "no text"),
        (b"a\tb\nc\td\n", {}, "2 pairs are too few.*data.validation"),
        (b"a\tb\nc\td\n", {"data.cache": "gs://x/y"}, "local"),
    ],
)
def test_hopeless_data_says_why(content, changes, message, tmp_path):
    (tmp_path / "a.tsv").write_bytes(content)
    data = Data(train=(str(tmp_path / "a.tsv"),), cache=str(tmp_path / "c"))
    experiment = replace(Experiment(data=data, tokenizer=Tokenizer(kind="words")), **changes)
    with pytest.raises(UserError, match=message):
        prepare(experiment, tmp_path / "t", SILENT)


def test_validation_pairs_without_any_target_are_refused(experiment, tmp_path):
    (tmp_path / "v.tsv").write_text("a\t\nb\t \n")
    with pytest.raises(UserError, match="data.validation: the target side of .*v.tsv is empty in every line"):
        prepare(replace(experiment, **{"data.validation": (str(tmp_path / "v.tsv"),)}), tmp_path / "t", SILENT)


def test_no_source_no_run(tmp_path):
    with pytest.raises(UserError, match="data.train"):
        prepare(Experiment(), tmp_path / "t", SILENT)


def test_a_cache_folder_that_cannot_be_made(experiment, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="data.cache"):
        prepare(replace(experiment, **{"data.cache": str(tmp_path / "file" / "c")}), tmp_path / "t", SILENT)


def test_cache_folder_default(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXNMT_CACHE", str(tmp_path))
    assert prepared.cache_folder(Data()) == tmp_path
    assert prepared.cache_folder(dataclasses.replace(Data(), cache="/x")) == pathlib.Path("/x")
    monkeypatch.delenv("JAXNMT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepared.cache_folder(Data()) == tmp_path / ".cache" / "jaxnmt"


@pytest.mark.parametrize("kind", ["unigram", "words"])
def test_a_text_of_too_many_tokens_is_cut_and_loses_nothing(tmp_path, kind):
    lines = [" ".join(f"w{i * j % 13}" for i in range(1, 1 + 4 * j)) for j in range(1, 30)]
    (tmp_path / "mono.txt").write_text("".join(f"{line}\n" for line in lines))
    data = Data(train=(str(tmp_path / "mono.txt"),), held_out=2, max_length=9, cache=str(tmp_path / "cache"))
    options = Tokenizer(kind=kind, vocab_size=0 if kind == "words" else 300)
    result = prepare(Experiment(task=MaskedLanguage(), data=data, tokenizer=options), tmp_path / "tokenizer", SILENT)
    (corpus,) = result.train
    assert corpus.lengths[0].max() == 8 and np.array_equal(corpus.source.ids, corpus.target.ids)
    assert result.report["too many tokens"] == 0
    held = [ids for text, _ in result.validation for ids in result.tokenizer.encode_source([text])]
    whole = {tuple(ids[start : start + 8]) for ids in result.tokenizer.encode_source(lines) for start in range(0, len(ids), 8)}
    parts = {tuple(corpus.source[i].tolist()) for i in range(len(corpus))} | {tuple(ids) for ids in held}
    assert parts == whole or kind == "unigram" and len(whole - parts) <= len(held)  # a part that begins within a word is spelt anew
