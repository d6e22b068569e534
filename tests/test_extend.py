"""The config file of docs/extend.md: own data, optimizer, schedule and decoding are trained, stored, resumed and used."""

import json
import pathlib
import re

import jax
import numpy as np
import optax
import pytest

import jaxnmt
from jaxnmt import cli
from jaxnmt.config import checks
from jaxnmt.config.files import load_config
from jaxnmt.runs.directory import read_metrics

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extend.md"
SETTINGS = {"model.emb_dim": 16, "model.num_heads": 2, "model.mlp_dim": 16, "data.largest": 299}
SETTINGS |= {"training.steps": 12, "validation.every": 6, "logging.every": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extend")
    (folder / "reverse.py").write_text(re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1])
    return folder


def train(folder, name, config="reverse.py", hooks=(), **changes):
    settings = SETTINGS | {"data.cache": str(folder / "cache")} | changes
    return jaxnmt.train(str(folder / config), folder=folder / name, settings=settings, hooks=hooks).folder


@pytest.fixture(scope="module")
def run(folder):
    return train(folder, "run")


def test_the_schedule_and_the_data_are_the_users(run):
    rates = [record["learning_rate"] for record in read_metrics(run, "train")]
    assert rates == pytest.approx([0.1 * min(3 * n / 12, 1.5 * (1 - n / 12)) for n in range(1, 13)], abs=1e-7)
    opened = jaxnmt.load(run)
    assert opened.config.data.largest == 299 and opened.test_set().sources[:3] == ["0", "1 0", "2 0"]
    assert opened.test_set().references[0][1] == "0 1"


def test_the_optimizer_is_the_users(folder, run):
    """Nesterov's first step, on a gradient of norm 1 at most: velocity g, update g + momentum * g."""
    config = load_config(str(folder / "reverse.py"))
    gradient = {"w": np.array([3.0, 4.0], np.float32)}
    transformation = config.optimizer.build()
    updates, _ = transformation.update(gradient, transformation.init(gradient))
    np.testing.assert_allclose(updates["w"], -1.9 * np.array([0.6, 0.8]), rtol=1e-6)
    stored = json.loads((run / "config.json").read_text())
    assert stored["optimizer"] == {"type": "model.py:Momentum", "momentum": 0.9, "norm": 1.0}
    assert isinstance(transformation, optax.GradientTransformation)


def test_a_resumed_run_is_the_run_that_was_never_stopped(folder, run):
    class StopAtSeven(jaxnmt.Hook):
        def is_due(self, trainer, step):
            return step == 7

        def run(self, trainer, step):
            trainer.stop("seven are enough")

    part = train(folder, "part", hooks=[StopAtSeven()])
    assert jaxnmt.load(part).checkpoints[-1] == 7
    assert cli.main(["resume", str(part)]) == 0
    whole, resumed = jaxnmt.load(run, "latest").params, jaxnmt.load(part, "latest").params
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(resumed)))


def test_no_token_is_written_twice_in_a_row_unless_it_is_allowed(run, folder, capsys):
    (folder / "in").write_text("1 1 1\n5 5\n1 2 3\n")
    repeated = {}
    for forbidden in ("True", "False"):
        assert cli.main(["translate", str(run), "--input", str(folder / "in"), "--forbidden", forbidden]) == 0
        lines = capsys.readouterr().out.splitlines()
        repeated[forbidden] = [pair for line in lines for pair in zip(line.split(), line.split()[1:], strict=False) if pair[0] == pair[1]]
        assert len(lines) == 3 and any(lines)
    assert not repeated["True"] and repeated["False"]  # barely trained, it repeats itself


def test_another_optimizer_class_is_refused(run, folder):
    text = (folder / "reverse.py").read_text()
    (folder / "other.py").write_text(text.replace("nesterov=True", "nesterov=False"))
    with pytest.raises(jaxnmt.UserError, match="optimizer: Momentum of .* whose code is different"):
        train(folder, "run", "other.py", **{"training.steps": 20})


def test_what_a_class_lacks_is_said_before_anything_is_trained(folder):
    experiment = load_config(str(folder / "reverse.py"))
    faults = {"optimizer": experiment.schedule, "schedule": experiment.optimizer, "data": experiment.optimizer}
    for part, other in faults.items():
        with pytest.raises(jaxnmt.UserError, match=f"^the {part} {type(other).__name__} "):
            checks.validate(jaxnmt.replace(experiment, **{part: other}))
