"""What is due after training steps: logging, validation, saving, stopping, profiling, and what a user adds."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxnmt import errors
from jaxnmt.config import Captioning
from jaxnmt.data.batching import PlannedBatch, budget_of
from jaxnmt.data.loader import evaluation_batches
from jaxnmt.data.objectives import objective_of
from jaxnmt.io import files
from jaxnmt.models.parameters import training_flops
from jaxnmt.parallel import distributed
from jaxnmt.parallel.sharding import is_sharded, num_shards, to_mesh
from jaxnmt.training.display import train_line, validation_line
from jaxnmt.training.metrics import peak_flops, perplexity
from jaxnmt.training.progress import Score
from jaxnmt.training.step import StepMetrics
from jaxnmt.training.tuning import trained_paths

if TYPE_CHECKING:
    from jaxnmt.training.loop import Trainer

# (trainer, its decoding_params()) -> (translations of the validation sentences, BLEU)
TranslateAndScore = Callable[["Trainer", Any], tuple[list[str], float]]


class FinishedStep(NamedTuple):
    """A step that the device has finished.

    Attributes:
        step: its number, counted from 1.
        batch: the plan of its batch.
        metrics: its sums and counts, fetched from the device.
    """

    step: int
    batch: PlannedBatch
    metrics: StepMetrics


class Hook:
    """Something to do after some training steps. Subclass it and override what you need.

    With several processes, every process calls the same hooks in the same order. A hook stops the run with `trainer.stop(reason)`.
    """

    def start(self, trainer: Trainer) -> None:
        """Prepare, before the first step of the session. `trainer.step` steps are done."""

    def record(self, trainer: Trainer, finished: FinishedStep) -> None:
        """Look at the metrics of a step. Called for every step, one step late, so that the device need not wait."""

    def is_due(self, trainer: Trainer, step: int) -> bool:
        """Return whether to call `run` after this step. The device may not have finished it yet."""
        return False

    def run(self, trainer: Trainer, step: int) -> None:
        """Do it. The device has finished the step, and all hooks have recorded its metrics."""

    def close(self) -> None:
        """Clean up at the end of the session, also after an error."""


class Stop(Hook):
    """Stops at a signal, and when the run has trained for `training.max_minutes`."""

    def start(self, trainer: Trainer) -> None:
        self._check_clock(trainer, trainer.step)

    def is_due(self, trainer: Trainer, step: int) -> bool:
        if trainer.signals.stop_after(step):
            trainer.stop(trainer.INTERRUPTED)
        else:
            self._check_clock(trainer, step)
        return False

    def _check_clock(self, trainer: Trainer, step: int) -> None:
        minutes = trainer.config.training.max_minutes
        if not minutes or (distributed.is_distributed() and step % trainer.config.logging.every):
            return  # with several processes, the clock of process 0 decides, and is read at logging steps only
        if distributed.broadcast_decision("time", trainer.clock.trained >= 60 * minutes):
            trainer.stop(f"training.max_minutes = {minutes:g} are over")


class SkippedSteps(Hook):
    """Names the steps whose gradient was not finite, and ends the run after too many in a row."""

    def record(self, trainer: Trainer, finished: FinishedStep) -> None:
        metrics, batch = finished.metrics, finished.batch
        if metrics.finite:
            return
        pairs = trainer.data.longest(batch.corpus, batch.index)
        listed = f"the longest of its {len(batch.index):,} pairs:" + "".join(f"\n  {pair}" for pair in pairs)
        trainer.display.say(f"step {finished.step:,} skipped, its gradient is not finite ({metrics.gradient_norm}); {listed}")
        trainer.log.write("skipped", finished.step, {"pairs": pairs})
        if metrics.bad_steps < trainer.config.training.max_bad_steps:
            return
        trainer.store.wait()
        good = trainer.store.latest()
        raise errors.Diverged(
            f"the gradient was not finite {metrics.bad_steps} steps in a row, up to step {finished.step}: look at the pairs "
            "of these steps, or start a run with a lower schedule.learning_rate or an optimizer.clip_norm; "
            + (f"checkpoint {good} is intact" if good else "no checkpoint had been written yet")
            + f"; of step {finished.step:,}, {listed}"
        )


class Log(Hook):
    """Writes a record of the steps since the last one, and shows it."""

    def record(self, trainer: Trainer, finished: FinishedStep) -> None:
        metrics, shape, progress = finished.metrics, finished.batch.shape, trainer.progress
        target_tokens = trainer.target_tokens(finished)
        means = metrics.sums._asdict() | {"gradient_norm": metrics.gradient_norm}
        add = {name: float(value) if metrics.finite else 0.0 for name, value in means.items()}
        positions = shape.rows * sum(getattr(shape, side) for side in trainer.config.task.sides)
        add |= {"good_steps": int(metrics.finite), "steps": 1, "positions": positions}
        add |= {"source_tokens": int(metrics.source_tokens), "target_tokens": target_tokens}
        progress.window = {name: progress.window.get(name, 0) + value for name, value in add.items()}
        progress.window["learning_rate"] = float(metrics.learning_rate)
        progress.target_tokens += target_tokens

    def is_due(self, trainer: Trainer, step: int) -> bool:
        return step % trainer.config.logging.every == 0 or trainer.is_last(step)

    def run(self, trainer: Trainer, step: int) -> None:
        window, trainer.progress.window = trainer.progress.window, {}
        tokens, good_steps = window["tokens"] or math.nan, window["good_steps"] or math.nan
        read = sum(window[f"{side}_tokens"] for side in trainer.config.task.sides)
        values = {
            "epoch": trainer.plan.epoch(step),
            "loss": window["loss"] / tokens,
            "perplexity": perplexity(window["nll"] / tokens),
            "accuracy": window.get("correct", math.nan) / tokens,  # a window that an earlier version began has none
            "learning_rate": window["learning_rate"],
            "gradient_norm": window["gradient_norm"] / good_steps,
            "padding": 1 - read / window["positions"],
            "target_tokens": trainer.progress.target_tokens,
        }
        seconds, waited = trainer.clock.take_window()
        trained = trained_paths(trainer.config.training, trainer.model)
        flops = training_flops(trainer.model, window["source_tokens"], window["target_tokens"], trained)
        timing = {
            "seconds": seconds,
            "target_tokens_per_second": window["target_tokens"] / seconds,
            "utilisation": flops / seconds / peak_flops(),
            "input_wait": waited / seconds,
            "seconds_left": trainer.clock.seconds_left((trainer.config.training.steps - step) * seconds / window["steps"]),
        }
        trainer.log.write("train", step, values, timing)
        trainer.display.show(step, train_line(values, timing))


class Validate(Hook):
    """Computes loss and translations of the validation pairs, and updates what depends on the score: best, patience, plateau.

    Args:
        translate: translates and scores the pairs; None: only the loss is computed.
    """

    def __init__(self, translate: TranslateAndScore | None) -> None:
        self._translate = translate

    def start(self, trainer: Trainer) -> None:
        for path in (trainer.folder / "samples").glob("*.txt"):  # those of later steps are written again
            if distributed.is_leader() and path.stem.isdigit() and int(path.stem) > trainer.step:
                path.unlink()

    def is_due(self, trainer: Trainer, step: int) -> bool:
        return bool(trainer.data.validation) and (trainer.is_last(step) or self._is_scheduled(trainer, step))

    def _is_scheduled(self, trainer: Trainer, step: int) -> bool:
        return trainer.config.validation.every > 0 and step % trainer.config.validation.every == 0

    def run(self, trainer: Trainer, step: int) -> None:
        with trainer.not_training():
            start = time.perf_counter()
            values = validation_loss(trainer, trainer.state.eval_params)
            hypotheses: list[str] = []
            if self._translate is not None and "bleu" in trainer.config.task.metrics:
                hypotheses, values["bleu"] = self._translate(trainer, trainer.decoding_params())
            elif trainer.config.task.is_label and (predict := getattr(self._translate, "predict", None)):
                hypotheses = predict(trainer, trainer.decoding_params())
            signature = getattr(self._translate, "signature", None)  # sacreBLEU's
            score = self._score(trainer, values, signature)
            trainer.validated = step, score
            values["best"] = self._update_best(trainer, step, score)
            trainer.log.write("validation", step, {**values, "signature": signature}, {"seconds": time.perf_counter() - start})
            trainer.display.say(f"step {step:,}  {validation_line(values)}")
            if hypotheses and distributed.is_leader():
                self._write_samples(trainer, step, hypotheses)

    def _write_samples(self, trainer: Trainer, step: int, hypotheses: Sequence[str]) -> None:
        """Write all validation sentences with reference and translation, or label, to samples/STEP.txt, and show some."""
        made = "prediction " if trainer.config.task.is_label else "translation"
        pairs = zip(trainer.data.validation, hypotheses, strict=True)
        samples = [f"source       {s}\nreference    {t}\n{made}  {h}\n" for (s, t), h in pairs]
        folder = trainer.folder / "samples"
        folder.mkdir(exist_ok=True)
        files.write(folder / f"{step}.txt", "\n".join(samples))
        if count := min(trainer.config.validation.samples, len(samples)):
            trainer.display.say("\n".join(samples[i * len(samples) // count] for i in range(count)))

    def _score(self, trainer: Trainer, values: dict[str, float], signature: str | None) -> Score | None:
        """Return the score of a validation, the same in all processes; None if it is NaN or infinite."""
        metric = trainer.config.validation.metric
        metric = "loss" if metric == "bleu" and self._translate is None else metric
        found = -values["loss"] if metric == "loss" else values[metric]
        loss = values["loss"] if math.isfinite(values["loss"]) else math.inf
        how = signature.split("|version:")[0] if signature and metric == "bleu" else None
        value, loss, how = distributed.broadcast_decision("score", (found if math.isfinite(found) else None, loss, how))
        return None if value is None else Score(metric, value, loss, how)

    def _update_best(self, trainer: Trainer, step: int, score: Score | None) -> bool:
        """Update the best score; cut the learning rate or stop if it has not improved for long. Returns whether it is the best so far."""
        progress, config, scheduled = trainer.progress, trainer.config, self._is_scheduled(trainer, step)
        best = progress.count_validation(step, score, scheduled)
        if scheduled and getattr(config.schedule, "name", "") == "plateau" and progress.plateau_stale >= config.schedule.plateau_patience:
            progress.plateau_stale = 0
            trainer.state = dataclasses.replace(trainer.state, lr_scale=trainer.state.lr_scale * config.schedule.plateau_factor)
        if scheduled and 0 < config.validation.patience <= progress.stale:
            trainer.stop(f"no better {config.validation.metric} in {progress.stale} validations")
        return best


def validation_loss(trainer: Trainer, params: Any) -> dict[str, float]:
    """Return mean loss, perplexity and accuracy of the validation examples. A side longer than data.max_length tokens is cut."""
    config, tokenizer = trainer.config, trainer.data.tokenizer
    sources, targets = map(list, zip(*trainer.data.validation, strict=True))
    vectors = None
    if isinstance(config.task, Captioning):
        from jaxnmt.data import pictures

        numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(sources))}
        vectors, sources = np.stack([pictures.kept(name, config.task) for name in numbers]), [numbers[name] for name in sources]
    ids = zip(tokenizer.encode_source(sources), tokenizer.encode_target(targets), strict=True)
    sizes = config.batching.tokens, config.data.max_length, num_shards("B", trainer.mesh)
    objective = objective_of(config.task, tokenizer, seed=0)  # the same words are hidden in every run
    batches = evaluation_batches(ids, *sizes, objective, budget_of(config), vectors)
    params = trainer.gather_over_data(params) if is_sharded(params) else params  # once, not for each batch
    sums = [trainer.evaluate(params, to_mesh(arrays, trainer.mesh)) for _, arrays in batches]
    loss, nll, tokens, correct = (sum(map(float, part)) for part in zip(*jax.device_get(sums), strict=True))
    tokens = tokens or math.nan  # of a few short texts, no token may be hidden
    return {"loss": loss / tokens, "perplexity": perplexity(nll / tokens), "accuracy": correct / tokens}


class Save(Hook):
    """Writes a checkpoint: every `checkpoints.every` steps, after each validation, and when the run stops."""

    def is_due(self, trainer: Trainer, step: int) -> bool:
        due = step % trainer.config.checkpoints.every == 0 or trainer.is_last(step) or bool(trainer.stopped)
        return due or trainer.validated[0] == step

    def run(self, trainer: Trainer, step: int) -> None:
        trainer.progress.seconds, trainer.progress.unlogged = trainer.clock.trained, trainer.clock.unlogged
        validated, score = trainer.validated
        with trainer.not_training():
            trainer.log.publish()
            trainer.store.save(trainer.unstacked(trainer.state), trainer.progress, score if validated == step else None)


class Profile(Hook):
    """Records a trace of some steps with JAX's profiler, for TensorBoard, XProf and Perfetto.

    Args:
        first: the first step to trace, counted from 1.
        last: the last one.
        folder: where the trace is written.
    """

    def __init__(self, first: int, last: int, folder: Path) -> None:
        self._first, self._last, self._folder, self._tracing = first, last, folder, False

    def start(self, trainer: Trainer) -> None:
        if not trainer.step < self._first <= self._last <= trainer.config.training.steps:
            steps = f"{trainer.step + 1:,} to {trainer.config.training.steps:,}"
            raise errors.UserError(f"--profile {self._first}:{self._last}: this session trains steps {steps}; choose among these")
        if self._first == trainer.step + 1:
            self.run(trainer, trainer.step)

    def is_due(self, trainer: Trainer, step: int) -> bool:
        return step in (self._first - 1, self._last) or (self._tracing and bool(trainer.stopped))

    def run(self, trainer: Trainer, step: int) -> None:
        if step == self._first - 1:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._tracing = True
            return
        self.close()
        trainer.display.say(
            f"traced steps {self._first:,} to {step:,}: {self._folder} "
            "(open it with `tensorboard --logdir`, or the file perfetto_trace.json.gz in it at ui.perfetto.dev)"
        )

    def close(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
