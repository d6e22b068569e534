"""Which checkpoints are kept, what they say of themselves, and what happens when they cannot be written."""

import contextlib
import dataclasses
import json
import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.config.files import save_config
from jaxnmt.io.literal_paths import LiteralPath
from jaxnmt.runs.directory import checkpoints as steps
from jaxnmt.training import storage
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.state import TrainState


def state(step: int, size: int = 3) -> TrainState:
    params = {"a": jnp.full(size, step, jnp.float32)}
    return TrainState(jnp.int32(step), params, {"m": jnp.ones(3)}, None, jnp.float32(1), jnp.int32(0))


def save(run, scores: dict[int, float | None], config=cfg.Checkpoints(keep_latest=2, keep_best=1)):  # noqa: B008
    store = Checkpoints(run, config)
    for step, score in scores.items():
        store.save(state(step), Progress(best_step=step), None if score is None else Score("bleu", score))
    store.close()


def test_the_best_is_kept_and_known_in_later_sessions(tmp_path):
    save(tmp_path, {1: 1.0, 2: 5.0, 3: 5.0, 4: None, 5: 2.0})
    assert steps(tmp_path) == [2, 4, 5] and Checkpoints(tmp_path).best() == 2  # of equals, the earlier
    save(tmp_path, {6: 1.0, 7: None, 8: 3.0})
    assert steps(tmp_path) == [2, 7, 8] and Checkpoints(tmp_path).best() == 2
    save(tmp_path, {9: 7.0, 10: None, 11: None})
    assert steps(tmp_path) == [9, 10, 11] and Checkpoints(tmp_path).best() == 9


def test_a_run_may_be_named_by_a_path_with_dots(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    save(pathlib.Path("../run"), {1: 1.0})
    ((name, found),) = storage.read_numpy(Checkpoints(pathlib.Path("../run")).folder / "1" / "params").items()
    assert name == "a" and (found == 1).all()


def test_of_equal_scores_the_one_with_the_lower_loss_is_kept(tmp_path):
    store = Checkpoints(tmp_path, cfg.Checkpoints(keep_latest=1, keep_best=1))
    for step, loss in {1: 5.0, 2: 4.0, 3: 4.5, 4: 4.0}.items():
        store.save(state(step), Progress(), Score("bleu", 0.0, loss))
    store.close()
    assert steps(tmp_path) == [2, 4] and Checkpoints(tmp_path).best() == 2  # of equals in both, the earlier


def test_scores_of_another_metric_are_no_scores(tmp_path):
    store = Checkpoints(tmp_path, cfg.Checkpoints(keep_latest=2, keep_best=1))
    for step, score in {1: Score("bleu", 30.0, 4.0), 2: Score("loss", -4.0, 4.0), 3: Score("loss", -5.0, 5.0), 4: None}.items():
        store.save(state(step), Progress(), score)
        if step == 1:
            store.wait()
            assert Checkpoints(tmp_path).best() == 1
    store.close()
    assert steps(tmp_path) == [2, 3, 4] and Checkpoints(tmp_path).best() == 2


def test_bleu_of_another_tokenizer_is_another_score(tmp_path):
    by_characters, by_words = Score("bleu", 30.0, 4.0, "tok:char"), Score("bleu", 22.0, 3.0, "tok:zh")
    assert by_words.beats(by_characters) and by_characters.beats(by_words) and not by_words.beats(Score("bleu", 23.0, 3.0, "tok:zh"))
    store = Checkpoints(tmp_path, cfg.Checkpoints(keep_latest=1, keep_best=1))
    for step, score in {1: by_characters, 2: by_words, 3: dataclasses.replace(by_words, value=21.0)}.items():
        store.save(state(step), Progress(), score)
    store.close()
    assert steps(tmp_path) == [2, 3] and Checkpoints(tmp_path).best() == 2


def rewrite(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize("metric", ["loss", "bleu"])
def test_scores_of_an_earlier_version_are_of_the_metric_of_the_runs_settings(tmp_path, metric):
    save_config(cfg.replace(cfg.Experiment(), **{"validation.metric": metric}), tmp_path / "config.json")
    save(tmp_path, {1: 2.0, 2: 1.0})
    for step in (1, 2):
        rewrite(
            Checkpoints(tmp_path).folder / str(step) / "metrics" / "metrics",
            lambda saved: {name: saved[name] for name in ("score", "step")},
        )
        rewrite(
            Checkpoints(tmp_path).folder / str(step) / "progress" / "metadata",
            lambda saved: {"best_score": 2.0, "best_step": 1, "bar": 1.5, "stale": 3},
        )
    assert Checkpoints(tmp_path).best() == 1
    assert Checkpoints(tmp_path).progress(2) == Progress(Score(metric, 2.0), 1, Score(metric, 1.5), 3)
    assert not Score(metric, 2.0, 0.1).beats(Score(metric, 2.0)) and Score(metric, 2.1, 9.0).beats(Score(metric, 2.0))
    store = Checkpoints(tmp_path, cfg.Checkpoints(keep_latest=1))
    store.save(state(3), Progress(), Score(metric, 1.0, 5.0))
    store.close()
    assert steps(tmp_path) == [1, 3] and Checkpoints(tmp_path).best() == 1
    save(tmp_path, {4: 0.5}, cfg.Checkpoints(keep_latest=1))  # in BLEU
    assert steps(tmp_path) == ([1, 4] if metric == "bleu" else [4])


def lose_the_folder(checkpoint):
    checkpoint.rename(checkpoint.with_name("elsewhere"))


def change_the_progress(checkpoint):
    rewrite(checkpoint / "progress" / "metadata", lambda record: record | {"stale": 7})


def lose_the_arrays(checkpoint):
    (checkpoint / "params" / "manifest.ocdbt").unlink()


def change_the_shapes(checkpoint):
    shutil.rmtree(checkpoint / "params")
    with ocp.StandardCheckpointer() as writer:
        writer.save(checkpoint / "params", {"a": jnp.zeros(4)})


@pytest.mark.parametrize("harm", [lose_the_folder, change_the_progress, lose_the_arrays, change_the_shapes])
@pytest.mark.parametrize("moment", ["save", "close"])
def test_older_checkpoints_stay_until_the_new_one_has_been_read_back(harm, moment, tmp_path, monkeypatch):
    save(tmp_path, {1: 5.0, 2: None}, cfg.Checkpoints(keep_latest=1, keep_best=1))
    store = Checkpoints(tmp_path, cfg.Checkpoints(keep_latest=1, keep_best=1))
    store.save(state(3), Progress(), Score("bleu", 9.0))
    store._manager.wait_until_finished()
    harm(tmp_path / "checkpoints" / "3")
    with pytest.raises(errors.UserError, match=f"checkpoint 3 of {tmp_path} was written and cannot be read back .*the older ones are kept"):
        store.save(state(4), Progress(), None) if moment == "save" else store.close()
    assert steps(tmp_path)[:2] == [1, 2] and 4 not in steps(tmp_path)


def test_a_save_that_orbax_reports_as_done_and_nobody_can_read_is_noticed(tmp_path, monkeypatch):
    """Orbax finds what it has to merge by a glob; here it finds nothing, as in a folder called [1] before paths were literal."""
    save(tmp_path, {1: None})
    monkeypatch.setattr(LiteralPath, "glob", lambda self, pattern: iter(()))
    with pytest.raises(errors.UserError, match="checkpoint 2 of .* cannot be read back"):
        save(tmp_path, {2: None}, cfg.Checkpoints(keep_latest=1))
    assert steps(tmp_path)[0] == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before anything is removed", "in the middle of a checkpoint"])
def test_a_kill_while_old_checkpoints_are_removed_loses_nothing_and_the_next_session_removes_them(moment, tmp_path, monkeypatch):
    def die(*_, **__):
        raise Killed

    save(tmp_path, {1: 5.0, 2: 1.0, 3: 2.0})
    assert steps(tmp_path) == [1, 2, 3]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*((Checkpoints, "_remove_old") if moment.startswith("before") else (LiteralPath, "rmtree")), die)
        save(tmp_path, {4: 3.0})
    assert steps(tmp_path) == ([1, 2, 3, 4] if moment.startswith("before") else [1, 3, 4])
    assert Checkpoints(tmp_path).best() == 1 and [restored(tmp_path, step) for step in steps(tmp_path)] == steps(tmp_path)
    save(tmp_path, {5: 4.0})
    assert steps(tmp_path) == [1, 4, 5] and {path.name for path in Checkpoints(tmp_path).folder.iterdir()} == {"1", "4", "5"}


def restored(run, step):
    return params(run, step)["a"].tolist()[0]


def params(run, step):
    like = {"a": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))}
    return Checkpoints(run).params(Checkpoints(run).find(step), like)


def test_without_scores_the_newest_is_the_best(tmp_path):
    assert Checkpoints(tmp_path).best() is None
    save(tmp_path, {1: None, 2: None})
    assert Checkpoints(tmp_path).best() == 2


def test_progress_is_read_alone(tmp_path):
    save(tmp_path, {3: None})
    assert Checkpoints(tmp_path).progress(3) == Progress(best_step=3)


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
    store = Checkpoints(tmp_path, cfg.Checkpoints())
    noise = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)  # does not compress
    with files_limited_to(50_000):
        with pytest.raises(errors.UserError, match="cannot be written .File too large.*jaxnmt resume"):
            store.save(TrainState(**vars(state(2)) | {"params": {"a": jnp.asarray(noise)}}), Progress(), None)
            store.wait()
    assert steps(tmp_path) == [1]
    save(tmp_path, {2: None})
    assert steps(tmp_path) == [1, 2] and not list(Checkpoints(tmp_path).folder.glob("*tmp*"))
    assert params(tmp_path, 1)["a"].tolist() == [1, 1, 1]
