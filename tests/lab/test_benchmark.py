"""`jaxnmt bench`: what it counts, and where it writes."""

import json
import time
import types

import pytest
import tiny

from jaxnmt import cli
from jaxnmt.config import Experiment, replace
from jaxnmt.config.fields import leaves
from jaxnmt.data.packing import Shape
from jaxnmt.errors import UserError
from jaxnmt.lab import benchmark

ROWS, SOURCE, TARGET = 8, 5, 8  # a pair fills a row on the target side, and five eighths of it on the source side


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eighty different pairs of 4 and 7 words: 72 to train on, nine batches."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.en").write_text("".join(f"one two three n{i}\n" for i in range(80)))
    (folder / "a.de").write_text("".join(f"eins zwei drei vier so weiter n{i}\n" for i in range(80)))
    return folder


def settings(corpus):
    return {
        "data.train": (str(corpus / "a.en"), str(corpus / "a.de")),
        "data.max_length": TARGET,
        "data.cache": str(corpus / "cache"),
        "data.workers": 1,
        "tokenizer.kind": "words",
        "tokenizer.vocab_size": 0,
        "batching.tokens": ROWS * TARGET,
        "batching.row_length": TARGET,
        "model.emb_dim": 8,
        "model.mlp_dim": 8,
        "model.num_heads": 1,
        "model.num_encoder_layers": 1,
        "model.num_decoder_layers": 1,
        "training.steps": 9,
        "logging.tensorboard": False,
    }


@pytest.fixture(scope="module")
def experiment(corpus):
    return replace(Experiment(), **settings(corpus))


@pytest.fixture(scope="module")
def record(experiment):
    before = time.perf_counter()
    result = benchmark.benchmark(experiment, seconds=600)
    return result | {"took": time.perf_counter() - before}


def test_every_token_of_the_steps_after_the_first_is_counted_and_no_padding(record):
    assert record["steps"] == 8
    assert record["target_tokens"] == 8 * ROWS * TARGET
    assert record["source_tokens"] == 8 * ROWS * SOURCE
    assert record["padding"] == pytest.approx(1 - (SOURCE + TARGET) / (2 * TARGET))
    assert record["shapes"] == [[ROWS, TARGET, TARGET]]


def test_rates_are_tokens_over_seconds(record):
    assert record["target_tokens_per_s"] * record["seconds"] == pytest.approx(record["target_tokens"])
    assert record["source_tokens_per_s"] / record["target_tokens_per_s"] == pytest.approx(SOURCE / TARGET)
    # by hand, width 8 throughout: encoder 4 attention matrices and 2 of the MLP, keys and values of cross-attention;
    # decoder 4 + 2 (query, output) + 2, and the output layer over the vocabulary
    vocabulary = (record["parameters"] - biases_and_norms() - 64 * (6 + 8 + 2)) / 8
    flops = 6 * 64 * ((6 + 2) * record["source_tokens"] + 8 * record["target_tokens"]) + 6 * vocabulary * 8 * record["target_tokens"]
    assert record["utilisation"] == pytest.approx(flops / record["seconds"] / record["peak_flops"], rel=1e-6)


def test_waiting_is_its_share_of_the_seconds():
    step = types.SimpleNamespace(batch=types.SimpleNamespace(shape=Shape(1, 5, 5)), metrics=types.SimpleNamespace(source_tokens=3))
    steps = [(finished, step) for finished in (0.0, 4.0, 8.0)]
    clock = types.SimpleNamespace(take_window=lambda: (8.0, 2.0))
    trainer = types.SimpleNamespace(clock=clock, model=tiny.model_of(tiny.BASE), config=Experiment(), target_tokens=lambda step: 4)
    assert benchmark._speed(trainer, steps)["input_wait"] == 0.25


def biases_and_norms():
    encoder = (3 + 1) * 8 + 2 * 8 + 2 * 16  # attention's and the MLP's biases, two norms of scale and bias
    decoder = (3 + 1) * 8 + (1 + 2 + 1) * 8 + 2 * 8 + 3 * 16
    return encoder + decoder + 2 * 16  # and the norm that closes each stack


def test_times_are_in_order(record):
    assert 0 < record["compile_s"] < record["first_step_begun_s"] < record["first_step_finished_s"]
    assert record["seconds"] + record["compile_s"] < record["took"]
    assert record["peak_memory_bytes"] > 50e6


def test_the_process_is_at_least_as_old_as_its_clock():
    age = benchmark.process_age()
    time.sleep(0.05)
    assert 0.03 < benchmark.process_age() - age < 5


def test_it_stops_when_the_time_is_over(experiment):
    many = replace(experiment, **{"training.steps": 1_000_000})
    record = benchmark.benchmark(many, seconds=0.3)
    assert 0.3 <= record["seconds"] < 60 and record["steps"] < 1_000_000


def test_too_few_steps_are_refused(experiment):
    with pytest.raises(UserError, match="2 steps are too few.*--run-time"):
        benchmark.benchmark(replace(experiment, **{"training.steps": 2}), seconds=600)


def test_the_command_appends_a_line_a_run_and_keeps_nothing_else(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = []
    for name, value in settings(corpus).items():
        words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    for _ in range(2):
        assert cli.main(["bench", "transformer_small", *words, "--json", "here/speed.jsonl"]) == 0
    assert "target tokens/s" in capsys.readouterr().out
    first, second = map(json.loads, (tmp_path / "here" / "speed.jsonl").read_text().splitlines())
    assert first["config"] == second["config"] == "transformer_small"
    assert first["target_tokens"] == second["target_tokens"] == 8 * ROWS * TARGET
    assert set(first["settings"]) == {name for name, _, _ in leaves(Experiment())}
    assert first["settings"]["batching.tokens"] == ROWS * TARGET
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_no_time_is_refused(capsys):
    assert cli.main(["bench", "transformer_small", "--run-time", "0"]) == 2
    assert "--run-time" in capsys.readouterr().err
