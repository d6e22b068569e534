"""Weights of pairs in the loss: 1 changes nothing, 2 counts a pair twice, 0 leaves it out, through caches, batches and hosts."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.data import shards
from jaxnmt.data.batching import BatchPlan, PlannedBatch
from jaxnmt.data.corpus import in_memory
from jaxnmt.data.loader import assemble
from jaxnmt.data.packing import Shape
from jaxnmt.data.prepared import prepare
from jaxnmt.data.sources import open_sources, sources_of
from jaxnmt.errors import UserError
from jaxnmt.training.state import TrainState
from jaxnmt.training.step import accumulate_gradient

SILENT = lambda line: None  # noqa: E731


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weight_of(i):
    return 0.25 + i % 7


def write(name, lines=60, score=weight_of):
    with open(name, "w") as file:
        for i in range(lines):
            file.write(f"{' '.join('abcdefgh'[i % 8 : i % 8 + 1 + i % 3])} {i}\t{' '.join('ABCDEFGH'[: 1 + i % 4])} {i}\t{score(i)}\n")


def experiment(*train, weighs=True, **data):
    given = {"validation": ("v.tsv",), "cache": "cache", "workers": 1, "weigh_by_score": weighs, "max_length": 16} | data
    made = cfg.Experiment(data=cfg.Data(train=train, **given), tokenizer=cfg.Tokenizer(kind="words", vocab_size=0))
    return dataclasses.replace(made, batching=cfg.Batching(tokens=128, row_length=16))


def prepared(made):
    write("v.tsv", 3)
    return prepare(made, "tokenizer", SILENT)


def batches(made, data, steps=6):
    plan = BatchPlan([corpus.lengths for corpus in data.train], data.weights, made)
    return [(plan.batch(step), assemble(plan.batch(step), data.train)) for step in range(steps)]


@pytest.mark.parametrize("layout", ["packed", "buckets"])
def test_weights_of_one_give_the_batches_of_no_weights_to_the_bit(here, layout):
    write("a.tsv", score=lambda i: "1.0")
    made = [experiment("a.tsv", weighs=weighs) for weighs in (True, False)]
    made = [cfg.replace(each, **{"batching.layout": layout}) for each in made]
    data = [prepared(each) for each in made]
    assert data[0].is_weighted and not data[1].is_weighted and data[0].fingerprints["fingerprint"] != data[1].fingerprints["fingerprint"]
    for (_, weighted), (_, plain) in zip(*map(batches, made, data), strict=True):
        assert weighted.keys() == plain.keys()
        assert all(weighted[name].dtype == plain[name].dtype and (weighted[name] == plain[name]).all() for name in plain)


@pytest.mark.parametrize("layout", ["packed", "buckets"])
def test_each_token_has_its_pairs_weight_on_every_host(here, layout):
    write("a.tsv")
    write("b.tsv", 9, lambda i: 3)
    (here / "c.en").write_text("x y\nz\n")
    (here / "c.de").write_text("X Y\nZ\n")
    made = cfg.replace(experiment("a.tsv", "c.en,c.de", "b.tsv"), **{"batching.layout": layout})
    data = prepared(made)
    assert [corpus.weights is None for corpus in data.train] == [False, True, False]
    for planned, arrays in batches(made, data):
        wanted = []
        for corpus, index in zip(planned.corpus, planned.index, strict=True):
            weight = 1.0 if corpus == 1 else 3.0 if corpus == 2 else weight_of(index)
            wanted += [weight] * (len(data.train[corpus].target[index]) + 1)
        real = arrays["decoder_target_tokens"] > 0
        assert (arrays["decoder_loss_weights"][real] == np.float32(wanted)).all() and (arrays["decoder_loss_weights"][~real] == 0).all()
        parts = [assemble(planned.only(rows), data.train) for rows in np.array_split(np.arange(planned.shape.rows), 2)]
        assert (np.concatenate([part["decoder_loss_weights"] for part in parts]) == arrays["decoder_loss_weights"]).all()


def test_the_weights_survive_cleaning_chunks_a_kill_and_the_cache(here, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK", 20)
    write("a.tsv")
    with open("a.tsv", "a") as file:
        file.write(f"a 3\tA 3\t9\n{' '.join('a' * 40)}\tA\t9\na\t\t9\na 3\tA 3\t5\nz\tZ\t0.125\n")  # too long, empty, a duplicate
    wanted = [weight_of(i) for i in range(60)] + [9, 0.125]
    made = experiment("a.tsv")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "merge", lambda *arguments: (_ for _ in ()).throw(InterruptedError))
        with pytest.raises(InterruptedError):
            prepared(made)
    for _ in range(2):  # the second time from the cache
        (corpus,) = prepared(made).train
        assert corpus.weights.dtype == np.float32 and corpus.weights.tolist() == wanted
    one = prepared(made).fingerprints
    write("a.tsv", score=lambda i: weight_of(i) + (i == 7))
    other = prepared(made).fingerprints  # other weights are other text
    assert one["fingerprint"] != other["fingerprint"] and one["tokenizer"] == other["tokenizer"]


def test_weight_zero_leaves_a_pair_out(here):
    write("a.tsv", score=lambda i: i % 2)
    with open("b.tsv", "w") as file:
        file.writelines(open("a.tsv").readlines()[1::2])
    zero, without = (prepared(experiment(name)) for name in ("a.tsv", "b.tsv"))
    assert zero.fingerprints["fingerprint"] == without.fingerprints["fingerprint"]
    (source,) = sources_of(experiment("a.tsv"), "train")
    assert source.left_out() == {"with a score of 0": 30} and source.where(1) == "a.tsv:4"


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_gradient_of_weight_two_is_that_of_the_pair_twice_and_of_zero_that_of_no_pair(parts):
    pairs = tiny.random_pairs(4)
    model = tiny.model_of(tiny.VARIANTS["pre"])
    params = tiny.params_of(model)
    config = cfg.Training(accumulation=parts)
    state = TrainState(np.int32(0), params, (), None, np.float32(1), np.int32(0))

    def gradient(numbers, weights):
        corpus = dataclasses.replace(in_memory(pairs), weights=np.asarray(weights, np.float32))
        row = np.arange(len(numbers), dtype=np.int32)
        planned = PlannedBatch(0, Shape(6, 10, 10), False, row, np.zeros_like(row), np.asarray(numbers))
        batch = tiny.as_arrays(assemble(planned, [corpus]))
        gradient, sums = jax.jit(lambda params: accumulate_gradient(model, config, dataclasses.replace(state, params=params), batch))(
            params
        )
        return gradient, [float(sums.loss), float(sums.tokens)]

    once, twice = gradient([0, 1, 2, 3], [1, 2, 1, 0]), gradient([0, 1, 1, 2], [1, 1, 1, 1])
    tiny.assert_close(once[0], twice[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(once[1], twice[1], rtol=1e-6)
    half = gradient([0, 1, 2], [0.5, 1, 0.5])  # only the ratios of weights matter
    tiny.assert_close(half[0], twice[0], rtol=1e-5, atol=1e-6)
    plain = gradient([0, 1, 2], [1, 1, 1])
    assert max(float(abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (plain[0], once[0])), strict=True)) > 1e-3


def test_wrong_weights(here):
    for wrong, says in {
        "-0.5": "has the score -0.5; with data.weigh_by_score, a score must be a number from 0 to 1,000,000",
        "inf": "has the score inf",
        "1e30": r"has the score 1e\+30",
        "nan": "has no number in its third column; with data.min_score or data.weigh_by_score, every line must be: source, tab",
        "good": "has no number in its third column",
        "": "has no number in its third column",
    }.items():
        (here / "a.tsv").write_text(f"a\tA\t1\nb\tB\t{wrong}\nc\tC\t1\n")
        with pytest.raises(UserError, match=rf"^data\.train: a\.tsv:2 {says}"):
            open_sources(("a.tsv",), "data.train", weighs=True)
    (here / "a.tsv").write_text("a\tA\t1\nb\tB\t-1\n")
    (source,) = open_sources(("a.tsv",), "data.train", min_score=0.5, weighs=True)
    assert len(source) == 1  # what is left out needs no weight
    (here / "a.tsv").write_text("a\tA\t0\nb\tB\t1e-50\n")  # which is 0 in float32
    with pytest.raises(UserError, match=r"a\.tsv has no pairs; it has 2 with a score of 0"):
        open_sources(("a.tsv",), "data.train", weighs=True)
    (here / "a.en").write_text("a\n")
    with pytest.raises(UserError, match=r"none of the sources has scores.*: leave out data\.weigh_by_score"):
        open_sources(("a.en,a.en",), "data.train", weighs=True)

    class Own(cfg.Data):
        def pairs(self, part):
            return [("a", "A")]

    with pytest.raises(UserError, match=r"data\.weigh_by_score reads scores from files, and Own gives pairs of its own"):
        sources_of(dataclasses.replace(cfg.Experiment(), data=Own(weigh_by_score=True)), "train")


def test_scores_of_parquet(here):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def table(**columns):
        parquet.write_table(pyarrow.table({"en": ["a", "b", "c", ""], "de": ["A", "B", "C", "D"], **columns}), "t.parquet")
        return open_sources(("t.parquet",), "data.train", weighs=True)[0]

    source = table(score=[0.5, 2.0, 0.0, None])
    assert list(source.pair_weights()) == [0.5, 2.0] and source.left_out() == {"with a score of 0": 1, "without a side": 1}
    assert list(source.pairs(1)) == [(b"b", b"B")] and list(source.pair_weights(1)) == [2.0]
    (filtered,) = open_sources(("t.parquet",), "data.train", min_score=1.0)
    assert list(filtered.pairs()) == [(b"b", b"B")] and filtered.pair_weights() is None
    for columns, says in (
        ({}, "t.parquet must have one column score of numbers"),
        ({"score": ["1", "2", "3", "4"]}, "t.parquet must have one column score of numbers"),
        ({"score": [1, None, 1, 1]}, "t.parquet row 2: score is empty or NaN"),
        ({"score": [1, -3, 1, 1]}, "t.parquet row 2 has the score -3"),
        ({"score": [1.0, float("nan"), 1.0, 1.0]}, "t.parquet row 2: score is empty or NaN"),
    ):
        with pytest.raises(UserError, match=says):
            table(**columns)
    two = pyarrow.Table.from_arrays([pyarrow.array([each]) for each in ("a", "A", 1, 2)], ["en", "de", "score", "score"])
    parquet.write_table(two, "t.parquet")
    with pytest.raises(UserError, match="t.parquet must have one column score of numbers"):
        open_sources(("t.parquet",), "data.train", weighs=True)
    assert len(open_sources(("t.parquet",), "data.train")[0]) == 1
