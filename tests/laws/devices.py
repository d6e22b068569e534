"""Trains a tiny run on all the devices that this process has: `python devices.py FOLDER RUN [field=value ...]`, for test_devices.py."""

import json
import pathlib
import sys

import jax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tiny

from jaxnmt.config.files import save_config
from jaxnmt.parallel import sharding
from jaxnmt.training.loop import Trainer, default_hooks
from jaxnmt.training.step import TrainPrograms, batch_struct

CHANGES = {
    "batching.layout": "buckets",
    "batching.tokens": 128,
    "batching.max_shapes": 2,
    "training.accumulation": 1,
    "training.steps": 5,
    "logging.every": 1,
    "validation.every": 0,
}


def train(folder: pathlib.Path, run: pathlib.Path, **changes) -> Trainer:
    """A run whose every step is logged; the pairs of its batches go to `batches.txt`."""
    run.mkdir(exist_ok=True)
    experiment = tiny.experiment(folder, **(CHANGES | changes))
    save_config(experiment, run / "config.json")
    trainer = Trainer(experiment, run, default_hooks())
    trainer.run()
    planned = [trainer.plan.batch(step) for step in range(experiment.training.steps)]
    (run / "batches.txt").write_text(json.dumps([(batch.row.tolist(), batch.corpus.tolist(), batch.index.tolist()) for batch in planned]))
    return trainer


def held(trainer: Trainer) -> list[float]:
    """The share of each of the state's matrices that this process's first device has."""
    state = trainer.state
    matrices = [x for x in jax.tree.leaves((state.params, state.opt_state, state.ema)) if x.ndim > 1]
    return [x.addressable_shards[0].data.size / x.size for x in matrices]


def sums(folder: pathlib.Path, trainer: Trainer) -> list[int]:
    """How many sums over devices a step in two parts takes: in its loops, and outside of them."""
    config = tiny.experiment(folder, **(CHANGES | {"training.accumulation": 2}))
    programs, shape = TrainPrograms(trainer.model, config, trainer.mesh), trainer.plan.shapes[0]
    counts = [0, 0]

    def count(jaxpr, is_outside: bool) -> None:
        for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
            counts[is_outside] += equation.primitive.name.startswith(("psum", "reduce_scatter"))
            for inner in jax.tree.leaves(equation.params):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    count(inner, is_outside and equation.primitive.name not in ("scan", "while"))

    count(programs.step.trace(programs.abstract, batch_struct(shape, trainer.plan.packed, trainer.mesh, trainer.model.task)).jaxpr, True)
    return counts


if __name__ == "__main__":
    sharding.MIN_SHARDED_SIZE = 1  # as if these matrices were large
    trainer = train(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    print(jax.device_count(), *sorted(set(held(trainer))), *sums(pathlib.Path(sys.argv[1]), trainer))
