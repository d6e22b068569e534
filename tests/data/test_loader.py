"""Laws of the loader: arrays hold the planned pairs and nothing else; the step is the whole position."""

import threading
import time

import numpy as np
import pytest

from jaxnmt.config import Batching, Experiment, replace
from jaxnmt.data import loader
from jaxnmt.data.batching import BatchPlan, PlannedBatch
from jaxnmt.data.corpus import Corpus, Side, in_memory
from jaxnmt.data.packing import Shape

KEYS = {"encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights"}
PACKED_KEYS = KEYS | {"encoder_segment_ids", "encoder_positions", "decoder_segment_ids", "decoder_positions"}


def text(size, seed=0, top=14):
    rng = np.random.default_rng(seed)
    return [(rng.integers(4, 90, rng.integers(0, top)).tolist(), rng.integers(4, 90, rng.integers(0, top)).tolist()) for _ in range(size)]


def corpus(pairs):
    flat = in_memory(pairs)
    return Corpus(*(Side(side.ids.astype(np.uint16), side.offsets) for side in (flat.source, flat.target)))


def plan_of(layout, corpora):
    batching = Batching(layout=layout, tokens=128, row_length=32)
    experiment = replace(Experiment(batching=batching), **{"training.seed": 1, "data.max_length": 16})
    return BatchPlan([c.lengths for c in corpora], [1.0] * len(corpora), experiment)


def rows_of(batch):
    """Each row as a list of (corpus, index); rows of padding are empty lists."""
    rows = [[] for _ in range(batch.shape.rows)]
    for row, corpus, index in zip(batch.row.tolist(), batch.corpus.tolist(), batch.index.tolist(), strict=True):
        rows[row].append((corpus, index))
    return rows


def planned(shape, packed, *pairs):
    row, corpora, index = (np.array(column) for column in zip(*pairs, strict=True))
    return PlannedBatch(7, Shape(*shape), packed, row.astype(np.int32), corpora.astype(np.int32), index)


def test_a_packed_batch_by_hand():
    batch = loader.assemble(planned((2, 6, 5), True, (0, 0, 1), (0, 0, 0)), [corpus([([5, 6], [7]), ([8], [9, 4])])])
    expected = {
        "encoder_input_tokens": [8, 2, 5, 6, 2, 0],
        "encoder_segment_ids": [1, 1, 2, 2, 2, 0],
        "encoder_positions": [0, 1, 0, 1, 2, 0],
        "decoder_input_tokens": [1, 9, 4, 1, 7],
        "decoder_target_tokens": [9, 4, 2, 7, 2],
        "decoder_segment_ids": [1, 1, 1, 2, 2],
        "decoder_positions": [0, 1, 2, 0, 1],
        "decoder_loss_weights": [1, 1, 1, 1, 1],
    }
    assert {key: value[0].tolist() for key, value in batch.items()} == expected
    assert all(not value[1].any() for value in batch.values())


def test_a_bucket_batch_by_hand():
    batch = loader.assemble(planned((3, 4, 4), False, (0, 1, 0), (1, 0, 0)), [corpus([([5, 6], [7])]), corpus([([], [9, 4])])])
    assert {key: value.tolist() for key, value in batch.items()} == {
        "encoder_input_tokens": [[2, 0, 0, 0], [5, 6, 2, 0], [0, 0, 0, 0]],
        "decoder_input_tokens": [[1, 9, 4, 0], [1, 7, 0, 0], [0, 0, 0, 0]],
        "decoder_target_tokens": [[9, 4, 2, 0], [7, 2, 0, 0], [0, 0, 0, 0]],
        "decoder_loss_weights": [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
    }


def test_a_pair_longer_than_its_row_is_never_cut_silently():
    with pytest.raises(ValueError, match="step 7"):
        loader.assemble(planned((1, 4, 4), False, (0, 0, 0)), [corpus([([5] * 4, [7])])])


@pytest.mark.parametrize("layout", ["packed", "buckets"])
def test_batches_give_back_every_pair_to_the_letter(layout):
    texts = [text(200), text(70, seed=1)]
    corpora = [corpus(pairs) for pairs in texts]
    plan = plan_of(layout, corpora)
    count = 0
    for step in range(plan.steps_per_epoch):
        named = plan.batch(step)
        batch = loader.assemble(named, corpora)
        assert set(batch) == (PACKED_KEYS if layout == "packed" else KEYS)
        for key, value in batch.items():
            assert value.dtype == (np.float32 if key == "decoder_loss_weights" else np.int32)
            assert value.shape == (named.shape.rows, named.shape.source if key.startswith("encoder") else named.shape.target)
        for r, row in enumerate(rows_of(named)):
            for n, (k, i) in enumerate(row, 1):
                mine = {key: value[r] for key, value in batch.items()}
                if layout == "packed":
                    source, target = mine["encoder_segment_ids"] == n, mine["decoder_segment_ids"] == n
                    assert mine["encoder_positions"][source].tolist() == list(range(source.sum()))
                    assert mine["decoder_positions"][target].tolist() == list(range(target.sum()))
                else:
                    source, target = mine["encoder_input_tokens"] > 0, mine["decoder_target_tokens"] > 0
                assert mine["encoder_input_tokens"][source].tolist() == [*texts[k][i][0], 2]
                assert mine["decoder_input_tokens"][target].tolist() == [1, *texts[k][i][1]]
                assert mine["decoder_target_tokens"][target].tolist() == [*texts[k][i][1], 2]
                count += 1
        assert np.array_equal(batch["decoder_loss_weights"], batch["decoder_target_tokens"] > 0)
        assert ((batch["decoder_input_tokens"] > 0) == (batch["decoder_target_tokens"] > 0)).all()
        if layout == "packed":
            assert ((batch["encoder_segment_ids"] > 0) == (batch["encoder_input_tokens"] > 0)).all()
            assert ((batch["decoder_segment_ids"] > 0) == (batch["decoder_target_tokens"] > 0)).all()
    assert count == 270


def test_the_step_is_the_whole_position():
    corpora = [corpus(text(120))]
    walked = list(loader.batches(plan_of("packed", corpora), corpora, 0, 30))
    assert [step for step, _, _ in walked] == list(range(30))
    resumed = list(loader.batches(plan_of("packed", corpora), corpora, 17, 30))
    for (step, named, batch), (again, renamed, same) in zip(walked[17:], resumed, strict=True):
        assert step == again == named.step and rows_of(named) == rows_of(renamed)
        assert all(np.array_equal(batch[key], same[key]) for key in batch)
    assert list(loader.batches(plan_of("packed", corpora), corpora, 30, 30)) == []


def test_an_error_in_the_worker_reaches_the_caller():
    corpora = [corpus(text(120))]
    plan = plan_of("packed", corpora)
    make = plan.batch

    def failing(step):
        if step == 3:
            raise RuntimeError("the disk is gone")
        return make(step)

    plan.batch = failing
    seen = []
    with pytest.raises(Exception, match="the disk is gone"):
        for step, _, _ in loader.batches(plan, corpora, 0, 10):
            seen.append(step)
    assert seen == [0, 1, 2]


def test_closing_ends_the_threads():
    corpora = [corpus(text(120))]
    before = set(threading.enumerate())  # not a count: another test's threads may be ending
    stream = loader.batches(plan_of("packed", corpora), corpora, 0, 10_000)
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before


def test_once_closed_nothing_is_planned_any_more():
    corpora, planned = [corpus(text(120))], []
    plan = plan_of("packed", corpora)
    make = plan.batch

    def slowly(step):
        planned.append(step)
        time.sleep(0.1)
        planned.append(step)
        return make(step)

    plan.batch = slowly
    stream = loader.batches(plan, corpora, 0, 10_000)
    next(stream)
    stream.close()
    before = list(planned)
    time.sleep(0.5)
    assert planned == before


@pytest.mark.parametrize("row_multiple", [1, 6])
def test_evaluation_sees_every_pair_once_in_few_shapes(row_multiple):
    pairs = [*text(90), ([5] * 40, [6] * 3), ([7], [8] * 40)]
    seen, shapes = [], set()
    for numbers, batch in loader.evaluation_batches(pairs, tokens=160, max_length=16, multiple=row_multiple):
        rows, width = batch["decoder_target_tokens"].shape
        assert rows % row_multiple == 0 and (rows * width <= 160 or rows == row_multiple)
        assert batch["encoder_input_tokens"].shape[1] <= 16 and width <= 16
        shapes.add((rows, batch["encoder_input_tokens"].shape[1], width))
        assert not batch["decoder_loss_weights"][len(numbers) :].any()
        for row, i in enumerate(numbers):
            source, target = (side[:15] for side in pairs[i])
            assert batch["encoder_input_tokens"][row][: len(source) + 1].tolist() == [*source, 2]
            assert batch["decoder_target_tokens"][row][: len(target) + 1].tolist() == [*target, 2]
            assert batch["decoder_loss_weights"][row].sum() == len(target) + 1
        seen += numbers.tolist()
    assert sorted(seen) == list(range(92)) and len(shapes) <= 3
