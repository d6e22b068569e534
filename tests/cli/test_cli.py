"""The command: what it says to mistakes, and that it says it before JAX is imported."""

import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import typing

import pytest
from evaluation.sacrebleu_command import corpora, sacrebleu

from jaxnmt import cli
from jaxnmt.cli import command
from jaxnmt.cli.verbs import runs
from jaxnmt.cli.words import divide, parse
from jaxnmt.config import Experiment, replace
from jaxnmt.config.fields import leaves, unannotated
from jaxnmt.config.files import shipped_configs
from jaxnmt.run import Run
from jaxnmt.runs import directory as run_directory

FIELDS = {name: unannotated(hint) for name, hint, _ in leaves(Experiment())}


def misspellings():
    """(flag as typed, flag as meant): transposed, dropped, doubled and wrong letters, at a place that wanders through the name."""
    for number, name in enumerate(FIELDS):
        place = name.rindex(".") + 1 + number % (len(name) - name.rindex(".") - 2)
        if number % 7 == 6:  # now and then it is the room that is misspelt
            place = 1
        a, b = name[place], name[place + 1]
        wrong = {0: b + a, 1: b, 2: a + a + b, 3: "x" + b}[number % 4]
        typed = name[:place] + wrong + name[place + 2 :]
        if typed not in FIELDS:
            yield f"--{typed.replace('_', '-')}", f"--{name.replace('_', '-')}"


def ill_typed():
    """(flag, words given, what is expected)."""
    for number, (name, hint) in enumerate(FIELDS.items()):
        flag = f"--{name.replace('_', '-')}"
        if typing.get_origin(hint) is typing.Literal:
            yield flag, [str(typing.get_args(hint)[0]) + "x"], ", ".join(typing.get_args(hint))
        elif hint is int:
            yield flag, [["many"], ["1.5"], [], ["3", "4"]][number % 4], "a whole number"
        elif hint is float:
            yield flag, [["high"], ["0,1"], []][number % 3], "a number"
        elif hint is bool:
            yield flag, ["maybe"], "True or False"


MISSPELT = list(misspellings())[:60]
ILL_TYPED = list(ill_typed())[:: max(1, len(list(ill_typed())) // 40)][:40]


def run_python(*words, code="import sys; from jaxnmt import cli; sys.exit(cli.main(sys.argv[1:]))", **options):
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, **options)


def error_of(capsys, *words):
    assert cli.main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_there_are_a_hundred_mistakes():
    assert len(set(MISSPELT)) == 60 and len(ILL_TYPED) == 40


@pytest.mark.parametrize(("typed", "meant"), MISSPELT)
def test_a_misspelt_setting_is_answered_with_the_right_name(typed, meant, capsys):
    message = error_of(capsys, "train", "quickstart", typed, "1")
    assert typed in message and re.search(rf"{re.escape(meant)}[ ?]", message)


@pytest.mark.parametrize(("flag", "words", "expected"), ILL_TYPED)
def test_an_ill_typed_value_is_answered_with_what_is_expected(flag, words, expected, capsys):
    message = error_of(capsys, "train", "quickstart", flag, *words)
    assert flag in message and expected in message and " ".join(words) in message


BEFORE_JAX = [
    *(["train", "quickstart", typed, "1"] for typed, _ in MISSPELT),
    *(["train", "quickstart", flag, *words] for flag, words, _ in ILL_TYPED),
    ["train", "quickstart", "--model.num-heads", "3"],
    ["train", "quikstart"],
    ["translate", "no/such/run"],
    ["score", "no/such/run", "a.en", "a.de"],
    ["score", "runs/x"],
]
ONE_BY_ONE = """
import json, sys
from jaxnmt import cli
for words in json.load(sys.stdin):
    status = cli.main(words)
    print(json.dumps([status, sorted({"jax", "numpy", "grain"} & set(sys.modules))]))
"""


def test_mistakes_are_answered_before_jax_is_imported():
    done = run_python(code=ONE_BY_ONE, input=json.dumps(BEFORE_JAX))
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(told) == len(BEFORE_JAX) > 100, done.stderr[-2000:]
    assert [(words, *found) for words, found in zip(BEFORE_JAX, told, strict=True) if found != [2, []]] == []
    answers = done.stderr.splitlines()
    assert len(answers) == len(BEFORE_JAX) and all(line.startswith("error: ") for line in answers)


@pytest.mark.slow
def test_a_hundred_mistakes_one_process_each(capsys):
    worst = 0.0
    for flag, words in [(typed, ["1"]) for typed, _ in MISSPELT] + [(flag, words) for flag, words, _ in ILL_TYPED]:
        start = time.perf_counter()
        done = run_python("train", "quickstart", flag, *words)
        worst = max(worst, time.perf_counter() - start)
        assert done.returncode == 2 and done.stderr.startswith("error: ")
    with capsys.disabled():
        print(f"\nthe slowest of 100 answers took {worst:.2f} s")


def test_help_lists_every_setting_with_its_default_and_meaning(capsys):
    assert cli.main(["train", "wmt14_base", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in text for name in FIELDS)
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())
    assert words.count("(default:") == len(FIELDS) + 3  # and --run, --profile, --explain-sharding
    assert "--model.emb-dim INT Width of embeddings and residual stream (the paper's d_model). (default: 512; above 0)" in words
    assert all(re.search(rf"--{name.replace('_', '-')} [^ ].*", words) for name in FIELDS)
    assert not re.search(r"(INT|FLOAT|STR|\}|\]) \(default:", words), "a setting has no meaning"


@pytest.mark.parametrize("verb", command.VERBS)
def test_each_verb_teaches_with_examples(verb, capsys):
    assert cli.main([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text and f"jaxnmt {verb}" in text


def test_the_overview_names_every_verb_and_config(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"jaxnmt {verb} " in text for verb in command.VERBS) and all(name in text for name in shipped_configs())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian", "quickstart"], "did you mean train?"),
        (["data", "chekc"], "did you mean data check?"),
        (["data"], "prepare or check"),
        (["train"], "missing argument CONFIG (usage: jaxnmt train CONFIG"),
        (["train", "quickstart", "more"], "unexpected argument more (usage: jaxnmt train CONFIG"),
        (["train", "quickstart", "--model.dropout", "0.1", "--model.dropout", "0.2"], "twice"),
        (["train", "quickstart", "--emb-dim", "8"], "--model.emb-dim"),
        (["train", "transformer_small"], "--data.train"),
        (["runs", "show", "nowhere"], "nowhere does not exist"),
        (["runs", "average", "nowhere"], "nowhere does not exist"),
    ],
)
def test_other_mistakes_are_answered_too(words, says, capsys):
    assert says in error_of(capsys, *words)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--model.num-encoder-layers", "4"], {"model.num_encoder_layers": 4}),
        (["--model.num_encoder_layers=4"], {"model.num_encoder_layers": 4}),
        (["--data.train", "a.en", "a.de@2"], {"data.train": ("a.en", "a.de@2")}),
        (["--data.validation"], {"data.validation": ()}),
        (["--tokenizer.joint", "false"], {"tokenizer.joint": False}),
        (["--mesh.data", "-1", "--training.seed", "7"], {"mesh.data": -1, "training.seed": 7}),
        (["--tokenizer.joiner", "-"], {"tokenizer.joiner": "-"}),
        (["--schedule.learning-rate", "1e-4"], {"schedule.learning_rate": 1e-4}),
    ],
)
def test_settings_change_their_fields_and_no_others(words, changed):
    assert parse(divide(words, Experiment(), 0)[1], Experiment(), "help") == replace(Experiment(), **changed)


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """A run, and in place of the training loop a list of what it is called with."""
    calls = []
    loop = types.ModuleType("jaxnmt.training.loop")
    loop.train = lambda experiment, run, *_: calls.append((experiment, run))
    validation = types.ModuleType("jaxnmt.evaluation.validation")
    validation.ValidationTranslator = object
    monkeypatch.setitem(sys.modules, "jaxnmt.training.loop", loop)
    monkeypatch.setattr("jaxnmt.training.loop", loop, raising=False)  # another test may have imported the real one
    monkeypatch.setitem(sys.modules, "jaxnmt.evaluation.validation", validation)
    monkeypatch.chdir(tmp_path)
    return calls


def test_train_then_the_same_then_resume(trained, tmp_path, capsys):
    assert cli.main(["train", "quickstart"]) == 0
    assert cli.main(["train", "quickstart"]) == 0
    assert cli.main(["resume", "runs/quickstart", "--training.steps", "5000"]) == 0
    assert capsys.readouterr().err.count("starting the run runs/quickstart") == 3
    assert [str(run) for _, run in trained] == ["runs/quickstart"] * 3
    assert trained[0] == trained[1] and trained[2][0].training.steps == 5000
    assert run_directory.read("runs/quickstart").training.steps == 5000
    (tmp_path / "runs/quickstart/checkpoints/50").mkdir(parents=True)
    assert cli.main(["train", "quickstart", "--training.seed", "9", "--training.steps", "5000"]) == 2
    assert "training.seed: 1 → 9" in capsys.readouterr().err and len(trained) == 3
    assert cli.main(["resume", "runs/quickstart"]) == 0
    assert "resuming the run runs/quickstart" in capsys.readouterr().err


def test_it_is_said_where_training_begins_and_which_save_was_not_finished(trained, tmp_path, capsys):
    def said():
        assert cli.main(["train", "quickstart"]) == 0
        return capsys.readouterr().err.splitlines()[0]

    checkpoints = tmp_path / "runs/quickstart/checkpoints"
    assert said() == "starting the run runs/quickstart"
    assert said() == "starting the run runs/quickstart from the beginning: it has no complete checkpoint"
    (checkpoints / "50.orbax-checkpoint-tmp-7").mkdir(parents=True)
    nothing = "starting the run runs/quickstart from the beginning: it has no complete checkpoint"
    assert said() == f"{nothing}; the save of step 50 was not finished"
    (checkpoints / "1050").mkdir()
    assert said() == "resuming the run runs/quickstart from checkpoint 1,050"  # an older save that was not finished is no loss
    (checkpoints / "1100.orbax-checkpoint-tmp").mkdir()
    assert said() == "resuming the run runs/quickstart from checkpoint 1,050; the save of step 1,100 was not finished"


def test_a_run_that_another_process_trains_is_refused_until_that_one_has_ended(trained, capsys):
    code = "with run_directory.locked(pathlib.Path(sys.argv[1]), print): print('held', flush=True), input()"
    command = [sys.executable, "-c", f"import pathlib, sys; from jaxnmt.runs import directory as run_directory\n{code}", "runs/quickstart"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for words in (["train", "quickstart"], ["data", "prepare", "quickstart"]):
            assert cli.main(words) == 2
            told = capsys.readouterr().err
            assert told.count("\n") == 1 and "another process is training runs/quickstart" in told
        assert not trained and not pathlib.Path("runs/quickstart/config.json").exists()
        other.kill()  # kill -9
    assert cli.main(["train", "quickstart"]) == 0 and cli.main(["resume", "runs/quickstart"]) == 0 and len(trained) == 2


def test_a_folder_that_holds_something_else_gets_no_lock(trained, tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    assert cli.main(["train", "quickstart", "--run", "letters"]) == 2
    assert "neither empty nor a run" in capsys.readouterr().err and len(list((tmp_path / "letters").iterdir())) == 1


@pytest.mark.parametrize(
    "verb", [["train", "quickstart", "--run"], ["data", "prepare", "quickstart", "--run"], ["resume"], ["runs", "show"]]
)
def test_a_folder_that_is_not_named_in_utf_8_is_refused_before_anything_is_made(verb, trained, tmp_path, monkeypatch, capfdbinary):
    assert cli.main([*verb, os.fsdecode(b"caf\xe9")]) == 2
    assert cli.main(["ablate", "heads", "--folder", os.fsdecode(b"caf\xe9")]) == 2
    told = capfdbinary.readouterr().err.decode().splitlines()
    assert len(told) == 2 and all(line.startswith(r"error: the word b'caf\xe9' of the command is not UTF-8") for line in told)
    assert list(tmp_path.iterdir()) == [] and not trained
    os.mkdir(os.fsdecode(b"caf\xe9"))
    monkeypatch.chdir(os.fsdecode(b"caf\xe9"))
    assert cli.main([*verb, "run"]) == 2
    assert re.search(rb"error: the folder b'.*caf.xe9/run' is not named in UTF-8, .*: choose another", capfdbinary.readouterr().err)


def test_ctrl_c_ends_with_one_line_that_says_how_to_go_on(trained, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["jaxnmt.training.loop"], "train", interrupted)
    assert cli.main(["train", "quickstart"]) == 130
    assert "jaxnmt resume runs/quickstart" in capsys.readouterr().err.splitlines()[-1]


class Shouting:
    """A translator that shouts, and knows a second best."""

    asked: typing.ClassVar[list[int]] = []

    def translate(self, lines, decoding, first=1, rules=()):
        self.asked.append(first)
        return [[types.SimpleNamespace(text=t, score=-i) for i, t in enumerate((x.upper(), x))][: decoding.n_best] for x in lines]


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(Run, "translator", Shouting())
    experiment = replace(Experiment(), **{"decoding.batch_size": 1, "data.test": (f"{tmp_path}/t.en", f"{tmp_path}/t.de")})
    run_directory.start(tmp_path / "run", experiment)
    return str(tmp_path / "run")


def test_lines_stay_lines_in_their_order(run, tmp_path):
    lines = [f"line {i}" for i in range(40)] + ["", "a\u2028b", "last"]
    (tmp_path / "in.txt").write_bytes("\n".join(lines).encode())  # no line end after the last
    assert cli.main(["translate", run, "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.txt")]) == 0
    out = (tmp_path / "out.txt").read_bytes().decode().split("\n")
    assert out == [f"LINE {i}" for i in range(40)] + ["", "A B", "LAST", ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt", "run"]


def test_n_best_gives_number_score_and_text(run, tmp_path, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\nb\n".encode())))
    assert cli.main(["translate", run, "--n-best", "2"]) == 0
    assert capfdbinary.readouterr().out.decode() == "1\t0.0000\tÉ\n1\t-1.0000\té\n2\t0.0000\tB\n2\t-1.0000\tb\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "1", "--constraints", "a"], "constraints and terminology need a search"),
        (["--sibling-penalty", "1", "--terminology", "a.tsv"], "constraints and terminology fill the beam by one rule"),
        (["--max-input", "9", "--ensemble", "RUN"], "--max-input is for one run"),
        (["--format", "html", "--alignments", "hard"], "--alignments hard is for text without markup"),
    ],
)
def test_options_that_do_not_go_together(run, capsys, words, message):
    assert cli.main(["translate", run, *[run if word == "RUN" else word for word in words]]) == 2
    assert message in capsys.readouterr().err


def test_sentences_are_counted_from_window_to_window(run, tmp_path, capfdbinary):
    (tmp_path / "in.txt").write_text("a\n" * 40)  # windows of 16
    Shouting.asked.clear()
    assert cli.main(["translate", run, "--input", str(tmp_path / "in.txt"), "--n-best", "2"]) == 0
    told = [int(line.split(b"\t")[0]) for line in capfdbinary.readouterr().out.splitlines()]
    assert told == [n for n in range(1, 41) for _ in range(2)] and Shouting.asked == [1, 17, 33]


def test_a_disk_without_room_is_told_in_a_sentence(run, text_to_score, capsys):
    assert cli.main(["evaluate", run, "--output", "/dev/full"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("cannot be written: No space left on device")


def test_evaluate_sees_that_its_output_cannot_be_written_before_it_translates(run, text_to_score, tmp_path, capsys):
    assert cli.main(["evaluate", run, "--output", str(tmp_path / "missing" / "out")]) == 2
    assert "cannot be written" in (said := capsys.readouterr().err) and "translating" not in said


@pytest.fixture
def text_to_score(tmp_path):
    (tmp_path / "t.en").write_text("one two three four\nfive\n")
    (tmp_path / "t.de").write_text("ONE TWO THREE FOUR\nFIVE\n")


def test_evaluate_prints_scores_with_signatures_and_json(run, text_to_score, capsys):
    assert cli.main(["evaluate", run]) == 0
    out = capsys.readouterr().out
    assert "BLEU    100.00" in out and "chrF++" in out and "TER       0.00" in out and "tok:13a" in out
    assert cli.main(["evaluate", run, "--json", "true", "--samples", "1"]) == 0
    assert '"value": 100' in capsys.readouterr().out


def test_evaluate_with_several_references_gives_sacrebleus_digits(run, tmp_path, capsys):
    reference, (source, second, third) = corpora()
    for name, lines in {"t.en": source, "t.de": reference, "second.de": second, "third.de": third}.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    others = ["--references", str(tmp_path / "second.de"), str(tmp_path / "third.de")]
    words = ["evaluate", run, "--output", str(tmp_path / "out.txt"), "--samples", "1", *others]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.count("\nreference ") == 3
    assert cli.main([*words[:4], *others, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    made = (tmp_path / "out.txt").read_text().splitlines()
    _, out = sacrebleu(tmp_path, reference, [made, source], "-cw", "2", others=(second, third))  # of one system it prints no table
    row = next(line for line in out.splitlines() if "0.txt" in line)
    assert [f"{metric['value']:.12f}" for metric in found] == [cell.strip() for cell in row.rstrip("\\ ").split("&")[1:]]
    assert all("nrefs:3" in metric["signature"] and metric["signature"] in out for metric in found)


def test_evaluate_is_told_the_tokenizer_and_the_language(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    (tmp_path / "t.en").write_text("一个男人\n")
    (tmp_path / "t.de").write_text("一个男人\n")
    for flags, parts in {
        (): ["tok:zh", "labelled de: BLEU's tokenizer is zh, by the script"],
        ("--target-language", "zh"): ["tok:zh", "Han script has no spaces"],
        ("--tokenize", "char"): ["tok:char"],
    }.items():
        assert cli.main(["evaluate", run, *flags]) == 0
        out = capsys.readouterr().out
        assert all(part in out for part in parts) and ("labelled" in out) is (not flags)
    assert cli.main(["evaluate", run, "--tokenize", "flores200"]) == 2
    assert "--tokenize flores200 needs the file" in (said := capsys.readouterr().err) and "translating" not in said


def test_closed_streams_are_empty_ones():
    command = f"{sys.executable} -m jaxnmt"
    assert subprocess.run(f"{command} --version <&- >&- 2>&-", shell=True).returncode == 0
    translated = subprocess.run(f"{command} data check <&- 2>&1 >&-", shell=True, capture_output=True, text=True)
    assert translated.returncode == 2 and translated.stdout.startswith("error: missing argument SOURCE|CONFIG")


def test_a_sentence_may_begin_with_a_dash(run, capsys):
    assert cli.main(["visualize", "nowhere", "- Yes."]) == 2
    assert capsys.readouterr().err == "error: nowhere does not exist\n"


def test_a_second_signal_does_not_change_the_status_of_what_was_saved():
    code = """import os, signal, sys
from jaxnmt.cli import command as cli
def leave(words): sys.exit(85)
cli._dispatch = leave
cli._discard_output = lambda: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(cli.main())"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 85


def test_the_first_process_of_a_container_ends_at_sigterm():
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-fpr", "true"], capture_output=True).returncode:
        pytest.skip("no process numbers of our own here (unshare)")
    code = "import sys, time; from jaxnmt.cli import command; command._as_a_process(); print('ready', flush=True); time.sleep(60)"
    outer = subprocess.Popen([unshare, "-fpr", sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert outer.stdout and outer.stdout.readline() == "ready\n"
    (first,) = pathlib.Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    assert outer.wait(20) == 128 + signal.SIGTERM


def test_a_closed_pipe_is_no_traceback(run):
    code = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); from jaxnmt import cli; sys.exit(cli.main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_runs_show_tells_progress_and_best_of_one_run_and_of_all(run, tmp_path, capsys):
    records = [
        '{"kind": "train", "step": 50, "loss": 4.5}',
        '{"kind": "validation", "step": 100, "loss": 3.5, "bleu": 21.5, "best": true}',
        '{"kind": "validation", "step": 200, "loss": 3.6, "bleu": 20.5, "best": false}',
        '{"kind": "train", "st',
    ]
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(records))
    (tmp_path / "run" / "checkpoints" / "200").mkdir(parents=True)
    line = "step 200 of 10,000, loss 4.5, best validation at step 100: bleu 21.5, loss 3.5"
    assert cli.main(["runs", "show", run]) == 0
    out = capsys.readouterr().out
    assert (
        f"{run}: Transformer, {line}" in out and "checkpoints: 200" in out and "step 200: bleu 20.5" in out and "decoding.batch_size" in out
    )
    assert cli.main(["runs", "show", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"run  {line}\n"
    (tmp_path / "run" / "metrics.jsonl").write_text('{"kind": "train", "step": 50, "loss": null}\n')
    assert cli.main(["runs", "show", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "run  step 200 of 10,000, loss NaN\n"


@pytest.mark.parametrize("word", ["quickstart", "transformer-small", "mine.py"])
def test_data_check_takes_configs(word):
    assert not runs.is_text(word)


@pytest.mark.parametrize("word", ["a.en", "pairs.tsv.gz", "a.en,a.de", "phrases/en-fr:train", "wmt14_translate/de-en"])
def test_data_check_takes_text(word):
    assert runs.is_text(word)


def test_data_check_refuses_what_training_refuses(tmp_path, capsys):
    (tmp_path / "p.tsv").write_text("a\tb\n")
    assert cli.main(["data", "check", str(tmp_path / "p.tsv"), "--data.cleaning.max-ratio", "-1"]) == 2
    captured = capsys.readouterr()
    assert "--data.cleaning.max-ratio is -1" in captured.err and captured.out == ""
    assert cli.main(["data", "check", str(tmp_path / "p.tsv")]) == 0
