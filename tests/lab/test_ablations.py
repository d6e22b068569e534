"""A study: what it comes to, that nothing is done twice whatever is killed, and that the table is the runs'."""

import contextlib
import csv
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

from jaxnmt import cli
from jaxnmt.config import MaskedLanguage, replace
from jaxnmt.config.files import save_config, shipped_studies, write_json
from jaxnmt.data.prepared import prepare
from jaxnmt.errors import SAVED, UserError
from jaxnmt.evaluation.scores import holm, metric, over_runs
from jaxnmt.lab.ablations import budgets, report, worker
from jaxnmt.lab.ablations import study as studies
from jaxnmt.lab.ablations.study import Budget, Job, Study
from jaxnmt.parallel import peers
from jaxnmt.runs import directory as run_directory

STUDY = """
import pathlib

from jaxnmt.lab.ablations.study import Budget, Study
from jaxnmt.config import MaskedLanguage, replace
from jaxnmt.config.files import read_config


def study():
    parent = read_config(pathlib.Path({parent!r}))
    return Study(
        variants={{"no dropout": replace(parent, **{{"model.dropout": 0.0}}), "dropout": parent}},
        budget=Budget(6, "steps"),
        seeds={seeds},
        learning_rates=(1e-3, 1e-2),
        tuning=Budget(4, "steps"),
    )
"""


def study_file(tmp_path, seeds):
    soonest_traced = {"model": tiny.RUNGS["bag"], "batching.layout": "buckets", "batching.max_shapes": 1, "training.accumulation": 1}
    parent = tiny.experiment(tmp_path / "text", **{"training.ema_decay": 0.0, "validation.metric": "loss"}, **soonest_traced)
    save_config(parent, tmp_path / "parent.json")
    path = tmp_path / "dropout.py"
    path.write_text(STUDY.format(parent=str(tmp_path / "parent.json"), seeds=seeds))
    return path


def command(file, folder):
    return [sys.executable, "-m", "jaxnmt", "ablate", str(file), "--folder", str(folder)]


def without_speed(table):
    """A Markdown table but for its last columns, minutes and tokens a second."""
    return [line.rsplit("|", 3)[0] for line in table.splitlines()]


def killed_again_and_again(file, folder, kills):
    """Kill a study a number of times while it trains, then let two workers finish it; no result that was there is made again."""
    finished, random = {}, np.random.default_rng(0)
    for _ in range(kills):
        process = subprocess.Popen(command(file, folder), start_new_session=True, stderr=subprocess.DEVNULL)
        done = len(finished)
        while process.poll() is None and len(finished) == done:  # until it has finished something, and somewhere in the next
            time.sleep(0.2)
            finished |= {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*/result.json")}
        time.sleep(random.uniform(0, 6))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        finished |= {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*/result.json")}
    two = [subprocess.Popen(command(file, folder), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in two:
        told = process.communicate()[1]
        assert process.returncode == 0, told[-2000:]
    assert finished and {path: path.stat().st_mtime_ns for path in finished} == finished


def reproduced(file, folder, what):
    return subprocess.run([*command(file, folder), "--reproduce", what], capture_output=True, text=True).stdout == "the same to the digit\n"


@pytest.mark.slow
def test_a_study_that_is_killed_is_finished_and_nothing_is_done_twice(tmp_path):
    file = study_file(tmp_path, (1,))
    killed_again_and_again(file, tmp_path / "killed", 1)
    check_table(studies.load(str(file)), tmp_path / "killed", (tmp_path / "killed" / "report.md").read_text())
    assert reproduced(file, tmp_path / "killed", "dropout")


@pytest.mark.slow
def test_a_study_killed_again_and_again_is_the_undisturbed_one(tmp_path):
    file = study_file(tmp_path, (1, 2))
    whole = subprocess.run(command(file, tmp_path / "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr[-2000:]
    killed_again_and_again(file, tmp_path / "killed", 10)
    tables = [(tmp_path / name / "report.md").read_text() for name in ("whole", "killed")]
    assert without_speed(tables[0]) == without_speed(tables[1])
    study = studies.load(str(file))
    for job in studies.jobs(study):
        left, right = (worker.read_result(tmp_path / name, job) for name in ("whole", "killed"))
        assert left["validations"] == right["validations"] and left.get("test") == right.get("test")
    check_table(study, tmp_path / "whole", tables[0])
    assert reproduced(file, tmp_path / "whole", "runs/dropout/seed-1")


def check_table(study, folder, table):
    """The table is what the runs say, and they trained with the rate that their trials found best."""
    results_of = [worker.read_result(folder, Job("dropout", seed)) for seed in study.seeds]
    assert str(report.mean([result["test"]["metrics"][1]["value"] for result in results_of])) in table
    assert list(report.significance(study, folder)) == ["dropout"]
    page, lengths = (folder / "report.html").read_text(), (folder / "length.svg").read_text()
    curves = (folder / "curves.svg").read_text()
    assert curves and curves in page
    assert lengths in page and all(f">{name}<" in lengths for name in study.variants)
    rate = worker.chosen_rate(study, folder, "dropout")
    scores = {r: worker.read_result(folder, Job("dropout", 1, r))["validation_score"] for r in (1e-3, 1e-2)}
    assert scores[rate] == max(scores.values()) > min(scores.values())
    for tried, score in scores.items():
        trial = worker.read_result(folder, Job("dropout", 1, tried))
        assert score == -min(validation["loss"] for validation in trial["validations"]) and trial["steps"] == 4
        ran = json.loads((folder / f"trials/dropout/rate-{tried:g}/run/config.json").read_text())
        assert ran["training"]["seed"] == 1
    used = json.loads((folder / "runs/dropout/seed-1/run/config.json").read_text())
    assert used["schedule"]["learning_rate"] == rate and used["training"]["seed"] == 1 and used["training"]["steps"] == 6


def test_a_budget_is_the_same_for_all_in_its_own_unit(tmp_path):
    small = tiny.experiment(tmp_path)
    large = replace(small, **{"batching.tokens": 512, "model.mlp_dim": 48})
    sizes = budgets.measure(Study({"small": small, "large": large}, Budget(1), unequal_parameters=True, unequal_tokens=True), tmp_path)
    assert sizes["small"].tokens == sizes["large"].tokens and sizes["small"].epoch_steps > sizes["large"].epoch_steps
    for unit, cost in (("tokens", lambda s: s.tokens), ("epochs", lambda s: 1), ("flops", lambda s: s.flops * s.tokens)):
        budget = Budget(100 * cost(sizes["small"]), unit)
        spent = [size.steps(budget) / size.epoch_steps * cost(size) for size in sizes.values()]
        assert spent == pytest.approx([budget.amount] * 2, rel=0.01)
    assert [size.steps(Budget(7, "steps")) for size in sizes.values()] == [7, 7]


def test_variants_of_unequal_size_are_refused_unless_asked_for(tmp_path):
    small = tiny.experiment(tmp_path)
    study = Study({"small": small, "large": replace(small, **{"model.emb_dim": 32})}, Budget(1))
    with pytest.raises(UserError, match="large [0-9,]+: .* unequal_parameters"):
        budgets.measure(study, tmp_path)


def test_a_twentieth_more_or_less_is_the_bound():
    budgets._equal({"a": 1000, "b": 1050, "c": 950}, "parameters", "x")
    for number in (1051, 949):
        with pytest.raises(UserError, match=f"b {number:,}"):
            budgets._equal({"a": 1000, "b": number}, "parameters", "x")


def test_longer_sources_make_a_target_token_dearer(tmp_path):
    for name, line in (("l.en", "a b c d e f\n"), ("s.de", "x y\n")):
        (tmp_path / name).write_text(line * 60)

    def size(source, target):
        text = (str(tmp_path / source), str(tmp_path / target))
        return budgets._size(replace(tiny.experiment(tmp_path), **{"data.train": text}), tmp_path / f"{source}-{target}")

    assert size("l.en", "s.de").flops > size("s.de", "l.en").flops


def test_p_is_corrected_for_all_variants_and_waits_for_every_seed(tmp_path):
    one = replace(tiny.experiment(tmp_path), **{"data.test": (tiny.write_text(tmp_path, "t", 40, 4),)})
    study = Study({name: replace(one, **{"training.label_smoothing": i / 10}) for i, name in enumerate("abcd")}, Budget(1), seeds=(1, 2))
    random, made = np.random.default_rng(0), {}
    references = (tmp_path / "t.yy").read_text().splitlines()
    for rate, name in enumerate("abcd", 1):
        for seed in (1,) if name == "d" else (1, 2):
            folder = tmp_path / Job(name, seed).folder
            folder.mkdir(parents=True)
            lines = [" ".join("z" if random.random() < rate / 10 else word for word in line.split()) for line in references]
            (folder / "test.txt").write_text("".join(f"{line}\n" for line in lines))
            write_json({}, folder / worker.RESULT)
            made.setdefault(name, []).append(lines)
    plain = [estimate.p for estimate in over_runs([made[name] for name in "abc"], metric("bleu", "none", [references])).estimates[1:]]
    assert report.significance(study, tmp_path) == dict(zip("bc", holm(plain), strict=True)) and holm(plain) != plain


def test_steps_of_unequal_size_are_refused_unless_asked_for(tmp_path):
    small = tiny.experiment(tmp_path)
    variants = {"small": small, "large": replace(small, **{"batching.tokens": 512})}
    with pytest.raises(UserError, match="small has [0-9,]+ target tokens in a step, but large [0-9,]+: .* unequal_tokens"):
        budgets.measure(Study(variants, Budget(9, "steps")), tmp_path)
    budgets.measure(Study(variants, Budget(2, "epochs")), tmp_path)  # of which a large batch takes fewer steps


def test_an_epoch_of_a_mixture_has_the_tokens_that_its_batches_have(tmp_path):
    for name, length, count in (("short", 3, 300), ("long", 9, 100)):
        for side in ("a", "b"):
            (tmp_path / f"{name}.{side}").write_text("".join(f"{side} {i} " + "x " * (length - 2) + "\n" for i in range(count)))
    words = tuple(f"{tmp_path / name}.a,{tmp_path / name}.b@{weight}" for name, weight in (("short", 1), ("long", 4)))
    mixed = replace(tiny.experiment(tmp_path), **{"data.train": words, "data.max_length": 60, "batching.row_length": 60})
    data = prepare(mixed, tmp_path / "tokenizer", lambda line: None)
    plan = budgets._plan(mixed, data)
    batches = [plan.batch(step) for step in range(plan.steps_per_epoch)]
    made = sum(int(data.train[c].target.lengths[i]) + 1 for b in batches for c, i in zip(b.corpus.tolist(), b.index.tolist(), strict=True))
    assert budgets._epoch_tokens(data)[1] == pytest.approx(made, rel=0.05)
    assert made > 1.2 * sum(int(corpus.target.lengths.sum()) + len(corpus) for corpus in data.train)  # what adding them up would say


def test_a_clock_ends_the_runs_of_a_budget_in_minutes(tmp_path):
    parent = tiny.experiment(tmp_path, **{"schedule.name": "noam", "validation.patience": 3})
    smoother = replace(parent, **{"training.label_smoothing": 0.2})
    study = Study({"a": parent, "b": smoother}, Budget(30, "minutes"), tuning=Budget(2, "minutes"))
    size = budgets.Size(1, 1.0, 1, 1)
    run = studies.experiment_of(study, Job("a", 1), size, None)
    assert (run.training.max_minutes, run.validation.patience, run.training.steps) == (30, 0, budgets.UNLIMITED)
    assert studies.experiment_of(study, Job("a", 1, 1e-3), size, None).training.max_minutes == 2
    rows = report.gather(study, tmp_path / "study", budgets.measure(study, tmp_path))
    table = report.table_of(study, rows)
    shown = dict(zip(table.header, table.rows[0], strict=True))
    assert rows[0]["steps"] == 0 and (shown["TFLOP"], shown["steps"]) == ("–", "–")
    with pytest.raises(UserError, match="budget in minutes .* cannot be reproduced"):
        worker.reproduce(study, tmp_path, {"a": size}, "a")


@pytest.mark.parametrize("part", ["validations", "test"])
def test_a_run_that_is_reproduced_again_is_trained_again(part, tmp_path, monkeypatch):
    study = Study({"a": tiny.experiment(tmp_path), "b": tiny.experiment(tmp_path)}, Budget(5), seeds=(1, 2))
    found, result = [], {"validations": [1], "test": {"BLEU": 2}}

    def train(experiment, folder, is_trial, claim, metrics):
        found.append((folder / "run").exists())
        (folder / "run").mkdir(exist_ok=True)
        return result if len(found) < 3 else {**result, part: "another"}

    for seed in study.seeds:
        (tmp_path / f"runs/a/seed-{seed}").mkdir(parents=True)
        write_json(result, tmp_path / f"runs/a/seed-{seed}/result.json")
    monkeypatch.setattr(worker, "_train_and_score", train)
    sizes, said = {"a": budgets.Size(1, 1.0, 1, 1)}, []
    monkeypatch.setattr(worker, "say", said.append)
    assert worker.reproduce(study, tmp_path, sizes, "runs/a/seed-2")
    assert worker.reproduce(study, tmp_path, sizes, str(tmp_path / "runs/a/seed-2"))
    assert not worker.reproduce(study, tmp_path, sizes, "a") and f"{part} differ" in said[-3]
    assert found == [False] * 4 and len(said) == 6


def in_this_process(words, out, log, claim):
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(log):
        return cli.main(words)


def test_a_study_of_labels_has_their_scores_and_tests_accuracy(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_jaxnmt", in_this_process)
    parent = tiny.labelled(tmp_path / "text")
    slow = replace(parent, **{"schedule.learning_rate": 1e-5, "task.class_weights": "balanced"})
    study = Study({"parent": parent, "slow": slow}, Budget(60), seeds=(1, 2))
    sizes = budgets.measure(study, tmp_path)
    assert worker.work(study, tmp_path, sizes) == []
    first, second = report.gather(study, tmp_path, sizes)
    assert list(first["scores"]) == ["accuracy", "macro-F1", "ECE"] and first["p"] is None and second["p"] < 0.05
    references = [line.split("\t")[1] for line in (tmp_path / "text" / "v.tsv").read_text().splitlines()]
    for row in (first, second):
        made = [(folder / "test.txt").read_text().splitlines() for folder in row["runs"]]
        right = [100 * np.mean([mine == label for mine, label in zip(lines, references, strict=True)]) for lines in made]
        assert row["scores"]["accuracy"] == pytest.approx(report.mean(right)) and len(right) == 2
    report.write(study, tmp_path, sizes)
    written = {path.name for path in tmp_path.glob("*.*")}
    assert {"report.html", "curves.svg"} <= written and "length.svg" not in written
    assert "Validation accuracy" in (tmp_path / "report.html").read_text()


def test_a_study_of_a_task_without_test_scores_compares_the_best_validations(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_jaxnmt", in_this_process)
    parent = tiny.experiment(tmp_path, **{"task": MaskedLanguage(rate=0.5), "training.accumulation": 1})
    study = Study({"parent": parent, "wider": replace(parent, **{"model.mlp_dim": 32})}, Budget(8), seeds=(1,), unequal_parameters=True)
    sizes = budgets.measure(study, tmp_path)
    assert worker.work(study, tmp_path, sizes) == []
    for row in report.gather(study, tmp_path, sizes):
        best = min(run_directory.read_metrics(row["runs"][0] / "run", "validation"), key=lambda record: record["loss"])
        assert row["scores"]["perplexity"].mean == best["perplexity"] and row["p"] is None
    report.write(study, tmp_path, sizes)
    assert "best validation" in (tmp_path / "report.html").read_text()


def test_mean_and_deviation_by_hand():
    assert report.mean([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5), 3)
    assert str(report.mean([4.0])) == "4.00" and report.mean([]) is None


ROWS = [  # by hand: nothing finished yet, and a name of letters that LaTeX takes for its own
    {
        **{"variant": "parent", "differs": "", "parameters": 1_234_567, "flops": 3.21e12, "learning_rate": 1e-3, "steps": 1000},
        **{"target_tokens": 0.0, "seconds": 0.0, "p": None, "perplexity": None, "runs": (), "scores": {}},
    },
    {
        "variant": "tie_all & 50 %, #2 {a} $b \\c ~d ^e <f>",
        "differs": 'tie_embeddings all, "quoted"',
        "parameters": 1_200_000,
        "flops": 3.2123456789e12,
        "learning_rate": 0.1 + 0.2,
        "steps": 1000,
        "target_tokens": 1e6,
        "seconds": 400.0,
        "p": 0.0123456,
        "perplexity": report.Mean(1.5, 0.25, 2),
        "runs": (pathlib.Path("runs/a/seed-1"), pathlib.Path("runs/a/seed-2")),
        "scores": {
            "BLEU": report.Mean(34.5678901234, 1 / 3, 2),
            "chrF++": report.Mean(55.25, 0.0, 2),
            "TER": report.Mean(48.125, 0.5, 2),
        },
    },
]


def test_latex_has_a_cell_under_each_heading_and_no_letter_that_latex_takes_for_its_own(tmp_path):
    study = Study({name: tiny.experiment(tmp_path) for name in "ab"}, Budget(1000), seeds=(1, 2, 3))
    begin, heading, line, *rows, end, nothing = report.latex(report.table_of(study, ROWS)).split("\n")
    assert nothing == "" and (begin, line, end) == (r"\begin{tabular}{lrrrrrrrrrrrr}", r"\hline", r"\end{tabular}")
    parent, other = ([cell.strip() for cell in re.split(r"(?<!\\)&", row.removesuffix(r" \\"))] for row in rows)
    assert len(parent) == len(other) == len(re.split(r"(?<!\\)&", heading)) == 13
    assert all(row.endswith(r" \\") for row in (heading, *rows))
    assert parent == ["parent", "--", "--", "--", "--", "--", "0 of 3", "1,234,567", "3.21", "1,000", "0.001", "--", "0"]
    assert other == [
        r"tie\_all \& 50 \%, \#2 \{a\} \$b \textbackslash{}c \textasciitilde{}d \textasciicircum{}e $<$f$>$",
        r"34.57 $\pm$ 0.33",
        "0.012",
        r"55.25 $\pm$ 0.00",
        r"48.12 $\pm$ 0.50",
        r"1.50 $\pm$ 0.25",
        *("2 of 3", "1,200,000", "3.21", "1,000", "0.3", "3.3", "2,500"),
    ]


def test_csv_has_the_numbers_themselves():
    parent, other = csv.DictReader(io.StringIO(report.table_csv(ROWS)))
    row = ROWS[1]
    for name, value in (row | row["scores"]).items():
        if isinstance(value, report.Mean):
            assert [float(other[f"{name.lower()}_{part}"]) for part in ("mean", "deviation", "count")] == list(value)
        elif isinstance(value, int | float):
            assert float(other[name]) == value
    assert (other["variant"], other["differs"], other["runs"]) == (row["variant"], row["differs"], "runs/a/seed-1 runs/a/seed-2")
    assert (parent["bleu_mean"], parent["bleu_count"], parent["p"], parent["runs"]) == ("", "0", "", "")
    for line in (parent, other):  # as many cells as headings
        assert None not in line and None not in line.values()


def test_a_job_whose_worker_was_killed_is_claimed_while_its_training_goes_on(tmp_path):
    with worker._claim(tmp_path) as claim:
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[claim.fileno()])
    with worker._claim(tmp_path) as claim:
        assert claim is None
    left.communicate(b"\n")
    with worker._claim(tmp_path) as claim:
        assert claim is not None


def test_a_rate_that_diverges_is_the_worst_and_ends_no_study(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_jaxnmt", in_this_process)
    parent = replace(tiny.experiment(tmp_path), **{"optimizer.clip_norm": 0.0, "training.max_bad_steps": 1, "validation.metric": "loss"})
    study = Study({"a": parent, "b": parent}, Budget(4), seeds=(1,), learning_rates=(1e38, 1e-3))
    job = Job("a", 1, 1e38)
    write_json({"validation_score": -2.5}, tmp_path / "rate.json")
    for trial, rate in ((job, 1e38), (Job("a", 1, 1e-3), None)):
        folder = tmp_path / "study" / trial.folder
        folder.mkdir(parents=True)
        if rate is None:
            (tmp_path / "rate.json").replace(folder / worker.RESULT)
        else:
            with worker._claim(folder) as claim:
                experiment = studies.experiment_of(study, trial, budgets.Size(1, 1.0, 1, 1), rate)
                found = worker._train_and_score(experiment, folder, True, claim)
            write_json(found, folder / worker.RESULT)
    assert worker.read_result(tmp_path / "study", job)["validation_score"] == -np.inf
    assert worker.chosen_rate(study, tmp_path / "study", "a") == 1e-3


def test_held_out_sentences_are_compared_only_where_the_same_are_held_out(tmp_path):
    parent = replace(tiny.experiment(tmp_path), **{"data.validation": ()})
    other = replace(parent, **{"tokenizer.vocab_size": 9})
    given = [replace(e, **{"data.test": parent.data.train}) for e in (parent, other)]
    for variants, comparable in (((parent, other), {"a"}), (given, {"a", "b"})):
        study, folder = Study(dict(zip("ab", variants, strict=True)), Budget(1), seeds=(1,)), tmp_path / str(len(comparable))
        for name in "ab":
            (folder / Job(name, 1).folder).mkdir(parents=True)
            (folder / Job(name, 1).folder / "test.txt").write_text("x\n")
            write_json({}, folder / Job(name, 1).folder / worker.RESULT)
        assert report.translations(study, folder).keys() == comparable


def test_a_changed_study_is_refused_and_more_seeds_are_taken(tmp_path):
    one = tiny.experiment(tmp_path)
    study = Study({"a": one, "b": replace(one, **{"training.label_smoothing": 0.2})}, Budget(5))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "slurm.out").write_text("queued")
    studies.begin(study, tmp_path / "study")
    studies.begin(Study(study.variants, Budget(5), seeds=(1, 2, 3, 4)), tmp_path / "study")
    with pytest.raises(UserError, match="other budget"):
        studies.begin(Study(study.variants, Budget(6)), tmp_path / "study")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_study_whose_text_has_changed_is_refused(part, tmp_path):
    one = replace(tiny.experiment(tmp_path), **{"data.test": (tiny.write_text(tmp_path, "t", 5, 4),)})
    study = Study({"a": one, "b": replace(one, **{"training.label_smoothing": 0.2})}, Budget(5))
    for _ in range(2):
        budgets.measure(study, tmp_path / "study")
    tiny.write_text(tmp_path, *{"train": ("a", 60, 9), "test": ("t", 5, 9)}[part])
    with pytest.raises(UserError, match="not what its runs began with"):
        budgets.measure(study, tmp_path / "study")


def test_a_worker_among_several_processes_starts_trainings_of_their_own(tmp_path, monkeypatch):
    several = ["JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_STEP_NUM_TASKS", "JAXNMT_DISTRIBUTED"]
    for name in [*several, "MEGASCALE_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"]:
        monkeypatch.setenv(name, "4,5")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/bash\nexec {sys.executable} -c 'from jaxnmt.parallel import peers; print(peers.are_expected())'\n")
    python.chmod(0o755)
    assert peers.are_expected()
    monkeypatch.setattr(sys, "executable", str(python))
    with (tmp_path / "out").open("w") as out, (tmp_path / "claim").open("w") as claim:
        assert worker._jaxnmt(["resume", "x"], out, out, claim) == 0
    assert (tmp_path / "out").read_text() == "False\n"


@pytest.mark.parametrize(("end", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), ("pipe", 141)])
def test_what_ends_a_study_ends_what_it_trains_too(end, status, tmp_path):
    file = study_file(tmp_path, (1,))
    heard = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # noqa: E731, whatever started the tests may ignore it
    process = subprocess.Popen(command(file, tmp_path / "study"), start_new_session=True, stderr=subprocess.PIPE, preexec_fn=heard)
    while not any(log.stat().st_size for log in (tmp_path / "study").glob("trials/*/*/log.txt")):
        assert process.poll() is None
        time.sleep(0.1)
    process.stderr.close() if end == "pipe" else os.kill(process.pid, end)
    left = process.wait(60)
    has_advanced = any((tmp_path / "study").glob("trials/*/*/run/checkpoints/[0-9]*"))  # quick as it is
    assert left == (SAVED if has_advanced else status)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody of the group is left


@pytest.mark.parametrize(("finishes", "status"), [(worker.RESULT, 85), ("run/checkpoints/8/params", 85), ("log.txt", 143)])
def test_a_study_that_is_stopped_leaves_with_85_if_it_has_advanced(finishes, status, tmp_path, monkeypatch):
    one = tiny.experiment(tmp_path)
    study = Study({"a": one, "b": replace(one, **{"training.label_smoothing": 0.2})}, Budget(5))
    for job in list(studies.jobs(study))[:1]:  # before this session: no progress of its own
        (tmp_path / job.folder).mkdir(parents=True)
        (tmp_path / job.folder / worker.RESULT).write_text("{}")

    def stopped(*_):
        made = tmp_path / list(studies.jobs(study))[1].folder / finishes
        made.parent.mkdir(parents=True)
        made.write_text("{}")
        sys.exit(143)

    monkeypatch.setattr(worker, "_attempt", stopped)
    with pytest.raises(SystemExit) as left:
        worker.work(study, tmp_path, {})
    assert left.value.code == status


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("variants={'a': parent}", "at least two"),
        ("variants={'a': parent, 'b': parent}, seeds=(1, 1)", "seeds"),
        ("variants={'a b': parent, 'a_b': parent}", "punctuation"),
        ("variants={'a': parent, 'b': parent}, metrics=('blue',)", "there is no blue; choose from bleu"),
        ("variants={'a': labels, 'b': labels}, metrics=('bleu',)", "the task Classification has its own"),
        ("variants={'a': parent, 'b': labels}", "variant b: scores of the tasks Translation and Classification do not compare"),
        ("variants={'a': parent, 'b': replace(parent, **{'model.dropout': 2.0})}", "variant b: model.dropout"),
        ("variants={'a': parent, 'b': replace(parent, **{'schedule.name': 'linear'})}, tuning=Budget(1, 'minutes')", "schedule.name"),
    ],
)
def test_a_mistake_in_a_study_is_one_sentence(tmp_path, capsys, change, says):
    path = tmp_path / "study.py"
    path.write_text(
        "from jaxnmt.lab.ablations.study import Budget, Study\nfrom jaxnmt.config import Classification, Experiment, replace\n"
        "parent, labels = Experiment(), Experiment(task=Classification())\n"
        f"def study():\n    return Study(budget=Budget(5), {change})\n"
    )
    assert cli.main(["ablate", str(path)]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1 and str(path) in told


def test_a_study_is_handed_to_slurm_as_an_array(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/words\n/bin/cat > {tmp_path}/script\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    folder = tmp_path / "my study"
    submit = ["ablate", "heads", "--folder", str(folder), "--submit", "slurm"]
    assert cli.main([*submit, "--workers", "3", "--gpus", "1", "--cpus", "4", "--hours", "2", "--setup", "module load it"]) == 0
    words, script = (tmp_path / "words").read_text().splitlines(), (tmp_path / "script").read_text()
    assert words == ["--array=1-3", "--job-name=my study", f"--output={folder}/slurm-%a.txt"]
    asked = ["--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=4", "--gpus-per-node=1", "--time=120", "--open-mode=append", "--requeue"]
    assert all(f"#SBATCH {option}\n" in script for option in asked)
    assert "\nmodule load it\n" in script and f" jaxnmt ablate heads --folder '{folder}'\n" in script and "scontrol requeue" in script
    for wrong in (["--workers", "0"], ["--hours", "0.05"], ["--gpus", "-1"]):
        assert cli.main([*submit, *wrong]) == 2
    monkeypatch.setenv("PATH", "")
    assert cli.main(submit) == 2


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_load(name):
    assert len(studies.load(name).variants) > 1
