"""What is measured, in metrics.jsonl and in TensorBoard's files."""

import time
import types

import jax
import pytest
from training import events

from jaxnmt.runs.directory import read_metrics
from jaxnmt.training.metrics import MetricsLog, peak_flops


@pytest.fixture
def later(monkeypatch):
    """Moves the clock on: files of events are named by the second."""
    return lambda seconds, now=time.time: monkeypatch.setattr(time, "time", lambda: now() + seconds)


def test_what_a_killed_run_wrote_after_its_checkpoint_is_in_neither(tmp_path, later):
    for resumed, (first, last) in enumerate([(1, 9), (5, 7), (8, 10)]):  # it went on from steps 4 and 7
        later(60 * resumed)
        log = MetricsLog(tmp_path, first - 1, tensorboard=True)
        for step in range(first, last + 1):
            log.write("train", step, {"loss": resumed + 1 / step, "tokens": 7 * step, "pairs": "1, 2"}, {"seconds": 0.5})
        log.close()
    losses = {record["step"]: record["loss"] for record in read_metrics(tmp_path, "train")}
    assert losses == {step: (0 if step < 5 else 1 if step < 8 else 2) + 1 / step for step in range(1, 11)}
    assert events.shown(tmp_path) == events.recorded(tmp_path)
    assert {name for name, _ in events.shown(tmp_path)} == {"train/loss", "train/tokens", "train/seconds"}


@pytest.mark.parametrize(
    ("kind", "rate"),
    [("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA A10G", 70e12), ("NVIDIA L40S", 362e12), ("TPU v5 lite", 197e12), ("TPU v5e", 197e12)],
)
def test_a_devices_peak_is_found_by_its_whole_name(kind, rate, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind=kind)])
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert peak_flops.__wrapped__() == 4 * rate
