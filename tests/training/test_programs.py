"""A compiled program does not depend on the mesh that is set where it is called."""

import re

import jax
import tiny

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.parallel.sharding import make_mesh
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.programs import batch_struct, evaluation_program, jitted_step
from jaxnmt.training.state import abstract_state


def instructions(text):
    """The numbered instructions of a program. JAX writes a helper function once for each mesh that is set while it is traced: `_where_3`."""
    return {re.sub(r"@(\w+?)_\d+\b", r"@\1", line) for line in text.splitlines()}


def test_training_and_evaluation_are_laid_out_on_their_mesh_in_any_context():
    """The laws call these programs as training does, outside every mesh, and must run the ones that training runs."""
    config, mesh = cfg.Experiment(model=tiny.BASE), make_mesh(cfg.Mesh())
    model, optimizer = tiny.model_of(tiny.BASE), make_optimizer(config.optimizer, tiny.model_of(tiny.BASE).axes)
    state = abstract_state(model, optimizer, config.training, mesh)
    batch = batch_struct(Shape(4, 8, 8), False, mesh)

    def programs():
        jax.clear_caches()
        step, evaluate = jitted_step(model, optimizer, config, state, mesh), evaluation_program(model, 0.1, mesh)
        return step.lower(state, batch).as_text(), evaluate.lower(state.params, batch).as_text()

    outside = programs()
    with jax.sharding.set_mesh(mesh):
        inside = programs()
    assert [instructions(text) for text in outside] == [instructions(text) for text in inside]
    assert all("sharding_constraint" in text for text in outside)
