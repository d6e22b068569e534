"""One device and eight see the same sentences and reach the same loss; what one saved the other reads; a run's folder is all one needs."""

import jax
import numpy as np
import pytest
import tiny
from laws import devices

import jaxnmt
from jaxnmt.runs.directory import read_metrics
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.hooks import validation_loss


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """-> (folder, the run on one device, the folder of the run on eight)."""
    folder = tmp_path_factory.mktemp("devices")
    count, share, in_loops, after = tiny.on_eight_devices(devices.__file__, folder, folder / "eight").stdout.split()
    assert (count, share) == ("8", "0.125")
    assert in_loops == "0" and int(after) > 1  # a gradient of several parts is sent once
    return folder, devices.train(folder, folder / "one"), folder / "eight"


@pytest.mark.slow
def test_one_device_and_eight_train_on_the_same_sentences_to_the_same_loss(runs):
    folder, one, eight = runs
    assert jax.device_count() == 1
    assert (eight / "batches.txt").read_text() == (folder / "one" / "batches.txt").read_text()
    losses = [[record["loss"] for record in read_metrics(run, "train")] for run in (folder / "one", eight)]
    assert len(losses[0]) == 5 and len(set(losses[0])) == 5
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-4)
    validation = [read_metrics(run, "validation")[-1]["loss"] for run in (folder / "one", eight)]
    np.testing.assert_allclose(validation[1], validation[0], rtol=0, atol=1e-4)


def test_one_device_and_eight_have_gradients_of_the_same_norm(runs):
    folder, one, eight = runs
    norms = [[record["gradient_norm"] for record in read_metrics(run, "train")] for run in (folder / "one", eight)]
    np.testing.assert_allclose(norms[1][:5], norms[0], rtol=1e-4)


def test_a_checkpoint_of_eight_devices_is_restored_on_one(runs):
    folder, one, eight = runs
    store = Checkpoints(eight, one.config.checkpoints)
    state, progress = store.restore(5, one.programs.abstract)
    store.close()
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(state)} == {1}
    assert progress.target_tokens == one.progress.target_tokens
    loss = validation_loss(one, state.eval_params)["loss"]
    assert loss == pytest.approx(read_metrics(eight, "validation")[-1]["loss"], abs=1e-6)
    assert int(state.step) == 5


def test_training_goes_on_with_one_device_where_eight_stopped(runs):
    folder, one, eight = runs
    on = devices.train(folder, eight, **{"training.steps": 7})
    assert int(on.state.step) == 7
    assert [record["step"] for record in read_metrics(eight, "train")] == [1, 2, 3, 4, 5, 6, 7]


def test_translating_needs_only_the_runs_folder(runs, tmp_path):
    folder, one, eight = runs
    decoding = {"beam_size": 2, "batch_size": 4, "max_length_extra": 3, "n_best": 2}
    expected = jaxnmt.load(folder / "one", 5).translate(["a b c", "j"], **decoding)
    for name in [path for path in folder.iterdir() if path.name != "one"]:
        name.rename(tmp_path / name.name)  # the text and the cache are gone
    (folder / "one").rename(tmp_path / "elsewhere")
    assert jaxnmt.load(tmp_path / "elsewhere", 5).translate(["a b c", "j"], **decoding) == expected
    assert all(line[0].score < 0 for line in expected)
