"""What the loop does between steps: judging validations, stopping, and naming the batches that it skips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt.config import UserError
from jaxnmt.training import step as steps
from jaxnmt.training.loop import Trainer, validation_loss
from jaxnmt.training.loss import LossSums, cross_entropy
from jaxnmt.training.metrics import read_metrics
from jaxnmt.training.progress import Display

PLAIN = {"training.accumulation": 1, "training.ema_decay": 0.0, "logging.every": 1, "batching.layout": "buckets", "batching.max_shapes": 1}


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(Display, "say", lambda self, line: lines.append(line))
    return lines


def trained(folder, scores=None, **changes):
    """A run whose validations get the given scores, one after the other."""
    given = iter(scores or [])
    run = folder / "run"
    run.mkdir(exist_ok=True)
    translate = (lambda experiment, model, tokenizer, params, pairs, languages: (["x"] * len(pairs), next(given))) if scores else None
    trainer = Trainer(tiny.experiment(folder, **(PLAIN | changes)), run, translate)
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
    trainer = trained(tmp_path, [1.0, 7.0, 6.0, 7.0, 5.0, 9.0, 9.0, 9.0], **changes)
    assert int(trainer.state.step) == 5 and trainer.progress.best_step == 2
    assert any("no better bleu in 3 validations" in line for line in said)
    kept = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert kept == [2, 5]
    best = [record["best"] for record in read_metrics(tmp_path / "run", "validation")]
    assert best == [True, True, False, False, False]


def poisoned(bad):
    """The gradient, not a number in the steps given."""
    plain = steps.accumulate_gradient

    def accumulate(model, config, state, batch):
        gradient, sums = plain(model, config, state, batch)
        factor = jnp.where(jnp.isin(state.step, jnp.array(bad)), jnp.nan, 1.0)
        return jax.tree.map(lambda g: g * factor, gradient), LossSums(sums.loss * factor, sums.nll, sums.tokens)

    return accumulate


def test_bad_steps_are_skipped_and_named(tmp_path, said, monkeypatch):
    monkeypatch.setattr(steps, "accumulate_gradient", poisoned([1, 2, 5]))
    trainer = trained(tmp_path, **{"training.max_bad_steps": 3, "logging.every": 2})
    assert int(trainer.state.step) == 8 and all(np.isfinite(x).all() for x in jax.tree.leaves(trainer.state.params))
    skipped = read_metrics(tmp_path / "run", "skipped")
    assert [record["step"] for record in skipped] == [2, 3, 6]
    for record in skipped:
        planned = trainer.plan.batch(record["step"] - 1)
        first = sorted(planned.index[planned.corpus == 0].tolist())
        assert f"pairs {first[0]}, {first[1]}" in record["pairs"] and "of corpus 1" in record["pairs"]
        assert any(record["pairs"] in line and "not finite" in line for line in said)
    assert all(np.isfinite(record["loss"]) for record in read_metrics(tmp_path / "run", "train"))


def test_too_many_bad_steps_in_a_row_stop_the_run_and_the_last_good_checkpoint_is_whole(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(steps, "accumulate_gradient", poisoned([4, 5, 6, 7]))
        with pytest.raises(UserError, match=r"3 steps in a row, up to step 7.*checkpoint 4 is intact"):
            trained(tmp_path, **{"training.max_bad_steps": 3, "checkpoints.every": 4})
    trainer = trained(tmp_path)
    assert int(trainer.state.step) == 8 and all(np.isfinite(x).all() for x in jax.tree.leaves(trainer.state.params))


def test_validation_counts_every_pair_once(tmp_path):
    (tmp_path / "run").mkdir()
    trainer = Trainer(tiny.experiment(tmp_path, **(PLAIN | {"batching.tokens": 24})), tmp_path / "run", None)  # three pairs a batch
    params = tiny.params_of(trainer.model)
    found = validation_loss(trainer.evaluate, params, trainer.data, trainer.config, trainer.mesh)
    tokenizer, pairs = trainer.data.tokenizer, trainer.data.validation
    assert len(pairs) == 11
    ids = list(zip(tokenizer.encode_source([s for s, _ in pairs]), tokenizer.encode_target([t for _, t in pairs]), strict=True))
    batch = tiny.as_arrays(tiny.batch_of(ids, [[i] for i in range(11)], 8, 8))
    logits = jax.jit(lambda p: trainer.model.decode(p, trainer.model.encode(p, batch), batch))(params)[..., : tokenizer.target_vocab_size]
    loss, nll = cross_entropy(logits, batch["decoder_target_tokens"], batch["decoder_loss_weights"], 0.1)
    tokens = sum(len(target) + 1 for _, target in ids)
    assert found["loss"] == pytest.approx(float(loss) / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(float(nll) / tokens), rel=1e-5)
