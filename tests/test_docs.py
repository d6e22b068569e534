"""README and docs: every link, command, setting, file and Python block in them works. `make docs` checks the site itself."""

import contextlib
import io
import re
import sys
import types

import mine
import pages
import pytest

from jaxnmt import cli
from jaxnmt.cli import command
from jaxnmt.cli.verbs import VERBS
from jaxnmt.config import Experiment
from jaxnmt.config import checks as config_checks
from jaxnmt.config.files import load_config
from jaxnmt.lab.ablations.study import Study
from jaxnmt.runs import directory as run_directory

OTHER_PROGRAMS = {"--paired-bs", "--paired-ar", "--quantize", "--kill-on-bad-exit", "--xla_cpu_experimental_ynn_fusion_type"}
NOT_RUN = "<!-- not run"  # before a Python block: why a test only compiles it


def each_page(function):
    return pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)(function)


@each_page
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in pages.links(pages.read(page)):
        if link.startswith("https://") or link.startswith("http://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link}: no such file"
        assert not anchor or anchor in pages.anchors(pages.read(target)), f"{link}: no such heading"


def test_every_page_has_one_place_in_the_navigation():
    nav = re.search(r"^nav:.*?(?=^\S)", pages.read(pages.ROOT / "mkdocs.yml"), re.M | re.S)[0]
    assert sorted(re.findall(r": (\S+\.md)$", nav, re.M)) == sorted(path.name for path in pages.DOCS.glob("*.md"))


@each_page
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z]+):", pages.read(pages.ROOT / "Makefile"), re.M))
    text = pages.read(page)
    lines = pages.code(text) + [line for _, block in pages.blocks(text) for line in block.splitlines()]
    assert {found[1] for line in lines if (found := re.match(r"make ([a-z]+)", line))} <= targets


# ---- commands

COMMANDS = {(pages.name(page), *words): page for page in pages.PAGES for words in pages.commands(pages.read(page))}


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_every_command_is_one(line, monkeypatch, tmp_path):
    page, words = COMMANDS[line], list(line[1:])
    if words in [verb.split() for verb in [*VERBS, "launch", "probe"]]:
        return  # a verb that is named, not called
    monkeypatch.chdir(tmp_path)
    own = [block for _, block in pages.blocks(pages.read(page)) if "\ndef config()" in block]
    for name in {word for word in [*words, "own.py"] if word.endswith(".py")}:
        (tmp_path / name).write_text(own[0] if own else pages.read(mine.write(tmp_path)), encoding="utf-8")
    experiment = load_config("own.py") if own else Experiment()
    monkeypatch.setattr(run_directory, "read", lambda run: experiment)  # every name of a run is one of this experiment
    monkeypatch.setattr(run_directory, "is_run", lambda name: name.lower().startswith("run"))
    assert callable(command._call(words))  # it raises UserError for a mistake


@pytest.fixture(scope="module")
def known():
    """Return all help texts, in which every flag and every setting stands."""
    texts = io.StringIO()
    with contextlib.redirect_stdout(texts):
        configs = ("quickstart", "lstm_luong", "topics", "scenes")
        for words in [*(verb.split() for verb in VERBS), *(["train", name] for name in configs)]:
            assert cli.main([*words, "--help"]) == 0
    return {word.replace("_", "-") for word in re.findall(r"--[\w.-]+", texts.getvalue())}


@each_page
def test_every_setting_exists(page, known):
    groups, verbs = "|".join(Experiment.__dataclass_fields__), {verb.split()[0] for verb in VERBS}
    for code in pages.code(pages.read(page)):
        named = re.match(rf"((?:{groups})\.(?!json\b|py\b|safetensors\b)[a-z_.]+)(?= |$)", code)
        if named and (pages.ROOT / "jaxnmt" / f"{named[1].replace('.', '/')}.py").is_file():
            continue  # a module
        ours = code.startswith("--") or code.split()[0] in verbs
        for flag in [f"--{named[1]}"] if named else re.findall(r"(?<![^ ])--[\w.-]+", code) if ours else []:
            assert flag.replace("_", "-") in known or flag in OTHER_PROGRAMS, f"`{code}`: no verb has {flag}"


@each_page
def test_every_file_of_the_project_exists(page):
    text = pages.read(page)
    words = " ".join([*pages.code(text), *(block for _, block in pages.blocks(text))]).split()
    for word in words:
        path = re.match(r"(?:jaxnmt|configs|tests|benchmarks|launch|docs)/[\w/.*-]+\.\w+", word)
        assert not path or list(pages.ROOT.glob(path[0])), f"{word}: no such file"


def test_the_layout_names_files_that_exist():
    (_, layout), *_ = pages.blocks(pages.read(pages.DOCS / "design.md"))
    names = set(re.findall(r"\b\w+\.py\b", layout))
    assert names and names <= {path.name for path in (pages.ROOT / "jaxnmt").rglob("*.py")}


# ---- Python


@pytest.mark.parametrize("page", [page for page in pages.PAGES if "```python" in pages.read(page)], ids=pages.name)
def test_python_blocks_run(page, monkeypatch):
    """All blocks of a page run in one namespace, as in a notebook; a study's and a config's functions are called."""
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
    for before, block in re.findall(r"^([^\n]*)\n*^```python\n(.*?)^```$", pages.read(page), re.M | re.S):
        program = compile(block, page.name, "exec")
        if not before.startswith(NOT_RUN):
            exec(program, module.__dict__)
    if hasattr(module, "config"):
        config_checks.validate(module.config())
    if hasattr(module, "study"):
        assert isinstance(module.study(), Study)
