"""`jaxnmt bench RUN`: what it counts, and where it writes."""

import json

import pytest
import tiny

from jaxnmt import cli
from jaxnmt.lab import decoding_benchmark


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    source, target = tiny.write_text(folder, "text", 100, 1).split(",")
    assert cli.main(["train", tiny.write_config(folder), "--run", str(folder / "run"), "--data.train", source, target]) == 0
    return folder / "run"


def test_a_run_gives_a_record_of_its_decoding(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--run-time", "0.01", "--batch-sizes", "1", "4", "--decoding.beam-size", "2", "--json", "here/speed.jsonl"]
    assert cli.main(["bench", str(run), *words]) == 0
    out = capsys.readouterr().out
    assert "sentences/s" in out and "ms a sentence" in out and "programs from the cache" in out
    record = json.loads((tmp_path / "here" / "speed.jsonl").read_text())
    assert record["config"] == str(run) and record["settings"]["decoding.beam_size"] == 2 and record["checkpoint"].startswith("checkpoint")
    assert [each["batch_size"] for each in record["batches"]] == [1, 4]
    for each in record["batches"]:
        assert each["passes"] >= decoding_benchmark.PASSES and 0 < each["utilisation"] < 1
        assert 0 < each["sentences_per_s"] <= each["target_tokens_per_s"]  # each has an end token
    assert 0 < record["latency_median_s"] <= record["latency_95_s"]
    assert record["first_translation_s"] > record["latency_median_s"]
    assert 0 <= record["first_programs_from_cache"] <= record["first_programs"]
    assert 0 < record["sentences"] <= 10 and record["peak_memory_bytes"] > 50e6 and record["peak_flops"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_settings_of_a_run_that_are_not_of_decoding_are_refused(run, capsys):
    assert cli.main(["bench", str(run), "--model.dropout", "0.5"]) == 2
    assert "only those of --decoding" in capsys.readouterr().err
