"""What is compiled does not depend on where it is called, and needs no particular version of a compiler."""

import re

import jax
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.parallel.sharding import make_mesh
from jaxnmt.training.step import TrainPrograms, batch_struct, evaluation_program


def test_training_and_evaluation_are_laid_out_on_their_mesh_in_any_context():
    """The laws call these programs as training does, outside every mesh, and must run the ones that training runs."""
    config, mesh = cfg.Experiment(model=tiny.BASE), make_mesh(cfg.Mesh())
    model = tiny.model_of(tiny.BASE)
    state = TrainPrograms(model, config, mesh).abstract
    batch = batch_struct(Shape(4, 8, 8), False, mesh, config.task)

    def programs():
        jax.clear_caches()
        step, evaluate = TrainPrograms(model, config, mesh).step, evaluation_program(model, 0.1, mesh)
        texts = step.lower(state, batch).as_text(), evaluate.lower(state.params, batch).as_text()
        # JAX shares its private functions, such as _where_3, between calls in one context: their numbers, and copies of them, may differ
        return [{re.sub(r"@_where(_\d+)?", "@_where", line) for line in text.splitlines()} for text in texts]

    outside = programs()
    with jax.sharding.set_mesh(mesh):
        inside = programs()
    assert outside == inside
    assert all(any("sharding_constraint" in line for line in lines) for lines in outside)


def test_a_compiler_without_an_option_is_called_without_options(monkeypatch):
    config, mesh = cfg.Experiment(model=tiny.BASE), make_mesh(cfg.Mesh())
    programs = TrainPrograms(tiny.model_of(tiny.BASE), config, mesh)
    monkeypatch.setattr(TrainPrograms, "compiler_options", {"xla_an_option_of_another_version": "true"})
    lowered = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((), "float32"))
    assert programs._compile(lowered)(jax.numpy.float32(1)) == 2
    monkeypatch.setattr(TrainPrograms, "compiler_options", {"xla_cpu_copy_insertion_use_region_analysis": "neither true nor false"})
    with pytest.raises(jax.errors.JaxRuntimeError):
        programs._compile(lowered)
