"""Laws 1 and 6: a resumed run equals one that never stopped, to the bit; every shape is compiled once, and nothing after that."""

from __future__ import annotations

import collections
import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.packing import Shape
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws.practice import SHAPE, Practice, batch
from jaxnmt.lab.laws.subject import Subject, Verdict, batch_of, random_pairs
from jaxnmt.models.seq2seq import is_scanned, stack_layers, unstack_layers
from jaxnmt.parallel.axes import path_name
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.progress import Progress
from jaxnmt.training.state import TrainState, abstract_state

STEPS, SAVED = 4, 2
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


def save(subject: Subject, state: TrainState, run: Path) -> None:
    """Write a checkpoint as a run does."""
    store = Checkpoints(run, cfg.Checkpoints())
    store.save(jax.jit(unstack_layers)(state) if is_scanned(subject.config) else state, Progress(), None)
    store.close()


def restore(subject: Subject, practice: Practice, run: Path, step: int) -> TrainState:
    """Return the state of a checkpoint, laid out for `practice`."""
    optimizer = make_optimizer(practice.experiment.optimizer, subject.flat_model.axes)
    flat = abstract_state(subject.flat_model, optimizer, practice.experiment.training, practice.mesh)
    store = Checkpoints(run, cfg.Checkpoints())
    state, _ = store.restore(step, flat)
    store.close()
    return practice.own(jax.jit(stack_layers)(state) if is_scanned(subject.config) else state)


def resume(subject: Subject) -> Verdict:
    """Compare some steps in one go with the same steps around a checkpoint that is saved and restored half-way."""
    practice = Practice(subject.model, subject.experiment)
    batches = [batch(step) for step in range(STEPS)]
    whole, losses = practice.run(practice.fresh(), batches)
    half, first = practice.run(practice.fresh(), batches[:SAVED])
    with tempfile.TemporaryDirectory(prefix="jaxnmt-laws-") as folder:
        save(subject, half, Path(folder))
        again, second = practice.run(restore(subject, practice, Path(folder), SAVED), batches[SAVED:])
    if all(jax.tree.leaves(jax.tree.map(np.array_equal, whole.params, practice.fresh().params))):
        return Verdict(False, "training leaves the parameters as they are")
    if first + second != losses:
        return Verdict(False, f"the losses are {first + second}, not {losses}")
    differ = [
        path_name(path)
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(again), strict=True)
        if not np.array_equal(a, b)
    ]
    if differ:
        return Verdict(False, f"{len(differ)} arrays of the state differ, the first is {differ[0]}")
    return Verdict(True, f"{STEPS} losses and {len(jax.tree.leaves(whole))} arrays of the state to the bit")


@contextlib.contextmanager
def lowerings() -> Iterator[list[str]]:
    """Collect the names of the functions that are lowered inside the context, in order."""
    names: list[str] = []

    def listen(event: str, seconds: float, fun_name: str = "", **_) -> None:
        if event == LOWERED:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def compiles(subject: Subject) -> Verdict:
    """Count compilations while training and searching over two shapes each, then over other sentences of the same shapes."""
    shapes = (SHAPE, Shape(8, 5, 6))
    find = jax.jit(functools.partial(search, subject.flat_model, SearchOptions(2, 6)))

    def work(practice: Practice, state: TrainState, seed: int) -> TrainState:
        state, _ = practice.run(state, [batch(seed, shape) for shape in shapes])
        for rows, width in ((4, 8), (2, 12)):
            tokens = batch_of(random_pairs(rows, seed), [[i] for i in range(rows)], width, 8)["encoder_input_tokens"]
            find(subject.flat_params, {"encoder_input_tokens": tokens}, np.full(rows, 6, np.int32))
        return state

    with lowerings() as names:
        practice = Practice(subject.model, subject.experiment, shapes)
        state = work(practice, practice.fresh(), 0)
        first = collections.Counter(names)
        state = work(practice, state, 1)
        work(practice, state, 2)
        again = names[first.total() :]
    steps, searches = (sum(n for name, n in first.items() if part in name) for part in ("train_step", "search"))
    if again:
        return Verdict(False, f"shapes met before are compiled again: {', '.join(sorted(set(again)))}")
    return Verdict((steps, searches) == (2, 2), f"2 shapes each: training compiled {steps} times, searching {searches}; none after")
