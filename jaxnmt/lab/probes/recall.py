"""Recall of a word seen n steps ago: a model is trained to repeat it; its accuracy on other sentences is drawn against n.

The source is one key, of `KEYS` words that occur nowhere else, among random other words, and EOS; the target is the key. n steps lie
between reading the key and the end of reading: the key comes first in the order of reading. For an encoder that reads in both directions
it is in the middle of 2n − 1 words, since either end would be near. The decoder takes one step.

One model learns all distances at once. Each batch has one distance, and all distances have equally many batches, so that there is one
budget for all; the near distances teach the task, and what is measured is whether a model comes to keep a word for n steps. With `--apart`
there is one model per distance, the harder question of Hochreiter (1991) and Bengio et al. (1994): whether a dependency is found by its
own gradient, without nearer examples. Dropout is off: the question is what can be learned.
"""

from __future__ import annotations

import csv
import functools
import pathlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnmt import Experiment, Mesh, Schedule, Training, UserError, replace
from jaxnmt.data.special_tokens import BOS, EOS
from jaxnmt.io import files
from jaxnmt.lab import figures
from jaxnmt.lab.laws.subject import FIRST_WORD, Practice, WithoutDropout, shape_of
from jaxnmt.lab.options import Recall, Subject
from jaxnmt.models.parameters import parameter_count
from jaxnmt.models.seq2seq import Seq2Seq, build_model
from jaxnmt.parallel.log import say
from jaxnmt.parallel.sharding import make_mesh, num_shards
from jaxnmt.training.state import TrainState

KEYS, OTHERS = 16, 16
VOCABULARY = FIRST_WORD + KEYS + OTHERS
TESTED = 256
"""Test sentences per distance, rounded up to whole batches."""


class Cell(NamedTuple):
    """A row of the CSV: a model's accuracy at a distance, and its training (`trained_on`: distances, separated by spaces)."""

    model: str
    seed: int
    distance: int
    accuracy: float
    parameters: int
    trained_on: str
    steps: int
    rows: int
    learning_rate: float


def around(model: Any, distance: int) -> tuple[int, int]:
    """Return the number of words before and after the key; `distance` steps lie between reading the key and reading EOS."""
    if getattr(model, "encoder", "recurrent") == "recurrent" and getattr(model, "bidirectional", "none") != "none":
        return distance - 1, distance - 1
    return (distance - 1, 0) if getattr(model, "reverse_source", False) else (0, distance - 1)


def sentences(places: tuple[int, int], rows: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a batch: sources with one key and `places` words before and after it, and the key as the only target word."""
    source: np.ndarray = random.integers(FIRST_WORD + KEYS, VOCABULARY, (rows, sum(places) + 2), np.int32)
    key: np.ndarray = random.integers(FIRST_WORD, FIRST_WORD + KEYS, (rows, 1), np.int32)
    source[:, places[0]], source[:, -1] = key[:, 0], EOS
    return {
        "encoder_input_tokens": source,
        "decoder_input_tokens": np.full_like(key, BOS),
        "decoder_target_tokens": key,
        "decoder_loss_weights": np.ones(key.shape, np.float32),
    }


class Task:
    """Trains a model to recall at some distances. Its step is compiled once per distance, for all seeds.

    Attributes:
        label: the model's name.
        parameters: number of the model's parameters.
    """

    def __init__(self, label: str, config: Any, distances: Sequence[int], budget: Recall):
        self.label, self.distances, self.budget = label, distances, budget
        self.places = {n: around(config, n) for n in distances}
        steps = budget.steps * len(distances)
        changes = {
            "optimizer.clip_norm": 1.0,
            "schedule": Schedule("cosine", budget.learning_rate, warmup_steps=min(100, steps // 10)),
            "training": Training(steps=steps, label_smoothing=0.0),
        }
        self.experiment = replace(Experiment(model=config), **changes)
        self.model: Seq2Seq = WithoutDropout(build_model(config, VOCABULARY, VOCABULARY))
        self.parameters = parameter_count(self.model.shapes)

    @functools.cached_property
    def practice(self) -> Practice:
        shapes = {shape_of(self._batch(n, np.random.default_rng(0))) for n in self.distances}
        return Practice(self.model, self.experiment, sorted(shapes))

    def accuracies(self, seed: int) -> dict[int, float]:
        """Train with a seed. Returns the share of keys recalled, by distance."""
        state, _ = self.train(seed)

        @jax.jit
        def hits(params, batch):
            logits_BV = self.model.decode(params, self.model.encode(params, batch), batch)[:, 0, :VOCABULARY]
            return logits_BV.argmax(-1) == batch["decoder_target_tokens"][:, 0]

        found = {}
        for n in self.distances:
            random, batches = np.random.default_rng([1, n]), -(-TESTED // self.budget.batch_size)
            found[n] = float(np.mean([np.asarray(hits(state.eval_params, self._batch(n, random))) for _ in range(batches)]))
        return found

    def train(self, seed: int) -> tuple[TrainState, list[float]]:
        """Train with a seed. Returns the state, and the loss of each step."""
        self.practice.experiment = replace(self.experiment, **{"training.seed": seed})
        return self.practice.run(self.practice.fresh(), self._batches(seed))

    def _batches(self, seed: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield rounds of one batch per distance, each in a random order."""
        random = np.random.default_rng([0, seed])
        for _ in range(self.budget.steps):
            for n in random.permutation(self.distances):
                yield self._batch(int(n), random)

    def _batch(self, distance: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        return sentences(self.places[distance], self.budget.batch_size, random)

    def cell(self, seed: int, distance: int, accuracy: float) -> Cell:
        """Return a row of the CSV."""
        budget = self.budget.steps, self.budget.batch_size, self.budget.learning_rate
        return Cell(self.label, seed, distance, accuracy, self.parameters, " ".join(map(str, self.distances)), *budget)


def measure(models: Mapping[str, Subject], options: Recall) -> list[Cell]:
    """Train every model for every distance with every seed. Results are kept in a CSV file; those that it already has are not repeated.

    Args:
        models: by label.
        options: the CSV is beside its `output`; other models' cells in it, of the same budget, are kept.

    Returns:
        Every cell of the CSV.

    Raises:
        UserError: the file is not such a CSV, or has another budget; the batch size is not a multiple of the device count.
    """
    parts = num_shards("B", make_mesh(Mesh()))
    if options.batch_size % parts:
        raise UserError(f"--batch-size {options.batch_size} cannot be spread over {parts} devices; choose a multiple of {parts}")
    distances = tuple(sorted(set(options.distances)))
    groups = [(n,) for n in distances] if options.apart else [distances]
    path = pathlib.Path(options.output).with_suffix(".csv")
    cells = read(path)
    tasks = [Task(label, subject.model, group, options) for label, subject in models.items() for group in groups]
    for task in tasks:
        _check(path, cells, task)
    while tasks:
        task = tasks.pop(0)  # the one before it goes, and its compiled programs with it
        for seed in range(1, options.seeds + 1):
            done = {cell.distance for cell in cells if (cell.model, cell.seed) == (task.label, seed)}
            if done.issuperset(task.distances):
                continue
            found = task.accuracies(seed)
            cells += [task.cell(seed, n, accuracy) for n, accuracy in found.items()]
            files.write(path, figures.to_csv(Cell._fields, cells))
            say(f"{task.label}, seed {seed}: " + ", ".join(f"{accuracy:.0%} at {n}" for n, accuracy in found.items()))
    return cells


def _check(path: pathlib.Path, cells: Sequence[Cell], task: Task) -> None:
    """Raise UserError if the cells of a file are of another budget."""
    wanted = task.cell(0, 0, 0.0)
    for cell in cells:
        fields = ["steps", "rows", "learning_rate"]
        fields += ["parameters"] if cell.model == task.label else []
        fields += ["trained_on"] if not task.budget.apart or cell.distance in task.distances else []
        for field in fields:
            has, needs = getattr(cell, field), getattr(wanted, field)
            if has != needs:
                difference = f"{cell.model} with {field.replace('_', ' ')} {has}, not {needs}"
                raise UserError(f"{path} has {difference}: give another --output, or remove that file")


def read(path: pathlib.Path) -> list[Cell]:
    """Return the cells of a CSV; none if there is no file.

    Raises:
        UserError: the file is something else.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header != list(Cell._fields):
        raise UserError(f"{path} is not a table of this probe: give another --output, or remove it")
    kinds = typing.get_type_hints(Cell).values()
    return [Cell(*(kind(text) for kind, text in zip(kinds, row, strict=True))) for row in rows]


def lines(cells: Sequence[Cell]) -> dict[str, figures.Line]:
    """Return each model's accuracy, the mean over seeds with a band of one standard deviation, and that of guessing."""
    curves: dict[str, dict[int, dict[float, float]]] = {}
    for cell in cells:
        curves.setdefault(cell.model, {}).setdefault(cell.seed, {})[cell.distance] = cell.accuracy
    curves["guessing"] = {0: {float(cell.distance): 1 / KEYS for cell in cells}}
    return {label: figures.over_seeds(list(each.values())) for label, each in curves.items()}


def report(cells: Sequence[Cell]) -> figures.Report:
    """Return the chart, by the suffix of its file, and a table of accuracies in percent, one row per model."""
    drawn, seeds, first = lines(cells), {cell.seed for cell in cells}, cells[0]
    apart = all(cell.trained_on == str(cell.distance) for cell in cells)
    title = f"Recall of a word seen n steps ago, {'a model for each n' if apart else 'one model for all n'}"
    files = {".svg": figures.chart(drawn, title, "n", "accuracy", log_x=True)}
    distances, rows = drawn["guessing"].x, []
    for label, line in drawn.items():
        shown = {n: f"{100 * y:.0f} ± {100 * (high - y):.0f}" for n, y, high in zip(line.x, line.y, line.high, strict=True)}
        rows.append((label, *(shown.get(n, "–") for n in distances)))
    title = f"Accuracy, %, n steps after the word: {first.steps:,} steps of {first.rows} sentences for each n, {len(seeds)} seed(s)"
    return files, figures.Table(title, ("n", *(f"{n:,.0f}" for n in distances)), rows, "Mean ± standard deviation over seeds.")
