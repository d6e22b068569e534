"""Laws 1, 2, 5, 6 and 7: a run resumes to the bit, compiles each shape once, is the same on eight devices, and learns.

Another process simulates the eight devices. It reads the configuration from a file, and writes its losses and a checkpoint.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.config import model_code
from jaxnmt.config.files import read_config, save_config
from jaxnmt.data.packing import Shape
from jaxnmt.data.special_tokens import EOS, PAD
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws import subject as subjects
from jaxnmt.lab.laws.subject import SHAPE, Pair, Practice, Subject, Verdict, close, random_pairs
from jaxnmt.models.parameters import for_decoding, is_scanned, stack_layers, unstack_layers
from jaxnmt.parallel.axes import path_name
from jaxnmt.parallel.sharding import to_mesh
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.progress import Progress
from jaxnmt.training.state import TrainState, abstract_state
from jaxnmt.training.step import evaluation_program

STEPS, SAVED = 4, 2
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
DEVICES, DEVICE_STEPS = 8, 5
MESHES = (cfg.Mesh(data=2, fsdp=2, tensor=2), cfg.Mesh(data=DEVICES))
"""The law uses the first mesh whose axes divide the model's sizes."""
RATES = (0.01, 0.003, 0.001, 0.0003)
"""Learning rates, tried in this order until one works: the right one depends on the width."""


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
    batches = [subject.batch_of_step(step) for step in range(STEPS)]
    whole, losses = practice.run(practice.fresh(), batches)
    half, first = practice.run(practice.fresh(), batches[:SAVED])
    with tempfile.TemporaryDirectory(prefix="jaxnmt-laws-") as folder:
        save(subject, half, Path(folder))
        again, second = practice.run(restore(subject, practice, Path(folder), SAVED), batches[SAVED:])
    if not _differing(whole.params, practice.fresh().params):
        return Verdict(False, "training leaves the parameters as they are")
    if first + second != losses:
        return Verdict(False, f"the losses are {first + second}, not {losses}")
    if differ := _differing(whole, again):
        return Verdict(False, f"{len(differ)} arrays of the state differ, the first is {differ[0]}")
    return Verdict(True, f"{STEPS} losses and {len(jax.tree.leaves(whole))} arrays of the state to the bit")


def _differing(left, right) -> list[str]:
    """Return the names of the arrays in which two pytrees differ."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True)
    return [path_name(path) for (path, a), b in pairs if not np.array_equal(a, b)]


def compiles(subject: Subject) -> Verdict:
    """Count compilations while training and predicting over two shapes each, then over other sentences of the same shapes."""
    shapes = (SHAPE, Shape(8, 6, 6))
    find = jax.jit(functools.partial(search, subject.decoder, SearchOptions(2, 6)))
    predict = jax.jit(functools.partial(subjects.one_pass, subject.decoder))

    def work(practice: Practice, state: TrainState, seed: int) -> TrainState:
        state, _ = practice.run(state, [subject.batch_of_step(seed, shape) for shape in shapes])
        for rows, width in ((4, 8), (2, 12)):
            batch = subject.batch(random_pairs(rows, seed), [[i] for i in range(rows)], width, 8)
            if subject.task.searches:
                find(subject.decoder_params, subjects.sources(batch), np.full(rows, 6, np.int32))
            else:
                predict(subject.decoder_params, batch)
        return state

    names: list[str] = []  # of the functions that are lowered, in order

    def listen(event: str, seconds: float, fun_name: str = "", **_) -> None:
        if event == LOWERED:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        practice = Practice(subject.model, subject.experiment, shapes)
        state = work(practice, practice.fresh(), 0)
        first = collections.Counter(names)
        state = work(practice, state, 1)
        work(practice, state, 2)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    again = names[first.total() :]
    pass_of = "search" if subject.task.searches else "one_pass"
    steps, passes = (sum(n for name, n in first.items() if part in name) for part in ("train_step", pass_of))
    if again:
        return Verdict(False, f"shapes met before are compiled again: {', '.join(sorted(set(again)))}")
    return Verdict((steps, passes) == (2, 2), f"2 shapes each: training compiled {steps} times, predicting {passes}; none after")


def devices(subject: Subject) -> Verdict:
    """Compare the loss of each of a few steps with dropout, on eight devices and on one; then the loss with the checkpoint of the eight."""
    practice = Practice(subject.model, subject.experiment)
    with tempfile.TemporaryDirectory(prefix="jaxnmt-laws-") as name:
        theirs = _on_eight(subject, Path(name))
        state = restore(subject, practice, Path(name), DEVICE_STEPS)
    _, losses = practice.run(practice.fresh(), map(subject.batch_of_step, range(DEVICE_STEPS)))
    apart = np.abs(np.subtract(theirs["losses"], losses)).max()
    restored = abs(theirs["evaluation"] - _evaluation(subject, practice, state))
    if not restored <= 1e-5:
        return Verdict(
            False, f"the checkpoint of {theirs['mesh']} devices, restored on {practice.mesh.size}, has a loss {restored:.1g} away"
        )
    return close(apart, 1e-4, f"{theirs['mesh']} devices, restored here, largest difference of a loss")


def _on_eight(subject: Subject, folder: Path) -> dict:
    """Run `worker` in a process with eight devices, and return what it writes."""
    save_config(subject.experiment, folder / "config.json")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    code = "import sys; from jaxnmt.lab.laws.training import worker; worker(sys.argv[1])"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-P", "-c", code, str(folder)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"on {DEVICES} devices: {(done.stderr.strip() or 'it ended without a message').splitlines()[-1]}")
    return json.loads((folder / "result.json").read_text())


def worker(folder: str) -> None:
    """Train on all devices of this process; write a checkpoint and `result.json` into a folder that holds `config.json`."""
    run = Path(folder)
    with model_code.all_trusted():  # the parent has written it
        experiment = read_config(run / "config.json")
    subject = Subject(experiment.model, experiment.task)
    try:
        practice = Practice(subject.model, cfg.replace(experiment, mesh=MESHES[0]))
    except errors.UserError:
        practice = Practice(subject.model, cfg.replace(experiment, mesh=MESHES[1]))
    state, losses = practice.run(practice.fresh(), map(subject.batch_of_step, range(DEVICE_STEPS)))
    save(subject, state, run)
    named = " x ".join(str(n) for n in practice.mesh.devices.shape if n > 1)
    (run / "result.json").write_text(json.dumps({"losses": losses, "evaluation": _evaluation(subject, practice, state), "mesh": named}))


def _evaluation(subject: Subject, practice: Practice, state: TrainState) -> float:
    evaluate = evaluation_program(subject.model, 0.1, practice.mesh)
    sums = evaluate(state.eval_params, to_mesh(subject.batch_of_step(DEVICE_STEPS), practice.mesh))
    return float(sums.loss) / float(sums.tokens)


def overfit(subject: Subject) -> Verdict:
    """Train on six pairs of two to six words until greedy search returns each target word for word, or each label is predicted.

    Dropout is off, as in `reversal`: the question is what a model can learn.
    """
    if not subject.task.pairs:
        return Verdict(None, f"the task {type(subject.task).__name__} has no pairs")
    pairs = [(source, subject.label(target) if subject.task.is_label else target) for source, target in random_pairs(6, seed=9)]
    return _learn(subject, Shape(6, 8, 8), pairs, lambda: pairs, every=50, most=300, needed=1.0)


def reversal(subject: Subject) -> Verdict:
    """Train on sequences of two to four of twelve words (up to three with a fixed vector), and translate some that were not trained on."""
    if not subject.task.pairs or subject.task.is_label:
        return Verdict(None, f"the task {type(subject.task).__name__} has no sequence to reverse")
    pairs = random_pairs(4, seed=2, shortest=4)
    turned = [(source[::-1], target) for source, target in pairs]
    before, after = (subject.logits(subject.batch(some, [[0], [1], [2], [3]], 8, 8)) for some in (pairs, turned))
    changed = subjects.distance(after, before)
    if changed <= subjects.ROUNDING:
        return Verdict(None, f"the encoder sees no order: reversing the source changes a logit by {changed:.1g}")
    longest = 3 if getattr(subject.config, "context", "") == "fixed" else 4
    random = np.random.default_rng(0)

    def draw(unseen: bool) -> Pair:
        while True:
            ids = random.integers(subjects.FIRST_WORD, subjects.FIRST_WORD + 12, random.integers(2, longest + 1)).tolist()
            if (sum(i * 3**n for n, i in enumerate(ids)) % 5 == 0) == unseen:
                return ids, ids[::-1]

    unseen = [draw(True) for _ in range(64)]
    return _learn(subject, Shape(64, 5, 5), unseen, lambda: [draw(False) for _ in range(64)], every=100, most=1000, needed=0.9)


def _learn(
    subject: Subject, shape: Shape, tested: list[Pair], draw: Callable[[], list[Pair]], every: int, most: int, needed: float
) -> Verdict:
    """Train on batches of drawn pairs until the share `needed` of the pairs `tested` is translated to the letter.

    Args:
        every, most: steps between translations, and in all at each learning rate.
    """

    def batch(pairs: list[Pair]) -> dict[str, np.ndarray]:
        return subject.batch(pairs, [[i] for i in range(shape.rows)], shape.source, shape.target)

    changes = {"schedule.learning_rate": 1.0, "schedule.warmup_steps": 20, "training.label_smoothing": 0.0, "training.ema_decay": 0.0}
    practice = Practice(subjects.WithoutDropout(subject.model), cfg.replace(subject.experiment, **changes), [shape])
    find = jax.jit(functools.partial(search, subject.decoder, SearchOptions(1, shape.target + 2)))
    limits: np.ndarray = np.full(shape.rows, shape.target + 2, np.int32)
    sources = subjects.sources(batch(tested))
    best = 0.0
    for rate in RATES:
        state = practice.fresh(rate)
        for step in range(every, most + 1, every):
            state, _ = practice.run(state, (batch(draw()) for _ in range(every)))
            unrolls = is_scanned(subject.config) and not is_scanned(for_decoding(subject.config))
            params = jax.jit(unstack_layers)(state.params) if unrolls else state.params
            if subject.task.is_label:
                words = subject.labels_found(params, sources)
            else:
                tokens = np.asarray(find(params, sources, limits).tokens_BWT[:, 0])
                words = [[int(token) for token in row if token not in (PAD, EOS)] for row in tokens]
            right = float(np.mean([found == target for found, (_, target) in zip(words, tested, strict=True)]))
            best = max(best, right)
            if right >= needed:
                return Verdict(True, f"{right:.0%} right after {step} steps at learning rate {rate:g}")
    return Verdict(False, f"{best:.0%} right at best, {needed:.0%} needed, in {most} steps at each of the learning rates {RATES}")
