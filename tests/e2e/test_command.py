"""The command from text to score: train, resume, translate, evaluate, in one process, on a corpus of a few letters."""

import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
import tiny
from training import events

import jaxnmt
from jaxnmt import cli
from jaxnmt.cli.verbs import translating
from jaxnmt.data import identity
from jaxnmt.evaluation.test_sets import open_test_set
from jaxnmt.runs import directory as run_directory
from jaxnmt.runs.directory import read_metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    source, target = tiny.write_text(folder, "text", 200, 1).split(",")
    config = tiny.write_config(folder)
    run = folder / "run"
    assert cli.main(["train", config, "--run", str(run), "--data.train", source, target]) == 0
    return run


def test_validations_bleu_is_what_evaluate_says(run, capsys):
    for record in read_metrics(run, "validation"):
        capsys.readouterr()
        assert cli.main(["evaluate", str(run), "--split", "validation", "--checkpoint", str(record["step"]), "--json", "True"]) == 0
        scores = json.loads(capsys.readouterr().out)
        bleu = next(metric["value"] for metric in scores["metrics"] if metric["name"] == "BLEU")
        assert bleu == pytest.approx(record["bleu"], abs=1e-9)
        assert record["signature"] == scores["metrics"][0]["signature"] and "tok:none" in record["signature"]
    assert max(record["bleu"] for record in read_metrics(run, "validation")) > 0


def test_tensorboard_shows_the_numbers_of_the_metrics_at_the_same_steps(run):
    recorded = events.recorded(run)
    assert {("train/loss", 5), ("train/loss", 60), ("validation/loss", 30), ("validation/bleu", 60)} <= recorded.keys()
    assert events.shown(run) == recorded


def test_lines_are_translated_in_order_and_empty_ones_stay(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b c\n\nd e\n")))
    assert cli.main(["translate", str(run)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4 and lines[1] == lines[3] == "" and lines[0] and lines[2]


@pytest.mark.parametrize(("every", "reported"), [(0.0, ["16", "32", "40"]), (1e6, ["40"])])
def test_progress_is_reported_now_and_then_and_at_the_end(run, tmp_path, capsys, monkeypatch, every, reported):
    monkeypatch.setattr(translating, "REPORT_EVERY", every)
    (tmp_path / "in").write_text("a b\n" * 40)
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--batch-size", "1"]
    assert cli.main(["translate", str(run), *words]) == 0
    assert re.findall("(.*) sentences translated", capsys.readouterr().err) == reported


def test_a_column_has_the_prefix_of_each_line(run, tmp_path, capsys):
    sources, prefixes = ["a b c", "", "d e", "f", "a b c"], ["j i", "", "", "h", "j"]
    (tmp_path / "in").write_bytes(b"a\x01b c\tj i\r\n\nd e\t\nf\th\na b c\t j ")
    assert cli.main(["translate", str(run), "--prefix-column", "--input", str(tmp_path / "in")]) == 0
    found = capsys.readouterr().out.split("\n")[:-1]
    assert found == [best.text for best in jaxnmt.load(run).translate(sources, prefix=prefixes)]
    assert found[0].startswith("j i") and found[1] == "" and found[3].startswith("h") and found[4].startswith("j")
    for words, says in (
        (["--prefix-column", "--prefix", "a"], "leave out --prefix, which is for all lines"),
        (["--prefix-column", "--json-lines"], "leave out --json-lines, whose lines may have a prefix"),
        (["--prefix-column", "--input", str(run.parent / "text.xx")], "line 1 has 1 columns, and --prefix-column needs 2"),
    ):
        assert cli.main(["translate", str(run), *words]) == 2 and says in capsys.readouterr().err


def test_a_hundred_thousand_empty_lines_are_as_many(run, tmp_path):
    (tmp_path / "in").write_text("\n" * 100_000)
    assert cli.main(["translate", str(run), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == "\n" * 100_000


def test_a_line_of_32_mb_is_translated_in_parts_in_time(run, tmp_path, capsys):
    (tmp_path / "in").write_text(" ".join(["x" * 2**15] * 2**10) + "\na b\n")
    start = time.process_time()
    assert cli.main(["translate", str(run), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert time.process_time() - start < 60
    assert len((tmp_path / "out").read_text().split("\n")) == 3
    assert "line 1 has 1024 tokens" in capsys.readouterr().err


def test_a_reader_that_has_enough_ends_the_command_without_a_word(run, tmp_path):
    (tmp_path / "in").write_text("a b\n" * 20_000)
    words = [sys.executable, "-m", "jaxnmt", "translate", str(run), "--input", str(tmp_path / "in")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # | head -1
        assert process.stdout and process.stdout.readline()
        process.stdout.close()
        assert process.wait(100) == 141 and process.stderr
        assert not re.search("Traceback|rror", process.stderr.read())


def test_longer_lines_are_read_whole_if_the_model_can(run, caplog):
    """data.max_length is 8."""
    opened, line = jaxnmt.load(run), "a b c d e f g h i"
    assert len(opened.translate(line).parts) == 2 and len(opened.translate(line, max_input=10).parts) == 1
    assert len(opened.translate(line, max_input=4).parts) == 3
    with pytest.raises(jaxnmt.UserError, match="max_input is 1; it must be 0, or at least 2"):
        opened.translate(line, max_input=1)


def test_markup_needs_attention_and_placeholders_do_not(run, capsys):
    assert cli.main(["translate", str(run), "--format", "html"]) == 2
    assert "need attention over the source" in capsys.readouterr().err
    text = [str(run.parent / f"text.{suffix}") for suffix in ("xx", "yy")]
    assert cli.main(["score", str(run), *text, "--alignments", "hard"]) == 2
    assert "need attention over the source" in capsys.readouterr().err
    assert cli.main(["translate", str(run), "--protect", "--alignments", "hard"]) == 2
    assert "--alignments hard is for text without markup" in capsys.readouterr().err
    opened = jaxnmt.load(run)
    assert "%s" in opened.translate("a %s b", protect=True).text
    with pytest.raises(jaxnmt.UserError, match="format is 'xml'"):
        opened.translate("a", format="xml")


def test_resuming_with_more_steps_goes_on_and_other_settings_are_refused(run, capsys):
    assert cli.main(["resume", str(run), "--model.dropout", "0.5"]) == 2
    assert "model.dropout" in capsys.readouterr().err
    assert cli.main(["resume", str(run), "--training.steps", "65"]) == 0
    assert "resuming from checkpoint 60" in capsys.readouterr().err
    assert [record["step"] for record in read_metrics(run, "train")] == list(range(5, 70, 5))
    assert events.shown(run) == events.recorded(run)


def test_text_that_has_moved_is_the_same_text_and_other_text_is_refused(run, tmp_path, capsys):
    files = [pathlib.Path(name) for name in run_directory.read(run).data.train]
    moved = [str(shutil.copy(file, tmp_path / f"moved{file.suffix}")) for file in files]
    assert cli.main(["resume", str(run), "--training.steps", "70", "--data.train", *moved]) == 0
    assert "resuming from checkpoint" in capsys.readouterr().err
    assert run_directory.read(run).data.train == tuple(moved)
    other = [tmp_path / f"other{file.suffix}" for file in files]
    for file, copy in zip(other, files, strict=True):
        file.write_text("".join(reversed(copy.read_text().splitlines(keepends=True))))
    assert cli.main(["resume", str(run), "--training.steps", "75", "--data.train", *map(str, other)]) == 2
    assert "data.train" in capsys.readouterr().err


def test_text_that_has_moved_to_a_name_without_a_language_keeps_the_one_it_had(run, tmp_path):
    before = identity.read(run)["languages"]
    files = [pathlib.Path(name) for name in run_directory.read(run).data.train]
    moved = [str(shutil.copy(file, tmp_path / name)) for file, name in zip(files, ("source.txt", "target.txt"), strict=True)]
    assert cli.main(["resume", str(run), "--training.steps", "80", "--data.train", *moved]) == 0
    assert identity.read(run)["languages"] == before == ["xx", "yy"]


def test_a_label_may_be_corrected_unless_that_changes_the_bleu_that_decides(run, tmp_path, capsys):
    run = pathlib.Path(shutil.copytree(run, tmp_path / "run"))
    steps = run_directory.read(run).training.steps
    assert cli.main(["resume", str(run), "--data.target-language", "de", "--training.steps", str(steps + 5)]) == 0
    assert identity.read(run)["languages"] == ["xx", "de"] and run_directory.read(run).data.target_language == "de"
    assert open_test_set(run_directory.read(run), run, "validation").languages == ("xx", "de")
    patient = ["resume", str(run), "--validation.patience", "99", "--training.steps", str(steps + 10)]
    assert cli.main([*patient, "--data.target-language", "zh"]) == 0  # the words are split: whatever the language, BLEU counts them so
    assert identity.read(run)["languages"] == ["xx", "zh"]


def test_a_label_that_changes_the_bleu_that_decides_is_refused(tmp_path, capsys):
    """Of references without a letter, whose script says nothing, the label chooses the tokenizer."""
    for suffix, line in (("xx", "{0} {1}"), ("yy", "{1} {0}")):
        (tmp_path / f"n.{suffix}").write_text("".join(line.format(i % 9, i % 7) + "\n" for i in range(99)))
    run, text = str(tmp_path / "run"), [str(tmp_path / "n.xx"), str(tmp_path / "n.yy")]
    raw = ["--tokenizer.kind", "unigram", "--tokenizer.vocab-size", "300", "--training.steps", "2", "--validation.patience", "9"]
    assert cli.main(["train", tiny.write_config(tmp_path), "--run", run, "--data.train", *text, *raw]) == 0
    more = ["resume", run, "--training.steps", "3", "--data.target-language"]
    capsys.readouterr()
    assert cli.main([*more, "th"]) == 2
    assert "data.target_language: (none) → th" in capsys.readouterr().err
    assert cli.main([*more, "de"]) == 0
    assert "tok:13a" in read_metrics(pathlib.Path(run), "validation")[-1]["signature"]


def test_a_document_is_translated_as_a_whole(run, tmp_path, capfdbinary):
    (tmp_path / "x.po").write_text('msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "a b c"\nmsgstr ""\n')
    command = ["translate", str(run), "--document", str(tmp_path / "x.po")]
    assert cli.main([*command, "--output", str(tmp_path / "y.po")]) == 0 and cli.main([*command, "--beam-size", "4"]) == 0
    made, printed = (tmp_path / "y.po").read_bytes(), capfdbinary.readouterr().out
    opened = jaxnmt.load(run)
    best = opened.translate("a b c", protect=True).text
    assert made == opened.translate_document(tmp_path / "x.po") and printed == opened.translate_document(tmp_path / "x.po", beam_size=4)
    assert f'#, fuzzy\nmsgid "a b c"\nmsgstr "{best}"\n' in made.decode()
    for words, says in (
        (["--n-best", "2"], b"--n-best is for lines"),
        (["--json-lines", "True"], b"--json-lines is for lines"),
        (["--input", "a"], b"--input is for lines"),
        (["--output", str(tmp_path / "no" / "y.po")], b"there is no folder"),
    ):
        assert cli.main([*command, *words]) == 2 and says in capfdbinary.readouterr().err
    assert (
        cli.main(["translate", str(run), "--overwrite", "True"]) == 2
        and b"has no effect without --document" in capfdbinary.readouterr().err
    )
