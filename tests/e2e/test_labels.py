"""Runs that predict labels and numbers: predictions, their batches, scores, comparisons, bad input, and runs of another task."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import UserError, cli
from jaxnmt.data.prepared import prepare
from jaxnmt.decoding.predictor import Predictor
from jaxnmt.lab import compare, comparison_report, options
from jaxnmt.lab.probes import confusion
from jaxnmt.lab.visualize import labels as explained

TEXTS = ["a x", "x x x x", "b", "c x x a", "x", "a b c", "x x b x", "x x a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def one(folder):
    return jaxnmt.train(tiny.labelled(folder), folder=folder / "one")


@pytest.fixture(scope="module")
def several(folder):
    return jaxnmt.train(tiny.labelled(folder / "s", "several"), folder=folder / "several")


@pytest.fixture(scope="module")
def number(folder):
    return jaxnmt.train(tiny.labelled(folder / "n", "number"), folder=folder / "number")


def test_the_label_is_the_most_probable_of_all_and_nothing_else_has_probability(one):
    found = one.predict(TEXTS)
    assert [each.label for each in found] == ["a", "none of them", "b", "c", "none of them", "c", "b", "a"]
    for each in found:
        probabilities = each.probabilities
        assert next(iter(probabilities.items())) == (each.label, each.probability) and each.chosen == {each.label: each.probability}
        assert set(probabilities) == {"a", "b", "c", "none of them"} and sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert one.predict(TEXTS[0]).label == "a"


def test_several_labels_apply_or_not_each_for_itself(several):
    found = several.predict(TEXTS)
    assert [set(filter(None, each.label.split(","))) for each in found] == [set(text) & set("abc") for text in TEXTS]
    for each in found:
        chosen, others = each.chosen, [p for label, p in each.probabilities.items() if label not in each.chosen]
        assert each.label == ",".join(chosen) and all(p > 0.5 for p in chosen.values()) and all(p <= 0.5 for p in others)
        assert each.probability == pytest.approx(np.prod([*chosen.values(), *(1 - p for p in others)]), rel=1e-5)


def test_a_number_is_in_the_units_of_the_training_text(number):
    found = number.predict(TEXTS)
    assert [float(each.label) for each in found] == pytest.approx(
        [10 + text.split().count("a") / len(text.split()) for text in TEXTS], abs=0.1
    )
    assert all(np.isnan(each.probability) and each.probabilities == {} for each in found)
    records = [record for record in number.metrics if record["kind"] == "validation"]
    assert records[-1]["loss"] < 0.2 and records[-1]["accuracy"] is records[-1]["perplexity"] is None


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_a_prediction_depends_on_its_text_alone(kind, request):
    run = request.getfixturevalue(kind)
    whole = run.predict(TEXTS)
    for found in (run.predict(TEXTS[::-1])[::-1], run.predict(TEXTS, batch_size=2), [run.predict(text) for text in TEXTS]):
        for mine, other in zip(whole, found, strict=True):
            np.testing.assert_allclose(mine.values, other.values, rtol=1e-5, atol=1e-6)
            assert mine.label == other.label or abs(float(mine.label) - float(other.label)) < 1e-4


def test_long_texts_are_cut_with_one_warning_and_empty_ones_named(one):
    warnings = []
    predictor = Predictor(one.model, one.params, one.tokenizer, "one", 12, warnings.append)
    found = predictor.predict(["x", " ".join("x" * 11 + "a"), " ".join("b" * 20), ""], 8, first=5)
    assert found[1].label == "none of them"
    assert warnings == [
        "text 6 has 12 tokens; the model reads 11 (data.max_length): it is cut, as are later ones",
        "text 8 is empty: ignore its prediction",
    ]


def test_int8_weights_predict_about_the_same(one):
    rounded = jaxnmt.load(one.folder, weights="int8").predict(TEXTS)
    for mine, other in zip(one.predict(TEXTS), rounded, strict=True):
        np.testing.assert_allclose(mine.values, other.values, atol=0.05)


def test_the_command_writes_labels_and_probabilities_in_order(one):
    command = [sys.executable, "-m", "jaxnmt", "predict", str(one.folder), "--top", "2", "--batch-size", "4"]
    output = subprocess.run(command, input="\n".join(TEXTS) + "\n", check=True, capture_output=True, text=True).stdout
    expected = [list(each.probabilities.items())[:2] for each in one.predict(TEXTS)]
    rows = [line.split("\t") for line in output.splitlines()]
    assert [row[::2] for row in rows] == [[label for label, _ in pairs] for pairs in expected]
    assert [[float(p) for p in row[1::2]] for row in rows] == [pytest.approx([p for _, p in pairs], abs=1e-4) for pairs in expected]


def test_the_other_task_is_named(one, folder):
    with pytest.raises(UserError, match="task Classification, which does not translate: use `jaxnmt predict"):
        one.translate("a")
    config = json.loads((one.folder / "config.json").read_text())
    (folder / "translation").mkdir()
    (folder / "translation" / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "task"}))
    with pytest.raises(UserError, match="task Translation, which predicts no labels: use `jaxnmt translate"):
        jaxnmt.Run(folder / "translation").predict("a")


def test_the_most_probable_numbers_are_not_asked_for(number, capsys):
    assert cli.main(["predict", str(number.folder), "--top", "2"]) == 2
    assert capsys.readouterr().err == f"error: --top is for labels, and {number.folder} predicts numbers: leave it out\n"


# ---- scores


def test_evaluate_scores_what_predict_says(one, several, number, folder):
    for run, names in ((one, "accuracy macro-F1 ECE"), (several, "micro-F1 exact macro-F1"), (number, "MAE R2 Pearson")):
        test, scores = run.test_set(), run.evaluate()
        assert [score.name for score in scores.metrics] == names.split() and scores.sentences == 40
        made = [each.label for each in run.predict(test.sources)]
        assert test.score(made).metrics == scores.metrics[: 2 + (run is not one)]
        assert "40 texts" in str(scores)
        assert run.translations(test.sources) == made == run.translations(test.sources)  # read from the run's folder
    validations = [record["accuracy"] for record in one.metrics if record["kind"] == "validation"]
    assert one.evaluate().metrics[0].value == pytest.approx(100 * max(validations))
    samples = (one.folder / "samples" / "50.txt").read_text()
    assert samples.count("prediction   ") == 40 and samples.startswith(f"source       {one.test_set().sources[0]}\nreference    ")
    assert number.evaluate().metrics[1].value > 0.8


def test_labels_that_training_has_not_are_named_and_count_as_wrong(one, number, folder):
    (folder / "new.tsv").write_text("a\ta\na\tnew\na\told\nx\tnew\n")
    scores = one.evaluate(one.test_set(data=str(folder / "new.tsv")))
    assert scores.metrics[0].value == 25
    assert scores.note == ("2 labels (new, old) occur in the training data never, so that the predictions for 3 of 4 texts count as wrong")
    with pytest.raises(UserError, match=r"new.tsv:1: task.labels number needs a number from -1e\+30 to 1e\+30, not 'a'"):
        number.test_set(data=str(folder / "new.tsv"))


def test_bad_training_data_are_named(folder):
    lines = []
    (folder / "t.tsv").write_text("x a\ta\nx b\t b \nx c\t\n\ta\nx d\ta\nx e\trare\n")
    made = tiny.labelled(folder / "t", **{"data.train": (str(folder / "t.tsv"),), "data.validation": (str(folder / "new.tsv"),)})
    prepared = prepare(made, folder / "tokenizer", lines.append)
    assert "data.train: 2 labels (b, rare) occur in the training data at most once, which is too little to learn" in lines
    again = []
    prepare(made, folder / "tokenizer", again.append)  # whatever was made before
    assert [line for line in again if "at most once" in line] == [line for line in lines if "at most once" in line]
    assert any(line.startswith("data.validation: 2 labels (new, old) occur in the training data never") for line in lines)
    assert "2 dropped (2 empty side)" in prepared.describe() and prepared.tokenizer.label_names == ["a", "b", "rare"]


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("wrong", ["a", "nan", "1e31", pytest.param("", id="empty")])
def test_a_target_that_is_no_number_is_named_with_its_line(tmp_path, part, wrong):
    (tmp_path / "bad.tsv").write_text(f"x a\t1\nx b\t2\nx c\t{wrong}\n")
    made = tiny.labelled(tmp_path / "good", "number", **{f"data.{part}": (str(tmp_path / "bad.tsv"),)})
    if part == "train" and not wrong:  # dropped, as an empty side of any pair is
        assert prepare(made, tmp_path / "tokenizer", print).report["empty side"] == 1
        return
    with pytest.raises(UserError, match=rf"bad.tsv:3: task.labels number needs a number from .*, not '{wrong}'"):
        prepare(made, tmp_path / "tokenizer", print)


def test_data_check_names_the_lines_whose_target_is_no_number(tmp_path, capsys):
    (tmp_path / "bad.tsv").write_text("x a\t1\nx b\tmany\nx c\t\nx d\tinf\n")
    config = tmp_path / "numbers.py"
    config.write_text("from jaxnmt.config import *\n\ndef config():\n    return Experiment(task=Classification(labels='number'))\n")
    settings = ["--batching.layout", "buckets", "--validation.metric", "loss"]
    assert cli.main(["data", "check", str(config), "--data.train", str(tmp_path / "bad.tsv"), *settings]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"not a number +2\n.+bad.tsv:2: task.labels number .+ not 'many'\n.+bad.tsv:4: .+ not 'inf'", printed)


def test_compare_tests_labels_and_refuses_what_translations_have(one, folder):
    other = jaxnmt.train(tiny.labelled(folder, **{"training.steps": 1}), folder=folder / "untrained")
    names = [str(one.folder), str(other.folder)]
    test, systems, trained = compare.gather(names, options.Compare())
    found = compare.compare(test, systems, options.Compare(), trained)
    (accuracy,) = found["metrics"]
    assert [round(each.score, 6) for each in accuracy.estimates] == [run.evaluate().metrics[0].value for run in (one, other)]
    assert accuracy.estimates == one.compare(other)[0].estimates and accuracy.estimates[1].p < 0.05
    assert {row["label"] for row in found["by_label"]} == {"a", "b", "c", "none of them"}
    assert [table.title for table in comparison_report.tables(found)] == ["accuracy", "F1 by label"]
    with pytest.raises(UserError, match="--metrics is for translations"):
        compare.compare(test, systems, options.Compare(metrics=("bleu",)), trained)


def test_the_confusion_matrix_counts_every_text(one):
    files, table = confusion.report(*confusion.read(one, "test", ()), most=3)
    assert sum(int(row.rsplit(",", 1)[1]) for row in files[".csv"].splitlines()[1:]) == 40
    assert "(others)" in files[".svg"] and "Confusion matrix" in files[".svg"]
    files, table = confusion.report(["b", "a", "a"], ["a", "a", "b"], most=5)
    assert files[".csv"].splitlines() == ["label,prediction,texts", "a,a,1", "a,b,1", "b,a,1"]
    assert table.rows == [("a", "b", "1", "50.0%"), ("b", "a", "1", "100.0%")] and table.note == "33.3% of 3 texts have the right label"


def test_visualize_explains_a_prediction(one, number):
    found = explained.of_run(one, "x b x")
    assert found["prediction"] == found["explained"] == "b" and found["words"] == ["x", "b", "x", explained.END]
    assert len(found["gradient_x_input"]) == 4 and any(found["gradient_x_input"]) and found["attention"] == []
    assert json.loads(json.dumps(found)) == found and "Why “b”" in explained.page(found)
    assert explained.of_run(number, "x a")["explained"] == ""
