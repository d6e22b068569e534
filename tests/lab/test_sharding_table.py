"""The table of `train --explain-sharding`: what a device holds, counted here by hand."""

import jax
import pytest
import tiny

from jaxnmt import cli
from jaxnmt.config import Experiment, Mesh, Training, replace
from jaxnmt.errors import UserError
from jaxnmt.lab import sharding_table
from jaxnmt.parallel import sharding


@pytest.fixture
def on_two(monkeypatch):
    """Shards of a mesh whose `fsdp` and `tensor` are 2; no array is made."""
    grid = jax.sharding.AbstractMesh((1, 2, 2), sharding.AXES)
    monkeypatch.setattr(sharding_table, "make_mesh", lambda config: grid)
    return Experiment(model=tiny.BASE, training=Training(ema_decay=0.9), mesh=Mesh(data=1, fsdp=2, tensor=2))


def test_bytes_on_a_device_are_those_counted_by_hand(on_two):
    rows = {row[0]: row[1:] for row in sharding_table.explain(on_two, (100, 100)).rows}
    assert rows["encoder/layer_0/mlp/wi/kernel"] == ("16 x 24", "fsdp, tensor", f"{16 * 24 * 4 // 4}", f"{3 * 16 * 24 * 4 // 4:,}")
    assert rows["encoder/layer_0/mlp/wi/bias"] == ("24", "tensor", "48", "144")  # Adam's two moments and the average beside it
    norms = [row for name, row in rows.items() if name.endswith("norm/scale")]
    assert norms and all(row == ("16", "whole", "64", "192") for row in norms)
    numbers = {name: int(row[2].replace(",", "")) for name, row in rows.items() if row[2]}
    assert numbers.pop("all") == sum(numbers.values())


def test_what_devices_along_data_share_is_told(on_two, monkeypatch):
    grid = jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES)
    monkeypatch.setattr(sharding_table, "make_mesh", lambda config: grid)
    monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 1)
    rows = {row[0]: row[1:] for row in sharding_table.explain(on_two, (100, 100)).rows}
    assert rows["encoder/layer_0/mlp/wi/kernel"] == ("16 x 24", "fsdp, tensor and data", f"{16 * 24 * 4 // 8}", f"{3 * 16 * 24 * 4 // 8}")


def test_adafactors_vectors_are_told_beside_their_parameters(on_two):
    experiment = replace(on_two, **{"optimizer.name": "adafactor", "training.ema_decay": 0.0, "model.emb_dim": 256, "model.mlp_dim": 512})
    rows = {row[0]: row[1:] for row in sharding_table.explain(experiment, (100, 100)).rows}
    held = int(rows["encoder/layer_0/mlp/wi/kernel"][3].replace(",", ""))
    assert 4 * (256 + 512) // 2 <= held < 256 * 512 * 4 // 4


def test_an_axis_that_does_not_divide_is_refused_with_both_numbers(on_two):
    with pytest.raises(UserError, match="mesh.tensor 2 does not divide 25"):
        sharding_table.explain(replace(on_two, **{"model.mlp_dim": 25}), (100, 100))


def test_the_command_prints_the_table_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "quickstart", "--explain-sharding"]) == 0
    told = capsys.readouterr().out
    assert told.count("encoder/layer_1/") > 5
    assert "1 device(s): data 1, fsdp 1, tensor 1" in told and "MiB in all" in told
    assert list(tmp_path.iterdir()) == []
