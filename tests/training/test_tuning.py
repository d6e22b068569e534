"""Freezing, learning rates by path, L2 to the start, and adapters: what moves, what does not, and that a killed run resumes to the bit."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.config import checks
from jaxnmt.config.files import save_config
from jaxnmt.errors import UserError
from jaxnmt.parallel.axes import path_name
from jaxnmt.runs import directory
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.hooks import Log, Save
from jaxnmt.training.loop import Trainer
from jaxnmt.training.progress import Progress
from jaxnmt.training.state import widen

FROZEN = {"training.freeze": ("shared_embedding", "encoder/layer_[0-3]")}
RATES = {"training.rates": ("encoder=0.1", ".*/bias=4", "decoder=0.5")}
PULLED = {"init.l2": 0.05}
LORA = {"training.lora.rank": 2, "training.lora.alpha": 6.0, "training.lora.paths": ("decoder",)}
KINDS = {"freeze": FROZEN, "rates": RATES, "l2": PULLED, "lora": LORA}
SHORT = {"training.steps": 4, "checkpoints.every": 2, "batching.layout": "buckets", "batching.max_shapes": 1, "logging.every": 1}
ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run `base`, of random parameters."""
    folder = tmp_path_factory.mktemp("tuning")
    (run := folder / "base").mkdir()
    config = tiny.experiment(folder, **SHORT, **{"training.seed": 2})
    save_config(config, run / directory.CONFIG)
    trainer = Trainer(config, run)
    with trainer.store as store:
        state = trainer.programs.fresh(config.training)
        store.save(dataclasses.replace(state, step=jnp.int32(3)), Progress(), None)
    return folder


def session(folder, name, **changes):
    """Train a run that begins with `base`, to its last step."""
    config, run = cfg.replace(tiny.experiment(folder), **{"init.from": str(folder / "base")} | SHORT | changes), folder / name
    checks.validate(config)
    run.mkdir(exist_ok=True)
    save_config(config, run / directory.CONFIG)
    trainer = Trainer(config, run, [Log(), Save()])
    trainer.run()
    return trainer


def stored(run, which="latest"):
    return by_path(jaxnmt.load(run, which).params)


def by_path(tree):
    return {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_stops_and_resumes_is_equal_to_the_bit(kind, folder):
    whole = session(folder, f"{kind}-whole", **KINDS[kind])
    session(folder, f"{kind}-part", **KINDS[kind], **{"training.steps": 2})
    shutil.move(folder / "base", folder / "elsewhere")
    try:
        part = session(folder, f"{kind}-part", **KINDS[kind])
        tiny.assert_same(part.state, whole.state)
        for which in ("params", "ema", "optimizer"):
            sums = [Checkpoints(folder / f"{kind}-{end}")._sums(4)[which] for end in ("whole", "part")]
            assert sums[0] == sums[1]
        records = [[json.loads(line) for line in (folder / f"{kind}-{end}" / "metrics.jsonl").open()] for end in ("whole", "part")]
        assert [r | {"timing": 0} for r in records[0]] == [r | {"timing": 0} for r in records[1]]
    finally:
        shutil.move(folder / "elsewhere", folder / "base")


def test_frozen_parameters_are_equal_to_the_bit_and_cost_no_state(folder):
    trainer = session(folder, "frozen", **FROZEN, **{"optimizer.name": "adamw", "optimizer.weight_decay": 0.1})
    before, after = stored(folder / "base"), stored(folder / "frozen")
    frozen = {name for name in before if name.startswith(("shared_embedding", "encoder/layer"))}
    assert frozen and {name for name in before if np.array_equal(before[name], after[name])} == frozen
    state = trainer.state
    assert set(by_path(state.frozen)) == frozen and set(by_path(state.params)) == set(by_path(state.ema)) == set(before) - frozen
    elements = sum(x.size for x in jax.tree.leaves(state.params))
    assert sum(x.size for x in jax.tree.leaves(state.opt_state)) - 2 * elements < 8  # counters
    for name, x in by_path(state.frozen).items():
        np.testing.assert_array_equal(x, before[name])
