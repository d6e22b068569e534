"""Programs that are kept on disk find what traced ones find, to the bit, and are used only for what they were traced from."""

import concurrent.futures
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt.config.files import load_config, save_config
from jaxnmt.decoding import programs
from jaxnmt.decoding.kept_programs import KeptFunction
from jaxnmt.decoding.programs import StagedSearch
from jaxnmt.decoding.sampling import Sampling
from jaxnmt.decoding.search import SearchOptions
from jaxnmt.lab.laws.subject import TARGET_VOCAB
from jaxnmt.models.deferred import DeferredModel
from jaxnmt.parallel import kept
from jaxnmt.run import Run
from jaxnmt.training.saved import kept_shapes

ROWS, LIMIT = 16, 13
IDENTITY = ("a model",)
OPTIONS = {
    "beam": SearchOptions(3, LIMIT, 1.0),
    "greedy": SearchOptions(1, LIMIT, 0.0, length_normalization="length"),
    "penalties": SearchOptions(2, LIMIT, 0.6, patience=1.0, coverage_penalty=0.2, sibling_penalty=0.1),
    "samples": SearchOptions(2, LIMIT, sampling=Sampling(7, 1.0)),
}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where entries are kept during the test."""
    monkeypatch.setattr(kept, "_folder", tmp_path / "traced")
    monkeypatch.setattr(programs, "FEWEST_SENTENCES", 4)  # so that the second program is used
    return tmp_path / "traced"


def unusable():
    raise AssertionError("the model is used")


def problem(rung):
    model = tiny.model_of({**tiny.VARIANTS, **tiny.RECURRENT}[rung], TARGET_VOCAB)
    random = np.random.default_rng(0)
    limits = random.permutation(np.resize(np.arange(1, LIMIT + 1), ROWS)).astype(np.int32)
    return model, tiny.params_of(model, 3), {"encoder_input_tokens": random.integers(3, 9, (ROWS, 3), np.int32)}, limits


@pytest.mark.parametrize(
    ("rung", "kind"),
    [
        ("pre", "samples"),
        ("luong", "beam"),
        *(pytest.param("pre", kind, marks=pytest.mark.slow) for kind in OPTIONS if kind != "samples"),
        *(pytest.param(rung, "beam", marks=pytest.mark.slow) for rung in ("rotary", "gnmt")),
    ],
)
def test_kept_programs_find_what_traced_ones_find(folder, rung, kind):
    model, params, batch, limits = problem(rung)
    expected = StagedSearch(model)(OPTIONS[kind], params, batch, limits)
    traced_now = StagedSearch(model, IDENTITY)(OPTIONS[kind], params, batch, limits)
    entries = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(entries) == 3
    read = StagedSearch(DeferredModel(unusable), IDENTITY)(OPTIONS[kind], params, batch, limits)
    tiny.assert_same(traced_now, expected)
    tiny.assert_same(read, expected)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == entries


def test_numbers_are_arguments_and_other_models_shapes_and_kinds_of_search_have_programs_of_their_own(folder):
    model, params, batch, limits = problem("pre")
    StagedSearch(model, IDENTITY).warm(OPTIONS["beam"], params, batch)
    find = StagedSearch(DeferredModel(unusable), IDENTITY)
    others = dataclasses.replace(OPTIONS["beam"], length_penalty=0.3, patience=2.0)
    tiny.assert_same(find(others, params, batch, limits), StagedSearch(model)(others, params, batch, limits))
    half = jax.tree.map(lambda x: x[: ROWS // 2], batch)
    wide = jax.tree.map(lambda x: x.astype(np.float16), params)
    for options, given, some, own in (
        (SearchOptions(2, LIMIT, 1.0), params, batch, limits),
        (dataclasses.replace(OPTIONS["beam"], length_normalization="length"), params, batch, limits),
        (OPTIONS["beam"], params, half, limits[: ROWS // 2]),
        (OPTIONS["beam"], wide, batch, limits),
    ):
        with pytest.raises(AssertionError, match="the model is used"):
            find(options, given, some, own)
    with pytest.raises(AssertionError, match="the model is used"):
        StagedSearch(DeferredModel(unusable), ("another model",))(OPTIONS["beam"], params, batch, limits)


def test_a_kept_program_may_call_lapack(folder):
    matrix = jax.numpy.array([[2.0, 1.0], [1.0, 3.0]])
    invert = lambda x: [jax.numpy.linalg.inv(x)]  # noqa: E731
    (expected,) = KeptFunction(invert, IDENTITY)(matrix)
    (content,) = (kept.read(path.name) for path in folder.iterdir())
    assert b"lapack" in content
    (read,) = KeptFunction(unusable, IDENTITY)(matrix)
    tiny.assert_same(read, expected)
    np.testing.assert_allclose(read @ matrix, np.eye(2), atol=1e-6)


def test_programs_with_functions_of_users_are_not_kept(folder):
    model, params, batch, limits = problem("pre")
    options = dataclasses.replace(OPTIONS["beam"], processors=(jax.tree_util.Partial(lambda tokens, written, log_probs: log_probs),))
    StagedSearch(model, IDENTITY)(options, params, batch, limits)
    assert not folder.exists()


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:], lambda data: b""])
def test_a_damaged_entry_is_made_anew(folder, harm):
    model, params, batch, limits = problem("pre")
    expected = StagedSearch(model, IDENTITY)(OPTIONS["beam"], params, batch, limits)
    for path in folder.iterdir():
        path.write_bytes(harm(path.read_bytes()))
    assert [kept.read(path.name) for path in folder.iterdir()] == [None, None, None]
    tiny.assert_same(StagedSearch(model, IDENTITY)(OPTIONS["beam"], params, batch, limits), expected)
    tiny.assert_same(StagedSearch(DeferredModel(unusable), IDENTITY)(OPTIONS["beam"], params, batch, limits), expected)


def test_a_folder_that_cannot_be_written_keeps_nothing(folder):
    folder.write_text("")
    model, params, batch, limits = problem("pre")
    expected = StagedSearch(model)(OPTIONS["beam"], params, batch, limits)
    tiny.assert_same(StagedSearch(model, IDENTITY)(OPTIONS["beam"], params, batch, limits), expected)


def test_readers_see_a_whole_entry_or_none_while_others_write_it(folder):
    content = bytes(1 << 16)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(kept.write, "entry", content) for _ in range(40)]
        assert {kept.read("entry") for _ in range(400)} <= {None, content}
        assert [each.result() for each in writes] == [None] * 40
    assert kept.read("entry") == content and [path.name for path in folder.iterdir()] == ["entry"]


def test_a_name_depends_on_code_versions_settings_and_devices(folder, monkeypatch, tmp_path):
    names = [kept._environment.__wrapped__()]

    def is_new():
        names.append(kept._environment.__wrapped__())
        return names[-1] not in names[:-1]

    assert not is_new()
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_a=1")
        assert is_new()
        (tmp_path / "flags").write_text("--xla_b=2")
        patch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
        assert is_new()
        (tmp_path / "flags").write_text("--xla_b=3")
        assert is_new()
    with monkeypatch.context() as patch:
        patch.setattr(kept.importlib.metadata, "version", lambda library: "0")
        assert is_new()
    with monkeypatch.context() as patch:
        before = jax.config.jax_default_matmul_precision
        jax.config.update("jax_default_matmul_precision", "highest")
        assert is_new()
        jax.config.update("jax_default_matmul_precision", before)
    package = tmp_path / "jaxnmt"
    shutil.copytree(Path(kept.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(kept, "__file__", str(package / "parallel" / "kept.py"))
    assert not is_new()  # the same code in another place
    with (package / "models" / "layers.py").open("a") as file:
        file.write("\n")
    assert is_new()


def test_kept_shapes_are_those_of_the_model(folder):
    model, *_ = problem("rotary")
    assert kept_shapes(IDENTITY, lambda: model.shapes) == model.shapes
    assert kept_shapes(IDENTITY, unusable) == model.shapes
    assert kept_shapes((), lambda: model.shapes) == model.shapes
    with pytest.raises(AssertionError):
        kept_shapes(("another model",), unusable)


OWN = """
import dataclasses
from jaxnmt.config import Decoding, Experiment, Transformer
@dataclasses.dataclass(frozen=True)
class Own({base}):
    pass
def config():
    return Experiment({part}=Own())
"""


@pytest.mark.parametrize(("part", "base"), [("model", "Transformer"), ("decoding", "Decoding")])
def test_nothing_is_kept_of_a_run_with_code_of_the_users_own(folder, tmp_path, part, base):
    (tmp_path / "own.py").write_text(OWN.format(part=part, base=base))
    save_config(load_config(str(tmp_path / "own.py")), tmp_path / "config.json")
    assert Run(tmp_path)._cache_key == ()


TRANSLATE = """
import io, sys
from jaxnmt import cli
sys.stdin = io.TextIOWrapper(io.BytesIO(b"a b c\\nd e\\n"))
status = cli.main()
print(sorted({"flax", "optax", "orbax", "scipy"} & sys.modules.keys()))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    source, target = tiny.write_text(folder, "text", 120, 1).split(",")
    words = ["train", tiny.write_config(folder), "--run", str(folder / "run"), "--data.train", source, target, "--training.steps", "2"]
    assert cli.main([*words, "--data.cache", str(folder / "cache")]) == 0
    return folder / "run"


def test_the_second_process_of_the_command_needs_no_flax_optax_orbax_or_scipy(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNMT_CACHE", str(tmp_path))

    def translated(seed, *words):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        command = [sys.executable, "-c", TRANSLATE, "translate", str(trained), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        *lines, libraries = done.stdout.splitlines()
        return lines, libraries, sorted(path.name for path in (tmp_path / "traced").iterdir())

    lines, libraries, entries = translated("1")
    assert "flax" in libraries and len(entries) >= 3  # a program, the shapes, and that the compiler is right
    assert translated("2") == (lines, "[]", entries)
    assert lines == [best.text for best in jaxnmt.load(trained).translate(["a b c", "d e"])]
    assert translated("3", "--beam-size", "3")[2] != entries
