"""The training loop: batches, steps, and the hooks that are due after them. A run that is killed resumes from its last checkpoint."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxnmt import config as cfg
from jaxnmt.data import identity
from jaxnmt.data.batching import BatchPlan
from jaxnmt.data.loader import batches
from jaxnmt.data.objectives import objective_of
from jaxnmt.data.prepared import prepare
from jaxnmt.models.parameters import for_decoding, is_scanned, parameter_count, stack_layers, unscanned, unstack_layers
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel import compiler, distributed, log
from jaxnmt.parallel.sharding import local_rows, make_mesh, num_shards, param_shardings, to_mesh
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.display import Display
from jaxnmt.training.hooks import FinishedStep, Hook, Log, Save, SkippedSteps, Stop, TranslateAndScore, Validate
from jaxnmt.training.initial import Taken, take
from jaxnmt.training.metrics import MetricsLog
from jaxnmt.training.progress import Clock, Progress, Score
from jaxnmt.training.signals import Signals
from jaxnmt.training.state import TrainState, shardings_of
from jaxnmt.training.step import TrainPrograms, evaluation_program
from jaxnmt.training.storage import disk_errors


def train(
    experiment: cfg.Experiment,
    run: Path,
    translate: TranslateAndScore | None = None,
    hooks: Sequence[Hook] = (),
    progress: bool = False,
    signals: bool = False,
) -> None:
    """Train the run in a folder from its latest checkpoint, or from the beginning. Its `config.json` exists already.

    Args:
        translate: translates and scores the validation sentences; None: only the loss is validated.
        hooks: what else to do after steps. They run after validation and before saving.
        progress: show lines and a progress bar on stderr.
        signals: save and stop at Ctrl-C, SIGTERM and SIGHUP.

    Raises:
        UserError: the data, the mesh or the checkpoints do not allow it, or stderr cannot be written; Diverged: gradients stay non-finite.
        KeyboardInterrupt, Stopped: a signal came, or stderr was closed; what was trained is saved.
    """
    compiler.check()
    if over := _over(experiment, run):
        log.say(over)
        return
    with disk_errors(run):
        Trainer(experiment, run, default_hooks(translate, hooks), progress, signals).run()


def default_hooks(translate: TranslateAndScore | None = None, more: Sequence[Hook] = ()) -> list[Hook]:
    """Return the hooks of `train`, `more` among them."""
    return [Stop(), SkippedSteps(), Log(), Validate(translate), *more, Save()]


def _over(experiment: cfg.Experiment, run: Path) -> str:
    """Return why there is nothing left to train, or ""."""
    checkpoints, patience = Checkpoints(run), experiment.validation.patience
    step = checkpoints.latest() or 0
    if step >= experiment.training.steps:
        return f"{run} is finished, at step {step:,} of {experiment.training.steps:,}"
    if step and patience and (stale := checkpoints.progress(step).stale) >= patience:
        metric = experiment.validation.metric
        return f"{run} stopped at step {step:,}, after {stale} validations without a better {metric}; raise validation.patience to continue"
    return ""


class Trainer:
    """One session of training a run.

    Attributes for hooks:
        config, folder: the experiment, and the run's folder.
        mesh, model, flat_model, decoder: the model as it is trained, with its layers unstacked, and as it decodes.
        programs, evaluate: the compiled training step of each shape, and the validation loss.
        gather_over_data: returns parameters with the layout that `evaluate` reads.
        data, plan, objective: the prepared text, which pairs form which batch, and what the task makes of them.
        state, step, progress: the training state on the devices, the steps done, counters and best scores.
        validated: the last step of this session that was validated (0: none), and its score.
        clock, log, display, store: time, metrics files, output on stderr, checkpoints.
        stopped: why the session ends before its last step; "" if it does not.
    """

    INTERRUPTED = "interrupted"
    state: TrainState

    def __init__(self, experiment: cfg.Experiment, run: Path, hooks: Sequence[Hook] = (), progress: bool = False, signals: bool = False):
        self.config, self.folder, self.hooks = experiment, run, tuple(hooks)
        self.signals = Signals(signals)
        self.mesh = make_mesh(experiment.mesh)
        self.store = Checkpoints(run, experiment.checkpoints)
        step = self.store.latest() or 0
        self.display = Display(experiment.training.steps, step, self.signals.stderr_lost, progress)
        with distributed.leader_first("prepare the data"):
            prepared = prepare(experiment, run / "tokenizer", say=self.display.say)
            self.data = identity.bind(run, prepared, step > 0, distributed.is_leader())
        tokenizer = self.data.tokenizer
        self.plan = BatchPlan(
            [corpus.lengths for corpus in self.data.train],
            self.data.weights,
            experiment,
            parts=num_shards("B", self.mesh),
            counts_file=run / "batches.json",
            write_counts=distributed.is_leader(),
        )
        self.objective = objective_of(experiment.task, tokenizer, experiment.training.seed, self.data.train)
        sizes = tokenizer.source_vocab_size, tokenizer.target_vocab_size
        self.model = build_model(experiment.model, *sizes, experiment.task)
        self.flat_model, self.decoder = (build_model(form(experiment.model), *sizes, experiment.task) for form in (unscanned, for_decoding))
        self.programs = TrainPrograms(self.model, experiment, self.mesh)
        self.evaluate = evaluation_program(self.model, experiment.training.label_smoothing, self.mesh)
        read = param_shardings(self.model.shapes, self.model.axes, self.mesh)
        self.gather_over_data = jax.jit(lambda params: params, out_shardings=read)
        self.progress = Progress()
        self.validated: tuple[int, Score | None] = 0, None
        self.stopped = ""
        self._taken: Taken | None = None  # from another run, in the first session
        self._pending: FinishedStep | None = None  # a step that the device may not have finished yet

    def run(self) -> None:
        """Compile, then train until the last step, a stop or a signal. What was trained is always saved."""
        self._load_and_compile()
        self.step = int(self.state.step)
        self.clock = Clock(self.progress.seconds, self.progress.unlogged, 60 * self.config.training.max_minutes)
        with contextlib.ExitStack() as closing:  # closes in reverse order
            closing.enter_context(self.signals)  # until all is saved
            closing.enter_context(self.store)
            self.watchdog = distributed.Watchdog(self.config.training.stuck_minutes)
            closing.callback(self.watchdog.stop)
            self.log = closing.enter_context(MetricsLog(self.folder, self.step, self.config.logging.tensorboard))
            if self._taken:
                self.log.write("init", 0, self._taken.record)
            closing.enter_context(self.display)
            for hook in self.hooks:
                closing.callback(hook.close)
                hook.start(self)
            if not self.stopped:
                self._steps()
        self._say_goodbye()

    def _steps(self) -> None:
        rows = functools.partial(local_rows, self.mesh)
        stream = batches(self.plan, self.data.train, self.step, self.config.training.steps, rows, self.objective)
        with contextlib.closing(stream):
            for step, planned, arrays in self.clock.waiting(stream):
                self.watchdog.at(step)
                self.state, metrics = self.programs(self.state, planned.shape, to_mesh(arrays, self.mesh, planned.shape.rows))
                self._record()  # one step late: the device is already at work on this one
                self._pending, self.step = FinishedStep(step + 1, planned, metrics), step + 1
                self.display.step(self.step)
                for hook in self.hooks:
                    if hook.is_due(self, self.step):
                        self._record()
                        hook.run(self, self.step)
                if self.stopped:
                    break
        self._record()

    def _record(self) -> None:
        """Fetch the metrics of the last step and hand them to the hooks, unless that is done."""
        if self._pending:
            finished = self._pending._replace(metrics=jax.device_get(self._pending.metrics))
            self._pending = None
            for hook in self.hooks:
                hook.record(self, finished)

    # ---- for hooks

    def stop(self, reason: str) -> None:
        """End the session after the step at hand, once the other hooks have run. The first reason counts."""
        self.stopped = self.stopped or reason

    def is_last(self, step: int) -> bool:
        """Return whether the run ends with this step: because it is the last one, or is stopped, but not by a signal."""
        return step == self.config.training.steps or self.stopped not in ("", self.INTERRUPTED)

    def target_tokens(self, finished: FinishedStep) -> int:
        """Return the number of target tokens of a step. If pairs have weights, `LossSums.tokens` is the sum of these."""
        return self.plan.target_tokens(finished.batch) if self.data.is_weighted else int(finished.metrics.sums.tokens)

    @contextlib.contextmanager
    def not_training(self) -> Iterator[None]:
        """Stop the clock and the watchdog within the block."""
        with self.clock.paused(), self.watchdog.paused():
            yield

    def unstacked(self, tree: Any) -> Any:
        """Return parameters or state with layers unstacked, as checkpoints need them."""
        return jax.jit(unstack_layers)(tree) if is_scanned(self.config.model) else tree

    def decoding_params(self) -> Any:
        """Return the parameters that `decoder` needs: the EMA if there is one."""
        params = self.state.eval_params
        return params if is_scanned(for_decoding(self.config.model)) else self.unstacked(params)

    # ---- set-up and end

    def _load_and_compile(self) -> None:
        """Read the newest checkpoint, so that a damaged one is reported before compiling; a fresh state is made beside the compilation."""
        step, training = self.store.latest(), self.config.training
        if step is not None:
            self.state = self._restore(step)
        elif self.config.init.from_:
            abstract = TrainPrograms(self.flat_model, self.config, self.mesh).abstract
            self._taken = take(self.config, self.flat_model, abstract.model_params(abstract.params), self.data.tokenizer, self.mesh)
            self.display.say(self._taken.line)
        devices = f"{jax.device_count()} {jax.devices()[0].platform} device{'s' if jax.device_count() > 1 else ''}"
        trained, parameters = parameter_count(self.programs.abstract.params), parameter_count(self.model.shapes)
        of_them = f" ({trained:,} {'in adapters' if training.lora.rank else 'of them'} are trained)" if trained != parameters else ""
        self.display.say(f"{parameters:,} parameters{of_them} on {devices}; compiling {len(self.plan.shapes)} shape(s)")
        pool = concurrent.futures.ThreadPoolExecutor(1)
        fresh = pool.submit(self.programs.fresh, training, self._taken and self._taken.params) if step is None else None
        pool.shutdown(wait=distributed.is_distributed())  # whose processes must do everything in the same order
        lines = self.programs.compile(self.plan.shapes, self.plan.packed)
        self.display.say("\n".join([f"compiled in {self.programs.seconds:.1f} s:", *lines]))
        if fresh:
            self.state = fresh.result()
            self._taken = self._taken and self._taken._replace(params={})  # which the state has

    def _restore(self, step: int) -> TrainState:
        """Return the state of a checkpoint; its progress becomes the run's."""
        flat = TrainPrograms(self.flat_model, self.config, self.mesh).abstract
        state, self.progress = self.store.restore(step, flat)
        self.display.say(f"resuming from checkpoint {step:,}")
        scanned = is_scanned(self.config.model)
        if not scanned and jax.default_backend() != "cpu":
            return state

        def arrange(state: TrainState) -> TrainState:  # a copy: donating buffers that came from the checkpoint reader is not safe on CPU
            return jax.tree.map(jnp.copy, stack_layers(state) if scanned else state)

        return jax.jit(arrange, out_shardings=shardings_of(self.programs.abstract))(state)

    def _say_goodbye(self) -> None:
        done = f"step {int(self.state.step):,} of {self.config.training.steps:,}"
        if self.stopped == self.INTERRUPTED:
            self.signals.leave(f"saved at {done}; `jaxnmt resume {self.folder}` resumes from there", self.display.say)
        best = ""
        if self.progress.best:
            best = f"; best {self.progress.best.metric} at step {self.progress.best_step:,}"
        elif self.validated[0]:
            best = f"; every validation {self.config.validation.metric} was NaN, so the latest checkpoint is used instead of the best one"
        why = f" ({self.stopped})" if self.stopped else ""
        self.display.say(f"{'stopped' if self.stopped else 'finished'} at {done}{why}{best}: {self.folder}")
