"""The code on docs/own_model.md, as a reader pastes it: trained, moved away, resumed, translated, aligned; on one device and on eight."""

import pathlib
import re

import jax
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt.config import Decoding
from jaxnmt.decoding.translator import Translator
from jaxnmt.runs.directory import read_metrics

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "own_model.md"
SETTINGS = {
    "data.max-length": "8",
    "data.held-out": "10",
    "tokenizer.kind": "words",
    "tokenizer.vocab-size": "0",
    "batching.tokens": "128",
    "batching.max-shapes": "2",
    "model.emb-dim": "32",
    "model.kernel": "5",
    "schedule.name": "constant",
    "schedule.warmup-steps": "10",
    "training.steps": "8",
    "validation.every": "0",
    "logging.every": "1",
    "decoding.beam-size": "2",
    "decoding.max-length-extra": "3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page's code as a file, two files of text, and a run of eight steps whose config file is gone."""
    folder = tmp_path_factory.mktemp("own")
    code, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "conv.py").write_text(code)
    tiny.write_text(folder, "text", 120, 1)
    assert cli.main(command(folder, "run")) == 0
    (folder / "conv.py").rename(folder / "elsewhere.py")
    return folder


def command(folder, run, config="conv.py", **changes):
    data = ["--data.train", f"{folder}/text.xx", f"{folder}/text.yy", "--data.validation", "--data.test", "--data.cache", f"{folder}/cache"]
    settings = [word for name, value in (SETTINGS | changes).items() for word in (f"--{name}", value)]
    return ["train", str(folder / config), "--run", str(folder / run), *data, *settings]


def test_it_is_resumed_where_it_stood_and_refused_with_another_kernel(folder, capsys):
    assert cli.main(["resume", str(folder / "run"), "--model.kernel", "3"]) == 2
    assert "model.kernel: 5 → 3" in capsys.readouterr().err
    assert cli.main(["resume", str(folder / "run"), "--training.steps", "12"]) == 0
    assert cli.main(command(folder, "whole", "elsewhere.py", **{"training.steps": "12"})) == 0
    losses = [[record["loss"] for record in read_metrics(folder / name, "train")] for name in ("run", "whole")]
    assert len(losses[0]) == 12 and losses[0] == losses[1]


@pytest.mark.slow
def test_translations_have_the_scores_of_teacher_forcing_and_keep_their_beams_apart(folder):
    trained = jaxnmt.load(folder / "run")
    translator = Translator(trained.model, trained.params, trained.tokenizer, 8)
    lines = ["a b c", "d", "e f g h i", "j j"]
    found = translator.translate(lines, Decoding(beam_size=3, n_best=3, batch_size=4, length_penalty=0.0, max_length_extra=3))
    for line, candidates in zip(lines, found, strict=True):
        assert candidates == sorted(candidates, key=lambda c: -c.score) and len({c.text for c in candidates}) == 3
        for candidate in candidates:
            ((source, target),) = candidate.parts
            batch = {"encoder_input_tokens": np.array([[*source, 2, 0]]), "decoder_input_tokens": np.array([[1, *target]])}
            logits = trained.model.decode(trained.params, trained.model.encode(trained.params, batch), batch)[0]
            log_p = jax.nn.log_softmax(logits.at[:, :2].set(-np.inf))
            assert log_p[np.arange(len(target) + 1), [*target, 2]].sum() == pytest.approx(candidate.score, abs=1e-4), line


def test_it_is_aligned(folder, capsys):
    (folder / "in.txt").write_text("a b c\nd e\n")
    assert cli.main(["translate", str(folder / "run"), "--input", str(folder / "in.txt"), "--alignments", "hard"]) == 0
    for line in capsys.readouterr().out.splitlines():
        text, links = line.split("\t")
        assert [link.split("-")[1] for link in links.split()] == [str(t) for t in range(len(text.split()))]


@pytest.mark.slow
def test_eight_devices_reach_the_losses_of_one(folder):
    mesh = {"mesh.data": "2", "mesh.fsdp": "2", "mesh.tensor": "2", "training.steps": "4"}
    words = command(folder, "eight", "elsewhere.py", **mesh)
    assert "8 cpu devices" in tiny.on_eight_devices("-m", "jaxnmt", *words).stderr
    losses = [[record["loss"] for record in read_metrics(folder / name, "train")][:4] for name in ("run", "eight")]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-4)


def test_the_laws_hold(folder, capsys):
    assert "jaxnmt laws conv.py " in PAGE.read_text(encoding="utf-8")
    only = ["causal", "cached"]
    assert cli.main(["laws", str(folder / "elsewhere.py"), "--model.emb-dim", "32", "--only", *only]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["holds", law] for law in only]
