"""What the loop does between steps: judging validations, stopping, and naming the batches that it skips."""

import contextlib
import json
import math
import os
import pathlib
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt.config.files import save_config
from jaxnmt.data.loader import assemble
from jaxnmt.errors import Diverged, UserError
from jaxnmt.lab.ablations import worker
from jaxnmt.parallel import distributed, log
from jaxnmt.runs import directory as run_directory
from jaxnmt.runs.directory import read_metrics
from jaxnmt.training import hooks, progress
from jaxnmt.training import step as steps
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.display import Display
from jaxnmt.training.loop import Trainer, default_hooks
from jaxnmt.training.loss import batch_loss, cross_entropy
from jaxnmt.training.metrics import perplexity

PLAIN = {  # and of the models the one that is traced soonest
    "training.accumulation": 1,
    "training.ema_decay": 0.0,
    "logging.every": 1,
    "batching.layout": "buckets",
    "batching.max_shapes": 1,
    "model": tiny.RECURRENT["bag"],
}


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(Display, "say", lambda self, line: lines.append(line))
    return lines


def trained(folder, scores=None, **changes):
    """A run whose validations get the given scores, one after the other."""
    given = iter(scores or [])
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    translate = (lambda trainer, params: (["x"] * len(trainer.data.validation), next(given))) if scores else None
    trainer = Trainer(tiny.experiment(folder, **(PLAIN | changes)), run, default_hooks(translate), signals=True)
    trainer.run()
    return trainer


def test_the_plateau_cuts_the_rate_each_time_patience_runs_out(tmp_path):
    changes = {"schedule.name": "plateau", "schedule.learning_rate": 0.01, "schedule.warmup_steps": 1, "schedule.plateau_patience": 2}
    scores = [5.0, 4.0, 4.0, 4.5, 3.0, 6.0, 1.0, 2.0]
    trained(tmp_path, scores, **changes, **{"validation.every": 1, "validation.metric": "bleu", "schedule.plateau_factor": 0.1})
    # cut after the third validation (two without a better score), the fifth, and the eighth: each step uses what was cut before it
    rates = [record["learning_rate"] for record in read_metrics(tmp_path / "run", "train")]
    np.testing.assert_allclose(rates, [1e-2] * 3 + [1e-3] * 2 + [1e-4] * 3, rtol=1e-5)


def test_training_stops_when_patience_is_over_and_the_best_is_kept(tmp_path, said):
    changes = {"validation.every": 1, "validation.metric": "bleu", "validation.patience": 3, "checkpoints.keep_latest": 1}
    trainer = trained(tmp_path, [1.0, 7.0, 6.0, 6.5, 5.0, 9.0, 9.0, 9.0], **changes)
    assert int(trainer.state.step) == 5 and trainer.progress.best_step == 2
    assert any("no better bleu in 3 validations" in line for line in said)
    kept = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert kept == [2, 5]
    best = [record["best"] for record in read_metrics(tmp_path / "run", "validation")]
    assert best == [True, True, False, False, False]


def test_of_equal_bleu_the_lower_loss_is_the_better_one(tmp_path, said, monkeypatch):
    """BLEU is 0.00 for all; the loss decides the best checkpoint, the plateau schedule and patience."""
    losses = iter([5.0, 4.0, 4.5, 4.5, 3.0, 3.5, 3.2, 3.1])
    monkeypatch.setattr(hooks, "validation_loss", lambda *_: {"loss": next(losses), "perplexity": 1.0, "accuracy": 0.5})
    changes = {"validation.every": 1, "validation.metric": "bleu", "validation.patience": 3, "training.steps": 9}
    changes |= {"schedule.name": "plateau", "schedule.plateau_patience": 2, "schedule.warmup_steps": 1, "schedule.plateau_factor": 0.1}
    trainer = trained(tmp_path, [0.0] * 8, **changes, **{"schedule.learning_rate": 0.01})
    assert [record["best"] for record in read_metrics(tmp_path / "run", "validation")] == [True, True, False, False, True] + [False] * 3
    assert int(trainer.state.step) == 8 and "no better bleu in 3 validations" in said[-1]
    assert trainer.progress.best_step == 5 == Checkpoints(tmp_path / "run").best()
    rates = [record["learning_rate"] for record in read_metrics(tmp_path / "run", "train")]
    np.testing.assert_allclose(rates, [1e-2] * 4 + [1e-3] * 3 + [1e-4], rtol=1e-5)  # cut after validations 4 and 7


def test_scores_of_two_metrics_are_not_compared(tmp_path, said):
    """A loss of 3 is the score -3, and any BLEU is above it; where the metric changes, the best score begins anew."""
    changes = {"validation.every": 2, "training.steps": 4, "checkpoints.keep_latest": 9}
    trained(tmp_path, [20.0, 10.0], **changes, **{"validation.metric": "bleu"})
    assert Checkpoints(tmp_path / "run").best() == 2
    trainer = trained(tmp_path, [30.0, 40.0], **(changes | {"training.steps": 8, "validation.metric": "loss"}))
    losses = {record["step"]: record["loss"] for record in read_metrics(tmp_path / "run", "validation") if record["step"] > 4}
    assert trainer.progress.best.metric == "loss" and trainer.progress.best_step == min(losses, key=losses.get)
    assert Checkpoints(tmp_path / "run").best() == trainer.progress.best_step


def strict(run):
    """The records of a run, by a reader that knows no NaN."""

    def refuse(word):
        raise ValueError(word)

    return [json.loads(line, parse_constant=refuse) for line in (run / "metrics.jsonl").read_text().splitlines()]


def saved(folder):
    save_config(tiny.experiment(folder, **PLAIN), folder / "run" / "config.json")
    return folder / "run"


def poisoned(bad):
    """The gradient, not a number in the steps given."""
    plain = steps.accumulate_gradient

    def accumulate(model, config, state, batch):
        gradient, sums = plain(model, config, state, batch)
        factor = jnp.where(jnp.isin(state.step, jnp.array(bad)), jnp.nan, 1.0)
        return jax.tree.map(lambda g: g * factor, gradient), sums._replace(loss=sums.loss * factor)

    return accumulate


def test_bad_steps_are_skipped_and_named(tmp_path, said, monkeypatch):
    monkeypatch.setattr(steps, "accumulate_gradient", poisoned([2, 3, 5]))
    trainer = trained(tmp_path, **{"training.max_bad_steps": 3, "logging.every": 2, "logging.tensorboard": True})
    assert int(trainer.state.step) == 8 and all(np.isfinite(x).all() for x in jax.tree.leaves(trainer.state.params))
    skipped = read_metrics(tmp_path / "run", "skipped")
    assert [record["step"] for record in skipped] == [3, 4, 6]
    for record in skipped:
        planned = trainer.plan.batch(record["step"] - 1)
        told = next(line for line in said if line.startswith(f"step {record['step']} skipped"))
        assert "not finite" in told and f"the longest of its {len(planned.index)} pairs" in told
        assert len(record["pairs"]) == 3 and told.split("\n  ")[1:] == record["pairs"]
        for pair in record["pairs"]:  # as the user's own files have it
            name, text = pair.split(": ")
            lines = [pathlib.Path(file).read_text().splitlines() for file in name.split(",")]
            assert tuple(text.split(" => ")) in zip(*lines, strict=True)
    records = [record for record in strict(tmp_path / "run") if record["kind"] == "train"]
    assert [record["loss"] is None for record in records] == [False, True, False, False]  # of steps that were all skipped, there is none
    assert records[1]["perplexity"] is records[1]["gradient_norm"] is None and records[1]["learning_rate"] > 0


def test_the_lowest_loss_is_the_best(tmp_path):
    changes = {"validation.every": 2, "schedule.name": "constant", "schedule.learning_rate": 0.3, "schedule.warmup_steps": 0}
    trainer = trained(tmp_path, **changes)  # so large a rate does not only improve it
    losses = {record["step"]: record["loss"] for record in read_metrics(tmp_path / "run", "validation")}
    assert len(set(losses.values())) == 4 and min(losses, key=losses.get) != max(losses)
    assert trainer.progress.best_step == min(losses, key=losses.get) == Checkpoints(tmp_path / "run").best()


def test_a_log_line_by_hand(tmp_path):
    changes = {"model": tiny.BASE, "training.steps": 2, "logging.every": 2, "validation.every": 0, "schedule.learning_rate": 1e-30}
    trainer = trained(tmp_path, **changes)  # so small a rate moves nothing
    batches = [tiny.as_arrays(assemble(trainer.plan.batch(n), trainer.data.train)) for n in range(2)]
    sums = [batch_loss(trainer.model, trainer.state.params, batch, None, 0.1) for batch in batches]
    loss, nll, tokens = (sum(float(getattr(each, name)) for each in sums) for name in ("loss", "nll", "tokens"))
    source = sum(int((batch["encoder_input_tokens"] > 0).sum()) for batch in batches)
    positions = sum(batch["encoder_input_tokens"].size + batch["decoder_input_tokens"].size for batch in batches)
    (record,) = read_metrics(tmp_path / "run", "train")
    expected = [loss / tokens, math.exp(nll / tokens), tokens, 1 - (source + tokens) / positions]
    assert [record[name] for name in ("loss", "perplexity", "target_tokens", "padding")] == pytest.approx(expected, rel=1e-5)


def test_the_seed_reaches_parameters_and_batches(tmp_path):
    def begun(seed):
        (tmp_path / str(seed)).mkdir()
        trainer = Trainer(tiny.experiment(tmp_path, **{"training.seed": seed}), tmp_path / str(seed), default_hooks())
        trainer.store.close()
        return trainer.plan.batch(0).index.tolist(), trainer.programs.fresh(trainer.config.training).params

    (first, params), (second, others) = begun(1), begun(2)
    assert first != second
    drawn = [(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True) if np.ptp(a)]
    assert drawn and all((a != b).any() for a, b in drawn)  # but for biases and scales, which begin at 0 and 1


def test_what_is_no_number_is_never_the_best(tmp_path, said):
    changes = {"validation.every": 2, "validation.metric": "bleu", "checkpoints.keep_latest": 1}
    trainer = trained(tmp_path, [math.nan, 3.0, math.nan, 2.0], **changes)
    records = [record for record in strict(tmp_path / "run") if record["kind"] == "validation"]
    assert [record["bleu"] for record in records] == [None, 3.0, None, 2.0]
    assert [record["best"] for record in records] == [False, True, False, False]
    assert trainer.progress.best_step == 4 == Checkpoints(tmp_path / "run").best()
    assert said[-1].endswith(f"; best bleu at step 4: {tmp_path}/run")


def test_a_run_without_a_best_says_so_and_its_newest_checkpoint_is_taken(tmp_path, said, capsys):
    trainer = trained(tmp_path, [math.nan] * 2, **{"validation.metric": "bleu", "validation.patience": 9})
    assert trainer.progress.best is None and trainer.progress.stale == 2
    assert "every validation bleu was NaN, so the latest checkpoint is used instead of the best one" in said[-1]
    run = saved(tmp_path)
    with log.printed():
        assert jaxnmt.load(run).params
    assert capsys.readouterr().err == f"checkpoint 8 of {run} (the newest: no checkpoint has a validation score)\n"
    assert "best validation" not in run_directory.show(run)
    result = worker._training_record(run)
    assert result["validation_score"] == -math.inf and result["best_step"] is None


def test_too_many_bad_steps_in_a_row_stop_the_run_and_the_last_good_checkpoint_is_whole(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(steps, "accumulate_gradient", poisoned([4, 5, 6, 7]))
        with pytest.raises(
            Diverged, match=r"3 steps in a row, up to step 7.*checkpoint 4 is intact; of step 7, the .*:\n  .* => "
        ) as error:
            trained(tmp_path, **{"training.max_bad_steps": 3, "checkpoints.every": 4})
    assert error.value.status == 3
    trainer = trained(tmp_path)
    assert int(trainer.state.step) == 8 and all(np.isfinite(x).all() for x in jax.tree.leaves(trainer.state.params))


def test_a_damaged_checkpoint_is_reported_before_anything_is_compiled(tmp_path, monkeypatch):
    trained(tmp_path, **{"training.steps": 4})
    (damaged,) = (tmp_path / "run" / "checkpoints" / "4" / "progress").glob("metadata")
    damaged.write_text(damaged.read_text().replace('"stale": 0', '"stale": 1'))
    monkeypatch.setattr(steps.TrainPrograms, "compile", None)  # whoever compiles fails
    with pytest.raises(UserError, match="checkpoint 4 of .* is damaged: its progress are not what was written; remove the folder"):
        trained(tmp_path)


def test_validating_and_saving_is_not_being_stuck(tmp_path, monkeypatch):
    class Dog(distributed.Watchdog):
        resting = False

        @contextlib.contextmanager
        def paused(self):
            Dog.resting = True
            yield
            Dog.resting = False

    def watched(plain):
        def call(*arguments):
            seen.append(Dog.resting)
            return plain(*arguments)

        return call

    seen: list[bool] = []
    monkeypatch.setattr(distributed, "Watchdog", Dog)
    monkeypatch.setattr(hooks, "validation_loss", watched(hooks.validation_loss))
    monkeypatch.setattr(Checkpoints, "save", watched(Checkpoints.save))
    trained(tmp_path, **{"validation.every": 4})
    assert seen == [True] * 6  # validations at 4 and 8, saves at 3, 4, 6 and 8


def test_validation_counts_every_pair_once(tmp_path):
    (tmp_path / "run").mkdir()
    trainer = Trainer(
        tiny.experiment(tmp_path, **(PLAIN | {"batching.tokens": 24})), tmp_path / "run", default_hooks()
    )  # three pairs a batch
    params = tiny.params_of(trainer.model)
    found = hooks.validation_loss(trainer, params)
    tokenizer, pairs = trainer.data.tokenizer, trainer.data.validation
    assert len(pairs) == 11
    ids = list(zip(tokenizer.encode_source([s for s, _ in pairs]), tokenizer.encode_target([t for _, t in pairs]), strict=True))
    batch = tiny.as_arrays(tiny.batch_of(ids, [[i] for i in range(11)], 8, 8))
    logits = jax.jit(lambda p: trainer.model.decode(p, trainer.model.encode(p, batch), batch))(params)[..., : tokenizer.target_vocab_size]
    loss, nll, correct = cross_entropy(logits, batch["decoder_target_tokens"], batch["decoder_loss_weights"], 0.1)
    tokens = sum(len(target) + 1 for _, target in ids)
    assert found["loss"] == pytest.approx(float(loss) / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(float(nll) / tokens), rel=1e-5)
    assert found["accuracy"] == pytest.approx(float(correct) / tokens)


def test_the_perplexity_of_no_number_is_none():
    assert perplexity(0.0) == 1 and perplexity(1e4) == math.inf and math.isnan(perplexity(math.nan))


def test_a_clock_counts_the_training_of_all_sessions_and_ends_it_with_a_validation(tmp_path, monkeypatch, said):
    now = [0.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def a_minute(*arguments):
        now[0] += 60
        return one_step(*arguments)

    def an_hour(plain):
        def slower(*arguments):
            now[0] += 3600
            return plain(*arguments)

        return slower

    one_step = hooks.Log.record
    monkeypatch.setattr(hooks.Log, "record", a_minute)
    monkeypatch.setattr(hooks, "validation_loss", an_hour(hooks.validation_loss))  # which is no training, and neither is saving
    monkeypatch.setattr(Checkpoints, "save", an_hour(Checkpoints.save))
    changes = {"validation.every": 0, "training.steps": 9}

    def steps_in(minutes):
        trainer = trained(tmp_path, [5.0], **changes, **{"training.max_minutes": minutes})
        now[0] += 1000  # between sessions
        return int(trainer.state.step), round(trainer.progress.seconds)

    assert steps_in(3) == (4, 240)  # it looks before a step is written down
    assert [record["step"] for record in read_metrics(tmp_path / "run", "validation")] == [4]
    assert steps_in(3) == (4, 240) and any("stopped at step 4 of 9 (training.max_minutes = 3 are over)" in line for line in said)
    assert steps_in(6) == (7, 420)
    assert [record["step"] for record in read_metrics(tmp_path / "run", "validation")] == [4, 7]


def test_the_seconds_of_all_log_lines_are_those_of_training_however_often_it_stops(tmp_path, monkeypatch, said):
    now = [0.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    one_step = hooks.Log.record

    def a_minute(log, trainer, finished):
        now[0] += 60
        one_step(log, trainer, finished)
        if finished.step in (2, 5):  # in the middle of what a log line will tell
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(hooks.Log, "record", a_minute)
    changes = {"logging.every": 4, "training.steps": 9}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, **changes)
        now[0] += 1000
    assert trained(tmp_path, **changes).progress.seconds == 540
    assert [record["timing"]["seconds"] for record in read_metrics(tmp_path / "run", "train")] == [240, 240, 60]


def test_the_last_validation_of_a_run_that_could_go_on_cuts_no_rate_and_uses_up_no_patience(tmp_path, said):
    """Validations are due at 2, 4, 6, 8; a run that first ends at 3, and then at 5, ends as one that did not."""
    changes = {"schedule.name": "plateau", "schedule.learning_rate": 0.01, "schedule.warmup_steps": 1, "schedule.plateau_patience": 2}
    changes |= {"validation.every": 2, "validation.metric": "bleu", "schedule.plateau_factor": 0.1, "validation.patience": 4}
    whole = trained(tmp_path / "whole", [5.0, 4.0, 4.0, 6.0], **changes)
    for steps_now, scores in ((3, [5.0, 9.0]), (5, [4.0, 1.0]), (8, [4.0, 6.0])):
        part = trained(tmp_path / "parts", scores, **changes, **{"training.steps": steps_now})
    rates = [[record["learning_rate"] for record in read_metrics(tmp_path / name / "run", "train")] for name in ("whole", "parts")]
    assert rates[0] == rates[1] and rates[0][-1] < rates[0][0]
    tiny.assert_same(whole.state.params, part.state.params)
    for kept in (whole.progress, part.progress):
        assert (kept.best_scheduled.value, kept.stale) == (6.0, 0)
    assert (part.progress.best.value, part.progress.best_step) == (9.0, 3) and Checkpoints(tmp_path / "parts" / "run").best() == 3
