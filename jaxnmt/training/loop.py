"""The training loop: batches, steps, and what is due after each. Killed any_across_devices, the run goes on from its last checkpoint."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnmt import config as cfg
from jaxnmt import errors
from jaxnmt.data.batching import BatchPlan, PlannedBatch
from jaxnmt.data.loader import batches
from jaxnmt.data.prepared import prepare
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.models.accounting import parameter_count, training_flops
from jaxnmt.models.layout import is_scanned, stack_layers, unscanned, unstack_layers
from jaxnmt.models.seq2seq import Seq2Seq, build_model
from jaxnmt.parallel import compiler, distributed
from jaxnmt.parallel.sharding import local_rows, make_mesh, num_shards, to_mesh
from jaxnmt.runs.directory import read_metrics
from jaxnmt.training.binding import bind
from jaxnmt.training.checkpoint import disk_errors, read_progress, steps
from jaxnmt.training.checkpoint_store import CheckpointStore
from jaxnmt.training.clock import Clock
from jaxnmt.training.display import Display, train_line, validation_line
from jaxnmt.training.metrics import MetricsLog, peak_flops, perplexity
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.programs import TrainPrograms, evaluation_program, fresh_state
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.signals import Signals
from jaxnmt.training.state import TrainState, abstract_state, shardings_of
from jaxnmt.training.step import StepMetrics
from jaxnmt.training.validation import remove_samples_after, validation_loss, write_samples

# (experiment, model, tokenizer, params with layers unstacked, pairs, languages) -> (translations, BLEU)
TranslateAndScore = Callable[[cfg.Experiment, Seq2Seq, Tokenizer, Any, Sequence[tuple[str, str]], tuple[str, str]], tuple[list[str], float]]


class _Pending(NamedTuple):
    """A step whose metrics are still on the device."""

    step: int
    planned: PlannedBatch
    metrics: StepMetrics


def train(experiment: cfg.Experiment, run: Path, translate: TranslateAndScore | None = None) -> None:
    """Train, or go on training, the run in a folder (its `config.json` is written already).

    Args:
        translate: translates and scores the validation sentences; without it only the loss is validated.

    Raises:
        UserError: the data, the mesh or the checkpoints do not allow it, or stderr cannot be written; Diverged: gradients stay non-finite.
        KeyboardInterrupt, SystemExit: a signal came, or stderr was closed; what was trained is saved.
    """
    compiler.check()
    if over := _over(experiment, run):
        if distributed.is_leader():
            print(over, file=sys.stderr)
        return
    with disk_errors(run):
        Trainer(experiment, run, translate).run()


def _over(experiment: cfg.Experiment, run: Path) -> str:
    """Return why there is nothing left to train, or ""."""
    step, patience = max(steps(run), default=0), experiment.validation.patience
    if step >= experiment.training.steps:
        return f"{run} is finished, at step {step:,} of {experiment.training.steps:,}"
    if step and patience and (stale := read_progress(run, step).stale) >= patience:
        metric = experiment.validation.metric
        return f"{run} stopped at step {step:,}, after {stale} validations without a better {metric}; a higher validation.patience goes on"
    return ""


class Trainer:
    """One session of a run."""

    def __init__(self, experiment: cfg.Experiment, run: Path, translate: TranslateAndScore | None):
        self.config, self.folder, self.translate = experiment, run, translate
        self.signals = Signals()
        self.mesh = make_mesh(experiment.mesh)
        self.store = CheckpointStore(run, experiment.checkpoints)
        step = self.store.latest() or 0
        self.display = Display(experiment.training.steps, step, self.signals.stderr_lost)
        with distributed.leader_first("prepare the data"):
            self.data = bind(run, prepare(experiment, run / "tokenizer", say=self.display.say), begun=step > 0)
        tokenizer = self.data.tokenizer
        self.plan = BatchPlan(
            [(corpus.source_lengths, corpus.target_lengths) for corpus in self.data.train],
            self.data.weights,
            experiment.batching,
            experiment.training.seed,
            experiment.data.max_length,
            row_multiple=experiment.training.accumulation,
            row_padding=experiment.training.accumulation * num_shards("B", self.mesh),
            counts_file=run / "batches.json",
            write_counts=distributed.is_leader(),
        )
        self.model = build_model(experiment.model, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
        self.flat_model = build_model(unscanned(experiment.model), tokenizer.source_vocab_size, tokenizer.target_vocab_size)
        self.optimizer = make_optimizer(experiment.optimizer, self.model.axes)
        self.abstract = abstract_state(self.model, self.optimizer, experiment.training, self.mesh)
        self.evaluate = evaluation_program(self.flat_model, experiment.training.label_smoothing, self.mesh)
        self.progress = Progress()
        self.stopped = ""

    # ---- set-up

    def _restore(self, step: int) -> TrainState:
        """Return the state of a checkpoint; its progress becomes the run's."""
        optimizer = make_optimizer(self.config.optimizer, self.flat_model.axes)
        flat = abstract_state(self.flat_model, optimizer, self.config.training, self.mesh)
        state, self.progress = self.store.restore(step, flat)
        self.display.say(f"going on from checkpoint {step:,}")
        if is_scanned(self.config.model):
            state = jax.jit(stack_layers, out_shardings=shardings_of(self.abstract))(state)
        if jax.default_backend() != "cpu":
            return state
        # a fresh copy: donating buffers that came from the checkpoint reader is not safe on CPU
        return jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=shardings_of(self.abstract))(state)

    def _load_and_compile(self) -> None:
        """Read the newest checkpoint, so that a damaged one is reported before compiling; a fresh state is made beside the compilation."""
        step = self.store.latest()
        if step is not None:
            self.state = self._restore(step)
        devices = f"{jax.device_count()} {jax.devices()[0].platform} device{'s' if jax.device_count() > 1 else ''}"
        self.display.say(f"{parameter_count(self.abstract.params):,} parameters on {devices}; compiling {len(self.plan.shapes)} shape(s)")
        pool = concurrent.futures.ThreadPoolExecutor(1)
        beginning = (self.model, self.optimizer, self.config.training, self.abstract, self.mesh)
        fresh = pool.submit(fresh_state, *beginning) if step is None else None
        pool.shutdown(wait=distributed.several())  # whose processes must do everything in the same order
        self.programs = TrainPrograms(self.model, self.optimizer, self.config, self.abstract, self.mesh, self.plan.shapes, self.plan.packed)
        self.display.say("\n".join([f"compiled in {self.programs.seconds:.1f} s:", *self.programs.describe()]))
        if fresh:
            self.state = fresh.result()

    def _flat(self, tree):
        """Return a tree with layers unstacked, as checkpoints and decoding need them."""
        return jax.jit(unstack_layers)(tree) if is_scanned(self.config.model) else tree

    # ---- the loop

    def run(self) -> None:
        """Compile, then step until the end, a stop or a signal. What was trained is always saved."""
        self._load_and_compile()
        self.step = int(self.state.step)
        self.clock = Clock(self.progress.seconds, self.progress.unlogged, 60 * self.config.training.max_minutes)
        if distributed.is_leader():
            remove_samples_after(self.folder, self.step)
        with contextlib.ExitStack() as closing:  # the last one first
            closing.enter_context(self.signals)  # until all is saved
            closing.enter_context(self.store)
            self.watchdog = distributed.Watchdog(self.config.training.stuck_minutes)
            closing.callback(self.watchdog.stop)
            self.log = MetricsLog(self.folder, self.step, self.config.logging.tensorboard)
            closing.callback(self.log.close)
            self.display.start()
            closing.callback(self.display.stop)
            self._steps()
        self._say_goodbye()

    def _steps(self) -> None:
        if self._time_is_over(self.step):
            return
        pending: _Pending | None = None
        finished = None
        share = functools.partial(local_rows, self.mesh)
        stream = batches(self.plan, self.data.train, self.step, self.config.training.steps, share)
        with contextlib.closing(stream):
            for step, planned, arrays in self.clock.waiting(stream):
                self.watchdog.at(step)
                self.state, metrics = self.programs(self.state, planned.shape, to_mesh(arrays, self.mesh, planned.shape.rows))
                if pending:
                    self._record(pending)  # one step late: the device is already at work on this one
                pending, finished = _Pending(step + 1, planned, metrics), step + 1
                self.display.step(finished)
                if self._is_milestone(finished):
                    self._record(pending)
                    pending = None
                    self._milestone(finished)
                if self.stopped:
                    break
        if pending:  # only where the last step was not a milestone
            self._record(pending)

    def _is_milestone(self, step: int) -> bool:
        """Return whether something is due after a step that needs the device to have finished it."""
        if self.signals.stop_after(step):
            self.stopped = "interrupted"
        else:
            self._time_is_over(step)
        every = (self.config.logging.every, self.config.checkpoints.every, self.config.validation.every)
        return bool(self.stopped) or step == self.config.training.steps or any(n and step % n == 0 for n in every)

    def _time_is_over(self, step: int) -> bool:
        """Stop the run if it has trained for `training.max_minutes`. Several processes use the clock of one, and look at it seldom."""
        minutes = self.config.training.max_minutes
        if not minutes or (distributed.several() and step % self.config.logging.every):
            return False
        if over := distributed.agree("time", self.clock.is_over):
            self.stopped = f"training.max_minutes = {minutes:g} are over"
        return over

    def _milestone(self, step: int) -> None:
        """Log, validate and save, whichever is due after a step."""
        last = step == self.config.training.steps or self.stopped not in ("", "interrupted")
        every = self.config.validation.every
        if step % self.config.logging.every == 0 or last:
            self._log(step)
        validated = bool(self.data.validation) and (last or bool(every and step % every == 0))
        score = self._validate(step) if validated else None
        if last or validated or self.stopped or step % self.config.checkpoints.every == 0:
            self.progress.seconds, self.progress.unlogged = self.clock.trained, self.clock.unlogged
            with self._not_training():
                self.log.publish()
                self.store.save(self._flat(self.state), self.progress, score)

    @contextlib.contextmanager
    def _not_training(self) -> Iterator[None]:
        """Within the block, neither the clock nor the watchdog counts."""
        with self.clock.paused(), self.watchdog.paused():
            yield

    # ---- after a step

    def _record(self, pending: _Pending) -> None:
        """Add a step to the log line that is being gathered; count and name a step that was skipped."""
        values = jax.device_get(pending.metrics)
        if not values.finite:
            self._skipped(pending, values)
        shape, source, target = pending.planned.shape, int(values.source_tokens), int(values.sums.tokens)
        add = {"steps": 1.0, "positions": shape.rows * (shape.source + shape.target), "source_tokens": source, "target_tokens": target}
        if values.finite:
            add |= {"good_steps": 1, "loss": float(values.sums.loss), "nll": float(values.sums.nll), "tokens": float(values.sums.tokens)}
            add["gradient_norm"] = float(values.gradient_norm)
        window = self.progress.window
        window.update({name: window.get(name, 0) + value for name, value in add.items()}, learning_rate=float(values.learning_rate))
        self.progress.source_tokens += source
        self.progress.target_tokens += target
        self.clock.count(source, target)

    def _skipped(self, pending: _Pending, values: StepMetrics) -> None:
        """Show pairs of a step whose gradient was not finite; stop when there are too many in a row."""
        planned = pending.planned
        pairs = self.data.longest(planned.corpus, planned.index)
        shown, of = "".join(f"\n  {pair}" for pair in pairs), f"the longest of its {len(planned.index):,} pairs:"
        self.display.say(f"step {pending.step:,} skipped, its gradient is not finite ({float(values.gradient_norm)}); {of}{shown}")
        self.log.write("skipped", pending.step, {"pairs": pairs})
        if values.bad_steps < self.config.training.max_bad_steps:
            return
        self.store.wait()
        good = self.store.latest()
        raise errors.Diverged(
            f"the gradient was not finite {values.bad_steps} steps in a row, up to step {pending.step}: look at the pairs "
            "of these steps, or start a run with a lower schedule.learning_rate or an optimizer.clip_norm; "
            + (f"checkpoint {good} is intact" if good else "no checkpoint had been written yet")
            + f"; of step {pending.step:,}, {of}{shown}"
        )

    def _log(self, step: int) -> None:
        window, self.progress.window = self.progress.window, {}
        tokens, good = window.get("tokens", 0) or math.nan, window.get("good_steps", 0) or math.nan
        values = {
            "epoch": self.plan.epoch(step),
            "loss": window.get("loss", 0) / tokens,
            "perplexity": perplexity(window.get("nll", 0) / tokens),
            "learning_rate": window["learning_rate"],
            "gradient_norm": window.get("gradient_norm", 0) / good,
            "padding": 1 - (window["source_tokens"] + window["target_tokens"]) / window["positions"],
            "target_tokens": self.progress.target_tokens,
        }
        spent = self.clock.take_window()
        timing = {
            "seconds": spent.trained,
            "target_tokens_per_second": spent.target_tokens / spent.seconds,
            "utilisation": training_flops(self.model, spent.source_tokens, spent.target_tokens) / spent.seconds / peak_flops(),
            "input_wait": spent.waited / spent.seconds,
            "seconds_left": self.clock.seconds_left((self.config.training.steps - step) * spent.seconds / max(spent.steps, 1)),
        }
        self.log.write("train", step, values, timing)
        self.display.log(step, train_line(values, timing))

    def _validate(self, step: int) -> Score | None:
        """Compute loss and translations of the validation pairs, and update what depends on the score: None if it is NaN or infinite."""
        with self._not_training():
            start = time.perf_counter()
            values = validation_loss(self.evaluate, self._flat(self.state.eval_params), self.data, self.config, self.mesh)
            hypotheses: list[str] = []
            if self.translate is not None:
                params = self._flat(self.state.eval_params)
                arguments = (self.config, self.flat_model, self.data.tokenizer, params, self.data.validation, self.data.languages)
                hypotheses, values["bleu"] = self.translate(*arguments)
            signature = getattr(self.translate, "signature", None)  # sacreBLEU's
            score = self._score(values, signature)
            values["best"] = self._update_best(step, score)
            self.log.write("validation", step, {**values, "signature": signature}, {"seconds": time.perf_counter() - start})
            self.display.say(f"step {step:,}  {validation_line(values)}")
            if hypotheses and distributed.is_leader():
                samples = write_samples(self.folder, step, self.data.validation, hypotheses)
                if count := min(self.config.validation.samples, len(samples)):
                    self.display.say("\n".join(samples[i * len(samples) // count] for i in range(count)))
        return score

    def _score(self, values: dict[str, float], signature: str | None) -> Score | None:
        """Return the score of a validation, the same in all processes."""
        metric = self.config.validation.metric if self.translate is not None else "loss"
        found = values["bleu"] if metric == "bleu" else -values["loss"]
        loss = values["loss"] if math.isfinite(values["loss"]) else math.inf
        how = signature.split("|version:")[0] if signature and metric == "bleu" else None
        value, loss, how = distributed.agree("score", (found if math.isfinite(found) else None, loss, how))
        return None if value is None else Score(metric, value, loss, how)

    def _update_best(self, step: int, score: Score | None) -> bool:
        """Update the best score; cut the learning rate or stop if it has not improved for long. Returns whether it is the best so far."""
        progress, schedule, every = self.progress, self.config.schedule, self.config.validation.every
        scheduled = bool(every) and step % every == 0
        best = progress.count_validation(step, score, scheduled)
        if scheduled and schedule.name == "plateau" and progress.plateau_stale >= schedule.plateau_patience:
            progress.plateau_stale = 0
            self.state = dataclasses.replace(self.state, lr_scale=self.state.lr_scale * schedule.plateau_factor)
        if scheduled and 0 < self.config.validation.patience <= progress.stale:
            self.stopped = f"no better {self.config.validation.metric} in {progress.stale} validations"
        return best

    def _say_goodbye(self) -> None:
        done = f"step {int(self.state.step):,} of {self.config.training.steps:,}"
        if self.stopped == "interrupted":
            self.signals.leave(f"saved at {done}; `jaxnmt resume {self.folder}` goes on from there", self.display.say)
        best = ""
        if self.progress.best:
            best = f"; best {self.progress.best.metric} at step {self.progress.best_step:,}"
        elif read_metrics(self.folder, "validation"):
            best = f"; every validation {self.config.validation.metric} was NaN, so the latest checkpoint is used instead of the best one"
        why = f" ({self.stopped})" if self.stopped else ""
        self.display.say(f"{'stopped' if self.stopped else 'finished'} at {done}{why}{best}: {self.folder}")
