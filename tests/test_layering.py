"""Imports run downwards, and `data, runs → config`.

`cli → lab, interop → training_run, ensemble_run → run → evaluation → decoding → training → models → parallel → config → io`
"""

import ast
import pathlib
import re
import sys

import pytest

import jaxnmt

ROOT = pathlib.Path(jaxnmt.__file__).parent
# What each package may import, itself aside.
BELOW: dict[str, set[str]] = {"errors": set(), "io": {"errors"}}
BELOW["config"] = BELOW["io"] | {"io"}
BELOW["parallel"] = BELOW["runs"] = BELOW["data"] = BELOW["config"] | {"config"}
BELOW["models"] = BELOW["parallel"] | {"parallel"}
BELOW["training"] = BELOW["models"] | {"models", "data", "runs"}
BELOW["decoding"] = BELOW["training"] | {"training"}  # to read checkpoints; training never imports decoding
BELOW["evaluation"] = BELOW["decoding"] | {"decoding"}
BELOW["decoding_run"] = BELOW["evaluation"] | {"evaluation"}
BELOW["run"] = BELOW["decoding_run"] | {"decoding_run"}  # the Python interface
BELOW["ensemble_run"] = BELOW["training_run"] = BELOW["run"] | {"run"}
BELOW["lab"] = BELOW["interop"] = BELOW["training_run"] | {"training_run", "ensemble_run"}
BELOW["cli"] = BELOW["lab"] | {"lab", "interop"}


def package_of(module: str) -> str | None:
    """Return `models` for `jaxnmt.models.layers`; None for what is not ours, and for `jaxnmt` itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "jaxnmt" and len(parts) > 1 else None


def imports(path: pathlib.Path) -> list[tuple[int, str]]:
    """(line, module) of every import of a file, those inside functions too."""
    found = []
    package = ("jaxnmt", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])]) if node.level else node.module
            found += [(node.lineno, base)] if base != "jaxnmt" else [(node.lineno, f"jaxnmt.{alias.name}") for alias in node.names]
    return found


def violations(path: pathlib.Path, of: str) -> list[str]:
    wrong = []
    for line, module in imports(path):
        to = package_of(module)
        if to and to in BELOW and to != of and to not in BELOW[of]:
            wrong.append(f"{path.name}:{line}: {of} imports {module}")
    return wrong


TOP = ("__init__.py", "__main__.py")
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).as_posix() not in TOP and "_configs" not in path.parts]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    of = package_of(".".join(("jaxnmt", *path.relative_to(ROOT).with_suffix("").parts)))
    assert of in BELOW, f"{path} is in no package that BELOW knows"
    assert violations(path, of) == []


@pytest.mark.parametrize("path", sorted((ROOT / "data").rglob("*.py")), ids=lambda path: path.name)
def test_data_is_free_of_jax(path):
    banned = {"jax", "flax", "optax", "orbax"}
    assert [module for _, module in imports(path) if module.split(".")[0] in banned] == []


@pytest.mark.parametrize("path", [path for path in FILES if path.parent in (ROOT / "lab", ROOT / "lab/ablations", ROOT / "lab/probes")])
def test_the_laboratory_imports_public_names_from_the_package(path):
    """It says `from jaxnmt import Run`, wherever `Run` is defined."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    found = {(node.module, alias.name) for node in nodes for alias in node.names if (node.module or "").startswith("jaxnmt.")}
    found -= {("jaxnmt.data.tokenizer", "Tokenizer"), ("jaxnmt.data.phrases.grammar", "Language")}  # the public ones are the config's
    assert {name for _, name in found}.isdisjoint(jaxnmt.__all__)


def private_names(path):
    """What a module uses of others though its name begins with `_`; a named tuple's methods do, too, and are public."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if re.match("_[^_]", alias.name))
        elif isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            if ast.unparse(node.value) not in ("self", "cls") and node.attr not in ("_fields", "_replace", "_asdict"):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", sorted((ROOT / "lab").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT / "lab")))
def test_the_laboratory_uses_nothing_private_of_the_trainer(path):
    assert list(private_names(path)) == []


def test_what_is_private_is_found(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("from jaxnmt.run import _words, Run\nrun = Run('x')\nrun._found\nself._own\nrun.pair._replace(a=1)\n")
    assert list(private_names(path)) == ["_words", "run._found"]


def test_a_violation_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "bad.py"
    path.write_text("def f():\n    from ..training import loop\n    from jaxnmt import cli\n    import jaxnmt.config\n")
    assert violations(path, "models") == ["bad.py:2: models imports jaxnmt.training", "bad.py:3: models imports jaxnmt.cli"]
