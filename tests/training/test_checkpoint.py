"""Which checkpoints are kept, what they say of themselves, and what happens when they cannot be written."""

import contextlib
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnmt import config as cfg
from jaxnmt.training.checkpoint import CheckpointStore, Progress, best_step, folder, read_progress, restore_params, steps
from jaxnmt.training.state import TrainState


def state(step: int, size: int = 3) -> TrainState:
    params = {"a": jnp.full(size, step, jnp.float32)}
    return TrainState(jnp.int32(step), params, {"m": jnp.ones(3)}, None, jnp.float32(1), jnp.int32(0))


def save(run, scores: dict[int, float | None], config=cfg.Checkpoints(keep_latest=2, keep_best=1)):  # noqa: B008
    store = CheckpointStore(run, config)
    for step, score in scores.items():
        store.save(state(step), Progress(best_step=step), score)
    store.close()


def test_the_best_is_kept_and_known_in_later_sessions(tmp_path):
    save(tmp_path, {1: 1.0, 2: 5.0, 3: 5.0, 4: None, 5: 2.0})
    assert steps(tmp_path) == [2, 4, 5] and best_step(tmp_path) == 2  # of equals, the earlier
    save(tmp_path, {6: 1.0, 7: None, 8: 3.0})
    assert steps(tmp_path) == [2, 7, 8] and best_step(tmp_path) == 2
    save(tmp_path, {9: 7.0, 10: None, 11: None})
    assert steps(tmp_path) == [9, 10, 11] and best_step(tmp_path) == 9


def test_without_scores_the_newest_is_the_best(tmp_path):
    assert best_step(tmp_path) is None
    save(tmp_path, {1: None, 2: None})
    assert best_step(tmp_path) == 2


def test_progress_is_read_alone(tmp_path):
    save(tmp_path, {3: None})
    assert read_progress(tmp_path, 3) == Progress(best_step=3)


@contextlib.contextmanager
def files_limited_to(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_is_one_sentence_and_leaves_the_one_before(tmp_path):
    save(tmp_path, {1: None})
    store = CheckpointStore(tmp_path, cfg.Checkpoints())
    noise = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)  # does not compress
    with files_limited_to(50_000):
        with pytest.raises(cfg.UserError, match="cannot be written .File too large.*jaxnmt resume"):
            store.save(TrainState(**vars(state(2)) | {"params": {"a": jnp.asarray(noise)}}), Progress(), None)
            store.wait()
    assert steps(tmp_path) == [1]
    save(tmp_path, {2: None})
    assert steps(tmp_path) == [1, 2] and not list(folder(tmp_path).glob("*tmp*"))
    assert restore_params(tmp_path, {"a": jnp.zeros(3)}, 1, averaged=False)["a"].tolist() == [1, 1, 1]
