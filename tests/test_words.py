"""A command's words: names and settings in any order, help, examples, `~`, `-`, and words that are not UTF-8."""

import functools
import itertools
import os
import re
import shlex
import subprocess
import sys

import mine
import pytest

from jaxnmt import cli
from jaxnmt.cli import command
from jaxnmt.config import Experiment
from jaxnmt.config.files import shipped_configs, shipped_studies
from jaxnmt.runs import directory as run_directory

GROUPS = ("data", "launch", "probe", "runs")


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """An empty folder, in which every name of a run is one with the default settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_directory, "read", lambda run: Experiment())
    monkeypatch.setattr(run_directory, "is_run", lambda name: name.startswith("runs/"))
    return tmp_path


def parsed(words):
    """The function that a command calls, its names and its options."""
    call = command._call(list(words))
    assert isinstance(call, functools.partial)
    return call.func, call.args


COMMANDS = [  # a verb, its names, its settings
    (["evaluate"], ["runs/x"], [["--beam-size", "4"], ["--json"]]),
    (["evaluate"], ["runs/x"], [["--json", "True"], ["--samples=3"]]),
    (["translate"], ["runs/x"], [["--alignments", "hard"], ["--checkpoint", "200"]]),
    (["train"], ["quickstart"], [["--tokenizer.joint"], ["--training.steps", "5000"]]),
    (["train"], ["lstm_luong"], [["--model.hidden-dim", "8"], ["--explain-sharding"]]),
    (["visualize"], ["runs/x", "- Yes."], [["--open"], ["--json", "x.json"]]),
    (["compare"], ["a.de", "b.de", "c.de"], [["--html", "x.html"], ["--pretokenized"]]),
    (["data", "check"], ["a.en", "a.de"], [["--data.cleaning.max-ratio", "4"]]),
    (["launch", "local"], [], [["--processes", "3"]]),
]


def interleaved(names, settings):
    """Every order of names (which keep theirs) and settings."""
    for order in set(itertools.permutations([None] * len(names) + list(range(len(settings))))):
        left = iter(names)
        yield [word for place in order for word in ([next(left)] if place is None else settings[place])]


@pytest.mark.parametrize(("verb", "names", "settings"), COMMANDS)
def test_names_and_settings_may_stand_in_any_order(verb, names, settings):
    end = ["--", "train", "quickstart"] if verb[0] == "launch" else []
    expected = parsed([*verb, *names, *sum(settings, []), *end])
    orders = list(interleaved(names, settings))
    assert all(parsed([*verb, *words, *end]) == expected for words in orders) and len(orders) >= 1


def test_settings_of_a_model_of_ones_own_may_stand_before_it(here):
    name = str(mine.write(here))
    assert parsed(["train", "--model.width", "8", name]) == parsed(["train", name, "--model.width", "8"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate"], "missing argument RUN (usage: jaxnmt evaluate RUN [settings])"),
        (["evaluate", "--beam-size", "4"], "missing argument RUN (usage: jaxnmt evaluate RUN [settings])"),
        (["evaluate", "--data", "a", "b", "runs/x"], "missing argument RUN (usage: jaxnmt evaluate RUN [settings]); --data takes all"),
        (
            ["visualize", "runs/x", "Hello", "world"],
            'unexpected argument world (usage: jaxnmt visualize RUN "SENTENCE|PICTURE" [settings])',
        ),
        (["train", "quickstart", "--training.steps", "1", "000"], "--training.steps expects a whole number, not 1 000"),
        (["train", "--beam-size", "4", "quickstart"], "unknown setting --beam-size; did you mean --validation.beam-size or --decoding"),
    ],
)
def test_too_few_or_too_many_words_are_named(words, says, capsys):
    assert cli.main(words) == 2
    assert f"error: {says}" in capsys.readouterr().err


# ---- help


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("words", [*GROUPS, *command.VERBS])
def test_every_verb_and_every_group_has_help(words, flag, capsys):
    assert cli.main([*words.split(), flag]) == 0
    out, err = capsys.readouterr()
    assert f"usage: jaxnmt {words} " in out and err == ""
    if words in GROUPS:
        verbs = {verb for verb in command.VERBS if verb.startswith(f"{words} ")}
        assert verbs and all(re.search(rf"^  jaxnmt {verb} ", out, re.MULTILINE) for verb in verbs)


def test_help_of_a_config_shows_its_values_wherever_it_stands(capsys):
    texts = []
    for words in (["lstm_luong", "--help"], ["--help", "lstm_luong"], ["--training.steps", "7", "--help", "lstm_luong"]):
        assert cli.main(["train", *words]) == 0
        texts.append(capsys.readouterr().out)
    assert "--model.hidden-dim" in texts[0] and texts[0] == texts[1] == texts[2]


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "jaxnmt", "probe", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: jaxnmt probe VERB" in done.stdout and done.stderr == ""


def examples():
    """The commands of all help texts, without what a shell does with them; tests/test_docs.py has those of the pages."""
    texts = [command.__doc__ or "", *(verb.function.__doc__ or "" for verb in command.VERBS.values())]
    lines = [line for text in texts for line in text.partition("Examples:")[2].splitlines()]
    for line in filter(str.strip, lines):
        words = shlex.split(line.rpartition("|")[2].partition(" < ")[0], comments=True)
        assert "jaxnmt" in words, line
        yield words[words.index("jaxnmt") + 1 :]


EXAMPLES = list(examples())


@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_the_examples_of_help_are_commands(words, here):
    mine.write(here).rename(here / "my_model.py")
    if "my_model.py" in words:
        words = [word for word in words if not re.match(r"--model\.emb-dim|64$", word)]  # this one has no such setting
    _, (*given, _) = parsed(words)
    if command.VERBS[command._verb_and_rest(words)[0]].usage in ("CONFIG", "STUDY"):
        names = {name for each in given for name in ([each] if isinstance(each, str) else each)}
        assert names <= {*shipped_configs(), *shipped_studies(), "my_model.py", "my_study.py"}


def test_there_is_an_example_of_every_verb():
    assert {command._verb_and_rest(words)[0] for words in EXAMPLES} == set(command.VERBS)


# ---- ~, - and bytes


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("--run=~/x", "--run={home}/x"),
        ("~/x", "{home}/x"),
        ("~", "~"),
        ("--tokenizer.joiner=~", "--tokenizer.joiner=~"),
        ("about ~/x", "about ~/x"),
        ("--a=b~/x", "--a=b~/x"),
    ],
)
def test_a_tilde_that_the_shell_has_left_is_the_home_folder(word, becomes, monkeypatch, here):
    monkeypatch.setenv("HOME", str(here))
    assert command._readable([word, "--", word]) == [becomes.format(home=here), "--", word]


def test_runs_and_outputs_may_lie_below_a_tilde(monkeypatch, here, capsys):
    monkeypatch.setenv("HOME", str(here))
    (here / "a.en").write_text("a\n")
    assert cli.main(["compare", "a.en", "a.en", "--html=~/missing/x.html"]) == 2
    assert capsys.readouterr().err == f"error: --html {here}/missing/x.html cannot be written: there is no folder {here}/missing\n"
    assert cli.main(["runs", "show", "~/nowhere"]) == 2
    assert capsys.readouterr().err == f"error: {here}/nowhere does not exist\n" and list(here.iterdir()) == [here / "a.en"]


def no_home(monkeypatch):
    """As for a user whom /etc/passwd does not know, without $HOME."""
    import pwd

    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize(
    "words",
    [
        ["visualize", "runs/x", "caf\udce9"],
        ["probe", "gates", "runs/x", "caf\udce9"],
        ["probe", "embeddings", "runs/x", "--words", "caf\udce9"],
        ["translate", "runs/x", "--input", "caf\udce9"],
        ["evaluate", "runs/x", "--output", "caf\udce9"],
        ["train", "caf\udce9"],
        ["caf\udce9"],
        ["launch", "local", "--", "train", "caf\udce9"],
    ],
)
def test_words_that_are_not_utf_8_are_refused_in_a_sentence(words, capfdbinary, here):
    assert cli.main(words) == 2
    out, err = capfdbinary.readouterr()
    assert out == b"" and err == b"error: the word b'caf\\xe9' of the command is not UTF-8: write it in UTF-8, or rename the file\n"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "runs/x", "--output", "-"],
        ["visualize", "runs/x", "a", "--output", "-"],
        ["visualize", "runs/x", "a", "--json", "-"],
        ["compare", "a", "b", "--json", "-"],
        ["compare", "a", "b", "--html", "-"],
        ["plan", "quickstart", "--on", "cpu:1", "--json", "-"],
        ["bench", "quickstart", "--json", "-"],
    ],
)
def test_no_file_is_named_minus_where_stdout_has_the_results(words, here, capsys):
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err == f"error: {words[-2]} -: stdout has this verb's results; name a file\n" and not os.path.exists("-")
