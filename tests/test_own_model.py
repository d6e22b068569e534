"""A model that a config file brings: settings, the run's copy of its code, and what is said when it cannot be found."""

import errno
import pathlib
import shutil

import pytest

from jaxnmt import cli
from jaxnmt.config import Transformer, replace
from jaxnmt.config import checks as config_checks
from jaxnmt.config.fields import leaves
from jaxnmt.config.files import load_config
from jaxnmt.errors import UserError
from jaxnmt.io import files
from jaxnmt.runs import directory as run_directory

TEXT = '''"""A config."""
import dataclasses
from jaxnmt.config import Batching, Data, Experiment

@dataclasses.dataclass(frozen=True)
class Mine:
    """A model of mine."""

    width: int = 3
    """How wide it is."""
    kernels: tuple[int, ...] = (3, 5)
    """How far each layer sees."""
    bias: float = -1.0
    """A number below 0, and that is fine."""
    mlp_dim: int = 0
    """Called as a field of ours, where 0 is none."""

    def build(self, source_size, target_size, target_vocab):
        return source_size + self.width

def config():
    return Experiment(data=Data(train=("a.en", "a.de")), model=Mine(width=7), batching=Batching(layout="buckets"))
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return path


def start(run, path, **changes):
    """What `train` does before it trains, and what it makes first."""
    begun = run_directory.start(run, replace(load_config(str(path)), **changes))
    (run / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
    return begun


def test_its_fields_may_be_any_numbers_where_ours_may_not(mine):
    experiment = load_config(str(mine))
    config_checks.validate(experiment)
    assert (experiment.model.bias, experiment.model.mlp_dim) == (-1.0, 0)
    with pytest.raises(UserError, match="model.mlp_dim"):
        config_checks.validate(replace(experiment, model=Transformer(mlp_dim=0)))


def test_a_run_needs_its_folder_alone(mine, tmp_path):
    start(tmp_path / "run", mine, **{"model.kernels": (1, 2, 3)})
    mine.unlink()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    model = run_directory.read(tmp_path / "elsewhere").model
    assert (model.width, model.kernels, model.build(1, 1, 1)) == (7, (1, 2, 3), 8)
    assert run_directory.read(tmp_path / "elsewhere") == run_directory.read(tmp_path / "elsewhere")
    assert run_directory.start(tmp_path / "elsewhere", run_directory.read(tmp_path / "elsewhere")) is True


@pytest.mark.parametrize(
    "change",
    [("How wide", "As wide as"), ("import dataclasses", "import dataclasses, math"), ("Data(", "Data(held_out=10, ")],
)
def test_what_does_not_change_the_model_may_change(change, mine, tmp_path):
    start(tmp_path / "run", mine, **{"data.held_out": 10})
    assert change[0] in TEXT
    mine.write_text(TEXT.replace(*change))
    assert start(tmp_path / "run", mine, **{"data.held_out": 10}) is True


def test_changed_code_is_refused_with_both_files(mine, tmp_path):
    start(tmp_path / "run", mine)
    mine.write_text(TEXT.replace("source_size + self.width", "source_size - self.width"))
    with pytest.raises(UserError) as error:
        start(tmp_path / "run", mine)
    assert f"model: Mine of {tmp_path}/run/model.py → Mine of {mine}, whose code is different" in str(error.value)
    assert run_directory.read(tmp_path / "run").model.build(1, 1, 1) == 8


def test_two_files_of_one_name_are_two_models(mine, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mine.py"
    other.write_text(TEXT.replace("width: int = 3", "width: str = '3'").replace("width=7", "width='7'"))
    first, second = (load_config(str(path)) for path in (mine, other))
    kinds = [{name: hint for name, hint, _ in leaves(each)}["model.width"] for each in (first, second)]
    assert kinds == [int, str]
    start(tmp_path / "run", mine)
    start(tmp_path / "run2", other)
    assert [run_directory.read(tmp_path / name).model.width for name in ("run", "run2")] == [7, "7"]


def lose(run):
    (run / "model.py").unlink()


def rename(run):
    (run / "model.py").write_text(TEXT.replace("Mine", "Yours"))


def damage(run):
    (run / "model.py").write_text("x = = 1\n")


@pytest.mark.parametrize(
    ("harm", "says"),
    [(lose, "model.py, which is missing"), (rename, "model.py has no class Mine"), (damage, "model.py, line 1: does not load")],
)
def test_a_run_whose_code_is_gone_says_so_in_a_sentence(harm, says, mine, tmp_path, capsys):
    start(tmp_path / "run", mine)
    harm(tmp_path / "run")
    assert cli.main(["resume", str(tmp_path / "run"), "--trust"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def build", "def make", "Mine has no method build"),
        ("model=Mine(width=7)", "model=Mine", "must be an instance of a dataclass"),
        ("model=Mine(width=7)", "model=3", "must be an instance of a dataclass"),
        ("model=Mine(width=7)", "model=type('Local', (Mine,), {})()", "Local must stand at the top level"),
        ("width=7", "width=len", "<built-in function len>, which JSON cannot hold"),
        ('layout="buckets"', 'layout="packed"', "a Mine needs batching.layout buckets"),
    ],
)
def test_a_model_that_cannot_be_is_refused_before_anything_is_made(old, new, says, mine, tmp_path, capsys):
    assert old in TEXT
    mine.write_text(TEXT.replace(old, new))
    assert cli.main(["train", str(mine), "--run", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1, error
    assert not any(path.name != "lock" for path in (tmp_path / "run").glob("*"))


def test_its_fields_are_settings(mine, capsys):
    assert cli.main(["train", str(mine), "--model.widht", "3"]) == 2
    assert "did you mean --model.width?" in capsys.readouterr().err
    assert cli.main(["train", str(mine), "--model.kernels", "3", "x"]) == 2
    assert "--model.kernels expects words (a whole number each), not 3 x" in capsys.readouterr().err


def test_help_lists_its_fields_with_their_docstrings(mine, capsys, recwarn):
    assert cli.main(["train", str(mine), "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--model.width INT How wide it is. (default: 7)" in words and "--model.kernels [INT [INT ...]] How far each layer sees." in words
    assert [str(warning.message) for warning in recwarn] == []


def test_help_and_flags_know_the_constraints_of_its_fields(mine, capsys):
    mine.write_text(TEXT.replace("width: int = 3", "width: Positive[int] = 3").replace("import Batching", "import Positive, Batching"))
    assert cli.main(["train", str(mine), "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--model.width INT How wide it is. (default: 7; above 0)" in words
    assert cli.main(["train", str(mine), "--model.width", "0"]) == 2
    assert capsys.readouterr().err == "error: --model.width is 0; it must be above 0\n"


def test_config_files_leave_no_compiled_code_behind(mine):
    load_config(str(mine))
    assert [path.name for path in pathlib.Path(mine).parent.iterdir()] == ["mine.py"]


def test_nested_tuples_come_back_as_they_were(mine, tmp_path, capsys):
    mine.write_text(TEXT.replace("tuple[int, ...] = (3, 5)", "tuple[tuple[int, int], ...] = ((3, 1), (5, 2))"))
    assert not start(tmp_path / "run", mine) and start(tmp_path / "run", mine)
    assert run_directory.read(tmp_path / "run").model.kernels == ((3, 1), (5, 2))
    assert cli.main(["runs", "show", str(tmp_path / "run")]) == 0 and "(3, 1) (5, 2)" in capsys.readouterr().out


def test_a_first_try_that_could_not_be_written_is_in_nobodys_way(mine, tmp_path, monkeypatch):
    def full(path, content):
        if path.name == "model.py":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    write = files.write
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(files, "write", full)
        start(tmp_path / "run", mine)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
    assert start(tmp_path / "run", mine) is False and (tmp_path / "run" / "model.py").read_text() == TEXT


def test_a_folder_with_a_config_file_in_it_is_no_empty_one(mine, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.py").write_text("mine too")
    with pytest.raises(UserError, match="neither empty nor a run"):
        start(tmp_path / "run", mine)
