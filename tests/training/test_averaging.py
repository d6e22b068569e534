"""The average of checkpoints, against means worked out by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import cli, errors, load
from jaxnmt.data.prepared import prepare
from jaxnmt.parallel.sharding import make_mesh
from jaxnmt.run import Run
from jaxnmt.runs import directory as run_directory
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.checksums import checksum
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.state import abstract_state


def filled(x, value):
    return jnp.full(x.shape, value, x.dtype).ravel().at[0].set(1000).reshape(x.shape)


def run_of(folder, values, ema=0.0, **changes):
    """A run whose checkpoints 1, 2, … hold parameters (and averages) that are `value`, and 1000 in the first place of each leaf."""
    experiment = tiny.experiment(folder, **{"training.ema_decay": ema, "checkpoints.keep_latest": len(values)} | changes)
    run = folder / "run"
    run_directory.start(run, experiment)
    prepare(experiment, run / "tokenizer", say=lambda line: None)
    model = Run(run).model
    abstract = abstract_state(model, make_optimizer(experiment.optimizer, model.axes), experiment.training, make_mesh(experiment.mesh))
    store = Checkpoints(run, experiment.checkpoints)
    for step, value in enumerate(values, 1):
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract)
        params = jax.tree.map(lambda x, value=value: filled(x, value), abstract.params)
        average = jax.tree.map(lambda x, value=value: filled(x, -value), abstract.params) if ema else None
        state = type(state)(**{**vars(state), "step": jnp.int32(step), "params": params, "ema": average})
        store.save(state, Progress(), Score("loss", -float(step)))
    store.close()
    return run


def assert_filled(params, value):
    for leaf in map(np.asarray, jax.tree.leaves(params)):
        assert leaf.dtype == np.float32 and leaf.ravel()[0] == 1000
        np.testing.assert_array_equal(leaf.ravel()[1:], np.float32(value))


def test_the_mean_of_the_newest(tmp_path):
    run = run_of(tmp_path, [7.0, 1.0, 2.0, 6.0])
    assert Run(run).average(3) == [2, 3, 4]
    found = load(run, "average")
    assert_filled(found.params, 3.0)  # (1 + 2 + 6) / 3
    assert found.checkpoint == "average of checkpoints 2, 3, 4"
    Run(run).average(2)
    assert_filled(load(run, "average").params, 4.0)
    assert sorted(path.name for path in run.iterdir() if "average" in path.name) == ["average"]


def test_it_is_summed_in_float64(tmp_path):
    run = run_of(tmp_path, [2.0**24, 1.0, 1.0])  # in float32, 2²⁴ + 1 is 2²⁴
    Run(run).average(3)
    assert_filled(load(run, "average").params, (2**24 + 2) / 3)


def test_the_moving_averages_are_averaged_where_they_are_what_decodes(tmp_path):
    run = run_of(tmp_path, [2.0, 4.0], ema=0.9)
    Run(run).average(2)
    assert_filled(load(run, "average").params, -3.0)


def test_a_run_whose_layers_were_scanned(tmp_path):
    run = run_of(tmp_path, [2.0, 5.0], **{"model.scan_layers": True, "model.remat": "full"})
    Run(run).average(2)
    assert_filled(load(run, "average").params, 3.5)


def test_what_training_resumes_from_is_not_touched(tmp_path):
    run = run_of(tmp_path, [1.0, 2.0])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    Run(run).average(2)
    assert {path: path.read_bytes() for path in before} == before and Run(run).checkpoints == [1, 2]


def test_a_checkpoint_by_name(tmp_path):
    run = run_of(tmp_path, [1.0, 2.0, 3.0])
    for word, value in (("best", 1.0), ("latest", 3.0), (2, 2.0)):
        assert_filled(load(run, word).params, value)
    with pytest.raises(errors.UserError, match="has no checkpoint 9; it has 1, 2, 3"):
        load(run, 9)
    with pytest.raises(errors.UserError, match="jaxnmt runs average"):
        load(run, "average")


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_would_be_loaded_is_known_by_name_and_checksum_without_reading_it(tmp_path, ema):
    run = run_of(tmp_path, [1.0, 2.0, 3.0], ema=ema)
    Run(run).average(2)
    sums = set()
    for word in ("best", "latest", 2, "average"):
        found = load(run, word)
        known = Checkpoints(run).find(word)
        assert (known.name, known.checksum) == (found.checkpoint, checksum(found.params))
        assert load(run, known.which).checkpoint == known.name
        sums.add(checksum(found.params))
    assert len(sums) == 4
    with pytest.raises(errors.UserError, match="has no checkpoint 9; it has 1, 2, 3"):
        Checkpoints(run).find(9)


def test_fewer_than_asked_for_says_how_to_keep_more(tmp_path, capsys):
    run = run_of(tmp_path, [1.0, 2.0])
    assert cli.main(["runs", "average", str(run)]) == 2
    error = capsys.readouterr().err
    assert "keeps 2 checkpoints, fewer than --last 5" in error and "--checkpoints.keep-latest 5" in error
    assert not (run / "average").exists()


def test_a_damaged_average_is_refused(tmp_path):
    run = run_of(tmp_path, [1.0, 2.0])
    Run(run).average(2)
    record = json.loads((run / "average" / "average.json").read_text())
    (run / "average" / "average.json").write_text(json.dumps(record | {"checksum": record["checksum"] ^ 1}))
    with pytest.raises(errors.UserError, match="damaged"):
        print(load(run, "average").params)


def test_the_average_translates(tmp_path, capsys):
    run = run_of(tmp_path, [0.01, 0.02])
    (tmp_path / "in.xx").write_text("a b c\n\n")
    Run(run).average(2)
    arguments = ["translate", str(run), "--checkpoint", "average", "--input", str(tmp_path / "in.xx"), "--beam-size", "1"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "average of checkpoints 1, 2" in captured.err and len(captured.out.splitlines()) == 2
