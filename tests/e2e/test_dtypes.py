"""Runs whose numbers are not float32: a model of the user's own with bfloat16 parameters, and JAX told to use 64 bits."""

import os
import subprocess
import sys

import jax
import mine
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt.runs.directory import checkpoints as steps
from jaxnmt.runs.directory import read_metrics
from jaxnmt.training.checkpoints import Checkpoints


def test_a_model_with_bfloat16_parameters_is_trained_resumed_averaged_and_translated_with(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAXNMT_CACHE", str(tmp_path / "cache"))
    mine.write(tmp_path, "bfloat16")
    (tmp_path / "in").write_text("a b\nc\n")
    text = ["--data.train", *tiny.write_text(tmp_path, "text", 120, 1).split(",")]
    for run, stops in (("whole", ["12"]), ("parts", ["6", "12"])):
        for stop in stops:
            assert cli.main(["train", str(tmp_path / "mine.py"), "--run", str(tmp_path / run), *text, "--training.steps", stop]) == 0
    losses = [[record["loss"] for record in read_metrics(tmp_path / run, "train")] for run in ("whole", "parts")]
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]
    assert Checkpoints(tmp_path / "whole").find(12).checksum == Checkpoints(tmp_path / "parts").find(12).checksum
    assert cli.main(["runs", "average", str(tmp_path / "whole"), "--last", "2"]) == 0
    for checkpoint in ("best", "average"):
        assert {str(x.dtype) for x in jax.tree.leaves(jaxnmt.load(tmp_path / "whole", checkpoint).params)} == {"bfloat16"}
        assert cli.main(["translate", str(tmp_path / "whole"), "--checkpoint", checkpoint, "--input", str(tmp_path / "in")]) == 0


@pytest.mark.slow
def test_jax_enable_x64_changes_nothing(tmp_path):
    def jaxnmt(*words, **environment):
        done = subprocess.run([sys.executable, "-m", "jaxnmt", *words], env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    text = [
        "--data.train",
        *tiny.write_text(tmp_path, "text", 120, 1).split(","),
        "--validation.every",
        "0",
        "--logging.tensorboard",
        "False",
    ]
    train, wide, said = ["train", tiny.write_config(tmp_path), *text], {"JAX_ENABLE_X64": "1"}, []
    (tmp_path / "in").write_text("a b c\nd e\n")
    assert cli.main([*train, "--run", str(tmp_path / "plain"), "--training.steps", "10"]) == 0
    jaxnmt(*train, "--run", str(tmp_path / "wide"), "--training.steps", "5", **wide)
    jaxnmt("resume", str(tmp_path / "wide"), "--training.steps", "10", **wide)
    for run, environment in (("plain", wide), ("wide", wide), ("wide", {})):
        said.append(jaxnmt("translate", str(tmp_path / run), "--input", str(tmp_path / "in"), "--n-best", "2", **environment))
    assert said[0] == said[1] == said[2] and len(said[0].splitlines()) == 4
    assert steps(tmp_path / "wide")[-1] == steps(tmp_path / "plain")[-1] == 10
    losses = [[record["loss"] for record in read_metrics(tmp_path / run, "train")] for run in ("plain", "wide")]
    assert losses[0] == losses[1]
