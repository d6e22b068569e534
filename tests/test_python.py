"""The Python interface, used as a script, a notebook and a thread use it."""

import ast
import asyncio
import concurrent.futures
import gc
import io
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt.training.display import Display

ROOT = pathlib.Path(jaxnmt.__file__).parents[1]
WORDS = {"validation.metric": "bleu", "decoding.batch_size": 4}


def state():
    """What a call must leave as it is."""
    import jax

    known = [logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict)]
    loggers = {log.name: (log.level, log.disabled, log.propagate, [*log.handlers], [*log.filters]) for log in (logging.root, *known)}
    return {
        "loggers": loggers,
        "jax": dict(jax.config.values),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)],
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("python")


@pytest.fixture(scope="module")
def experiment(folder):
    return tiny.experiment(folder, **WORDS)


@pytest.fixture(scope="module")
def run(folder, experiment):
    return jaxnmt.train(experiment, folder=folder / "run")


# ---- importing


def test_importing_is_quick_and_imports_no_jax():
    code = (
        "import time; t = time.perf_counter(); import jaxnmt, sys; print(time.perf_counter() - t, 'jax' in sys.modules); jaxnmt.Experiment"
    )
    code += "\nassert jaxnmt.Experiment and 'jax' not in sys.modules and jaxnmt.Run and jaxnmt.Study and 'jax' not in sys.modules"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in runs) < 0.2 and {loaded for _, loaded in runs} == {"False"}


def test_opening_a_run_and_asking_for_its_checkpoint_imports_no_jax(run):
    code = f"import jaxnmt, sys; run = jaxnmt.load({str(run.folder)!r}); print(run.checkpoint); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (run.checkpoint, "")


def test_every_public_name_is_there_once_documented_and_seen_by_type_checkers():
    tree = ast.parse(pathlib.Path(jaxnmt.__file__).with_suffix(".pyi").read_text())
    (listed,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert sorted(alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names) == listed == jaxnmt.__all__
    assert all(getattr(jaxnmt, name).__doc__ for name in jaxnmt.__all__) and set(jaxnmt.__all__) < set(dir(jaxnmt))
    assert (pathlib.Path(jaxnmt.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jaxnmt.nothing  # noqa: B018


# ---- a run


def test_a_run_knows_what_training_has_left(run, folder, experiment):
    assert run.folder == folder / "run" and run.config.model == experiment.model and run.checkpoints == [6, 8]
    assert run.checkpoint == f"checkpoint {max((r['bleu'], r['step']) for r in run.metrics if r['kind'] == 'validation')[1]}"
    assert [record["step"] for record in run.metrics if record["kind"] == "train"] == [2, 4, 6, 8]
    table_VD = run.params["shared_embedding"]["table"]
    assert table_VD.shape == (128, 16) and str(run.folder) in repr(run)
    batch = {"encoder_input_tokens": np.array([[5, 6, 2]]), "decoder_input_tokens": np.array([[1, 7]])}
    assert run.model.decode(run.params, run.model.encode(run.params, batch), batch).shape == (1, 2, 128)


def test_a_sentence_gives_a_translation_a_list_gives_a_list_and_n_best_gives_lists(run):
    def assert_equal(alone, in_batch):  # batches of other sizes round scores differently
        assert alone._replace(score=0) == in_batch._replace(score=0) and alone.score == pytest.approx(in_batch.score, abs=1e-5)

    one, several = run.translate("a b c"), run.translate(["a b c", "", "j"])
    assert isinstance(one, jaxnmt.Translation) and several[1] == jaxnmt.Translation("", 0.0)
    assert_equal(one, several[0])
    assert one.score < 0 and one.text == "".join(one.tokens[:0]) + " ".join(one.tokens)
    best = run.translate(["a b c", "j"], n_best=2)
    assert [len(candidates) for candidates in best] == [2, 2] and best[0][0].score >= best[0][1].score
    assert_equal(one, best[0][0])
    for alone, in_batch in zip(run.translate("a b c", n_best=2), best[0], strict=True):
        assert_equal(alone, in_batch)
    assert run.translate("a b c", beam_size=1) != one or run.translate("a b c", beam_size=1).tokens == one.tokens


def test_attention_is_an_array(run):
    found = run.align("a b c")
    assert found.source == ["a", "b", "c"] and found.target == run.translate("a b c").text.split()
    assert found.weights_TS.shape == (len(found.target), 3)
    assert (found.weights_TS > 0).all() and (found.weights_TS.sum(-1) < 1).all()  # the rest is on the end token
    assert [each.source for each in run.align(["a b c", "j"])] == [["a", "b", "c"], ["j"]]


def test_scores_and_comparison_are_of_the_same_translations(run):
    scores = run.evaluate()
    assert run.evaluate(run.test_set()).bleu == scores.bleu
    assert isinstance(scores, jaxnmt.Scores) and scores.sentences == 11 and scores.bleu == scores.metrics[0].value
    latest = jaxnmt.load(run.folder, checkpoint="latest")
    bleu, ter = run.compare(latest, metrics=("bleu", "ter"), samples=20)
    assert bleu.estimates[0].score == pytest.approx(scores.bleu) and bleu.estimates[0].p is None
    assert bleu.estimates[1].score == pytest.approx(latest.evaluate().bleu) and 0 < bleu.estimates[1].p <= 1 and ter.name == "TER"
    assert len(list((run.folder / "translations").iterdir())) == len({run.checkpoint, latest.checkpoint})


def test_the_average_is_a_checkpoint_too(run):
    assert run.average(2) == [6, 8]
    mean, last, first = (jaxnmt.load(run.folder, which).params["shared_embedding"]["table"] for which in ("average", 8, 6))
    np.testing.assert_allclose(mean, (np.asarray(last, np.float64) + first) / 2, rtol=1e-6)


@pytest.mark.slow
def test_training_again_resumes_and_a_finished_run_is_left_as_it_is(run, experiment, folder):
    before = {path: path.stat().st_mtime_ns for path in (run.folder / "checkpoints").rglob("*")}
    assert jaxnmt.train(experiment, folder=str(run.folder)).checkpoints == [6, 8]
    assert {path: path.stat().st_mtime_ns for path in (run.folder / "checkpoints").rglob("*")} == before
    whole = jaxnmt.train(experiment, folder=folder / "whole", settings={"training.steps": 10})
    part = jaxnmt.train(experiment, folder=folder / "part")
    part = jaxnmt.train(part.config, folder=part.folder, settings={"training.steps": 10})
    assert part.checkpoints == whole.checkpoints
    last = [jaxnmt.load(each.folder, "latest").params for each in (part, whole)]
    tiny.assert_same(*last)


def test_a_config_by_name_takes_data_and_settings(folder, monkeypatch):
    monkeypatch.chdir(folder)
    name, text = tiny.write_config(folder), tiny.write_text(folder, "own", 60, 5).split(",")
    settings = {"training.steps": 2, "validation.every": 0, "tokenizer.joint": True}
    made = jaxnmt.train(name, data=text, settings=settings)
    assert made.folder == pathlib.Path("runs/mine") and made.config.data.train == tuple(text) and made.config.training.steps == 2
    assert jaxnmt.load_config(name).training.steps == 60
    assert jaxnmt.load("runs/mine").translate(["a b"], max_length_extra=0)[0].score < 0


# ---- what a call does to the process


def test_a_call_prints_nothing_and_leaves_loggers_signals_jax_and_the_environment_as_they_were(run, experiment, folder, capfd, monkeypatch):
    handlers = []
    step = Display.step
    monkeypatch.setattr(Display, "step", lambda *args: handlers.append(signal.getsignal(signal.SIGINT)) or step(*args))
    before = state()
    made = jaxnmt.train(experiment, folder=folder / "quiet", settings={"training.steps": 3})
    made.translate("a b c " * 9)  # longer than the model reads
    made.evaluate()
    assert capfd.readouterr() == ("", "") and set(handlers) == {before["signals"][0]} and len(handlers) >= 3
    after = state()
    assert {name for name in before if before[name] != after[name]} <= {"loggers"}
    assert {name: after["loggers"][name] for name in before["loggers"]} == before["loggers"]


PROCESS = """
import os, sys, logging, signal
sys.path[:0] = [{tests!r}]
import jax, orbax.checkpoint, tensorflow_datasets, jaxnmt, test_python
before = test_python.state()
run = jaxnmt.train({config!r}, data={data!r}, folder={run!r}, settings={{"training.steps": 2, "validation.every": 0}})
assert run.translate("a b c").score < 0
after = test_python.state()
changed = {{name for name in before if before[name] != after[name]}} - {{"loggers"}}
changed |= {{name for name in before["loggers"] if before["loggers"][name] != after["loggers"][name]}}
assert not changed, changed
"""


def test_a_fresh_process_without_flags_computes_right_numbers_prints_nothing_and_is_left_as_it_was(tmp_path):
    config, data = tiny.write_config(tmp_path), tiny.write_text(tmp_path, "own", 60, 5).split(",")
    code = PROCESS.format(tests=str(ROOT / "tests"), config=config, data=data, run=str(tmp_path / "run"))
    unset = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=unset)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_works_in_a_thread(run, experiment, folder):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(jaxnmt.train, experiment, folder=folder / "thread").result()
        assert pool.submit(made.translate, "a b c").result() == run.translate("a b c")


@pytest.mark.slow
def test_it_works_where_an_event_loop_runs_as_in_a_notebook(run, experiment, folder):
    async def cells():
        made = jaxnmt.train(experiment, folder=folder / "notebook")
        return made.translate("a b c"), made.average(2)

    assert asyncio.run(cells()) == (run.translate("a b c"), [6, 8]) and "nest_asyncio" not in sys.modules


def test_progress_is_printed_to_stderr_if_it_is_asked_for_and_the_log_can_be_heard(experiment, folder, capfd, caplog):
    with caplog.at_level(logging.INFO, "jaxnmt"):
        jaxnmt.train(experiment, folder=folder / "heard", settings={"training.steps": 2})
    assert any(line.startswith("step 2/2  epoch") for line in caplog.messages) and capfd.readouterr() == ("", "")
    before = state()["loggers"]["jaxnmt"]
    jaxnmt.train(experiment, folder=folder / "heard", settings={"training.steps": 4}, progress=True)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[0] == f"resuming the run {folder / 'heard'} from checkpoint 2" and "finished at step 4 of 4" in lines[-1]
    assert sum(line.startswith("step 4/4  epoch") for line in lines) == 1 and state()["loggers"]["jaxnmt"] == before


class ClosedPipe(io.StringIO):
    """A stderr whose reader is gone after step 3."""

    def write(self, text):
        if "step 2/" in self.getvalue():
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_training_that_is_stopped_has_saved_and_raises_an_exception_of_its_own(experiment, folder, monkeypatch):
    monkeypatch.setattr(sys, "stderr", ClosedPipe())
    with pytest.raises(jaxnmt.Stopped) as stopped:
        jaxnmt.train(experiment, folder=folder / "stopped", progress=True)
    monkeypatch.undo()
    assert f"saved at step {jaxnmt.load(folder / 'stopped').checkpoints[-1]} of 8" in str(stopped.value)
    assert jaxnmt.train(experiment, folder=folder / "stopped").checkpoints == [6, 8]


# ---- mistakes


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda run: jaxnmt.load(run.folder / "nothing"), "nothing does not exist"),
        (lambda run: jaxnmt.load(run.folder.parent), f"is not a run.*{os.sep}run"),
        (lambda run: jaxnmt.load(run.folder, checkpoint=7), "no checkpoint 7; it has 6, 8"),
        (lambda run: jaxnmt.load(run.folder, checkpoint="newest"), "no checkpoint newest; it has 6, 8"),
        (lambda run: run.translate("a", beam_sise=2), "decoding.beam_sise; did you mean decoding.beam_size"),
        (lambda run: run.translate("a", beam_size=2.5), r"decoding\.beam_size.*2\.5"),
        (lambda run: [run.decoding({"beam_size": size}) for size in (2, 2.0)], r"decoding\.beam_size is 2\.0; it must be a whole number"),
        (lambda run: run.translate("a", beam_size=[2]), r"decoding\.beam_size is \(2,\); it must be a whole number"),
        (lambda run: run.translate("a", beam_size=10**9), r"decoding\.beam_size is 1000000000; it must be from 1 to 1000"),
        (lambda run: run.translate("a", n_best=9, beam_size=2), "decoding.n_best"),
        (lambda run: run.score(["a", "b"], ["a"]), "2 sources and 1 targets: give one target"),
        (lambda run: run.test_set(data=("nowhere.en", "nowhere.de")), "nowhere.en"),
        (lambda run: jaxnmt.load_config("quickstar"), "quickstart"),
        (lambda run: jaxnmt.train("transformer_smal"), "transformer_small"),
        (lambda run: jaxnmt.train("transformer_small", folder="x"), 'data=\\("a.en", "a.de"\\)'),
        (lambda run: jaxnmt.train("quickstart", folder="x", settings={"training.step": 1}), "training.step; did you mean training.steps"),
        (lambda run: jaxnmt.train("quickstart", folder="x", settings={"training.steps": "10"}), "training.steps.*'?10"),
        (lambda run: jaxnmt.train(run.config), "folder="),
        (lambda run: jaxnmt.train(run.config, folder=run.folder, settings={"training.seed": 9}), "training.seed: 1 → 9"),
    ],
)
def test_a_mistake_is_one_sentence(call, says, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(jaxnmt.UserError, match=says):
        call(run)
    assert list(tmp_path.iterdir()) == []


# ---- the notebook and the page


@pytest.mark.slow  # a minute; the cells' calls are those of this file's other tests
def test_every_cell_of_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXNMT_CACHE", str(tmp_path / "cache"))
    cells = json.loads((ROOT / "docs" / "python.ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(cells) == 10
    names: dict = {}
    for code in codes:
        exec(compile(code, "docs/python.ipynb", "exec"), names)
    assert isinstance(names["run"], jaxnmt.Run) and names["weights_TS"].ndim == 2 and names["scores"].sentences > 0


def test_the_page_names_every_public_name():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in jaxnmt.__all__ if not re.search(rf"\b{name}\b", page)] == []
