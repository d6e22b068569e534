"""What a process of the command sets up for itself, and that importing the package changes nothing of a process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tiny
from test_words import no_home

from jaxnmt import cli
from jaxnmt.data import prepared
from jaxnmt.errors import UserError
from jaxnmt.parallel import compiler, kept
from jaxnmt.runs import directory as run_directory

KEPT = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES")
UNSET = {name: value for name, value in os.environ.items() if name not in (*KEPT, "JAXNMT_CACHE")}

IMPORT_ALL = """
import importlib, logging, os, pathlib, pkgutil, signal, sys, warnings
import jax, matplotlib, orbax.checkpoint, flax, optax, tensorflow_datasets, sacrebleu, sentencepiece, tyro, tensorboardX, rich, babel
import scipy.sparse

def state():
    loggers = {name: logging.getLogger(name) for name in ("", "absl", "asyncio", "jax", "jax._src", "orbax", "matplotlib", "py.warnings")}
    return {
        "loggers": {name: (logger.level, logger.disabled, len(logger.filters)) for name, logger in loggers.items()},
        "jax": dict(jax.config.values),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "streams": [(stream.encoding, stream.errors) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "hooks": (sys.excepthook, sys.getrecursionlimit(), len(warnings.filters)),
        "matplotlib": dict(matplotlib.rcParams),
    }

before = state()
import jaxnmt
for module in pkgutil.walk_packages(jaxnmt.__path__, "jaxnmt."):
    if "._configs" not in module.name:
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in ("onnx", "onnxruntime"):  # of an extra
                raise
from jaxnmt.lab import figures
try:
    jaxnmt.load("nowhere")
except jaxnmt.UserError as error:
    assert "nowhere does not exist" in str(error)
figures.chart({"a": figures.Line([1, 2], [1, 2], [1, 2], [1, 2])}, "title", "x", "y")
after = state()
print({name: (before[name], after[name]) for name in before if before[name] != after[name]})
"""


def test_a_library_call_changes_nothing_of_the_process():
    """Every module is imported whose extra is installed; a run is opened for translating; a chart is drawn."""
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, env=UNSET)
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr[-2000:] + done.stdout


def test_a_process_of_the_command_keeps_programs_and_hears_of_a_failed_thread_once():
    code = "import jax, json, logging, sys; from jaxnmt import cli; sys.argv = ['jaxnmt', '--version']\n"
    code = code.replace("import jax, ", "import ") + "cli.main(); import jax, orbax.checkpoint; c = jax.config\n"
    code += "print(json.dumps([c.jax_compilation_cache_dir, c.jax_persistent_cache_min_compile_time_secs,"
    code += "c.jax_persistent_cache_min_entry_size_bytes, [logging.getLogger(n).level for n in ('absl', 'asyncio')]]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=UNSET | {"JAXNMT_CACHE": "/tmp"})
    assert json.loads(done.stdout.splitlines()[-1]) == ["/tmp/xla", 0, -1, [50, 50]], done.stderr


@pytest.mark.parametrize(
    ("broken", "status", "error"),
    [("", 2, "error: "), ("from jaxnmt.cli import command\ncommand._dispatch = lambda words: 1 / 0", 1, "ZeroDivisionError")],
)
def test_translate_ends_with_its_status_after_threads_and_exit_handlers(broken, status, error):
    code = "import atexit, sys, threading, time; from jaxnmt import cli; sys.argv = ['jaxnmt', 'translate', 'nowhere']\n"
    code += "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
    code += f"atexit.register(print, 'handler')\n{broken}\nsys.exit(cli.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status and error in done.stderr and done.stdout == "thread\nhandler\n", done.stderr


def test_ctrl_c_while_modules_are_imported_is_told_in_a_word():
    code = "import sys\nclass Pressed:\n  def find_spec(name, *_):\n    if name == 'jaxnmt.cli.command': raise KeyboardInterrupt\n"
    code += "sys.meta_path.insert(0, Pressed)\nfrom jaxnmt import cli\nsys.exit(cli.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


# ---- home folders


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.setattr(kept, "_folder", None)  # what the test enables ends with it
    for name in (*KEPT, "JAXNMT_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_programs_are_kept_below_the_home_folder_if_it_can_be_written(unset, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "not" / "yet"))
    compiler.enable_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "not" / "yet" / ".cache" / "jaxnmt" / "xla")
    assert list(tmp_path.iterdir()) == []


NOBODY = """
import pwd, sys
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
from jaxnmt import cli
sys.exit(cli.main())
"""


@pytest.mark.parametrize("home", ["/dev/null", pytest.param(None, marks=pytest.mark.slow)])
def test_a_computation_needs_no_home_folder(home, tmp_path):
    environment = {name: value for name, value in UNSET.items() if name != "HOME"} | ({"HOME": home} if home else {})
    words = ["probe", "gradients", "quickstart", "--distance", "1", "--samples", "1", "--width", "16"]
    done = subprocess.run([sys.executable, "-c", NOBODY, *words], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and "Warning" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"gradients.svg", "gradients.csv"}


def test_data_without_a_home_folder_are_refused_with_what_to_set(unset, monkeypatch, tmp_path):
    no_home(monkeypatch)
    experiment = tiny.experiment(tmp_path, **{"data.cache": ""})
    with pytest.raises(UserError, match=r"data.cache: there is no home folder for ~/.cache/jaxnmt; set data.cache, \$JAXNMT_CACHE"):
        prepared.prepare(experiment, tmp_path / "tokenizer")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="data.cache: .*file.* cannot be written .*: name another folder"):
        prepared.prepare(experiment, tmp_path / "tokenizer")


# ---- devices

IN_TURN = """
import json, sys
from jaxnmt import cli
for words in json.load(sys.stdin):
    print(cli.main(words))
"""


def test_a_device_that_is_not_there_is_a_sentence_of_every_verb_that_computes(tmp_path):
    run = str(tmp_path / "run")
    run_directory.start(tmp_path / "run", tiny.experiment(tmp_path))
    (tmp_path / "run" / "checkpoints" / "8").mkdir(parents=True)
    words = [
        ["train", tiny.write_config(tmp_path), "--data.train", f"{tmp_path}/a.xx", f"{tmp_path}/a.yy", "--run", str(tmp_path / "new")],
        ["train", "quickstart", "--explain-sharding"],
        ["resume", run],
        ["translate", run, "--input", f"{tmp_path}/a.xx"],
        ["evaluate", run],
        ["visualize", run, "a b", "--output", str(tmp_path / "x.html")],
        ["bench", "quickstart", "--json", str(tmp_path / "x.json")],
        ["runs", "average", run],
        ["plan", "quickstart", "--on", "gpu"],
        *(["probe", kind, "quickstart", "--output", str(tmp_path / "x.svg")] for kind in ("gradients", "recall", "steptime")),
        ["probe", "embeddings", run, "--output", str(tmp_path / "x")],
        ["ablate", "heads", "--folder", str(tmp_path / "study")],
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    done = subprocess.run([sys.executable, "-c", IN_TURN], input=json.dumps(words), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["2"] * len(words), done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for command, line in zip(words, told, strict=True):
        expected = "--on gpu: JAX finds no GPU" if command[0] == "plan" else "error: JAX finds no device of JAX_PLATFORMS=cuda"
        assert expected in line, (command, line)


# ---- encodings


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict"])
def test_results_are_utf_8_whatever_the_streams_encoding(encoding, tmp_path):
    (tmp_path / "ä.en").write_text("a — b\n" * 2, encoding="utf-8")
    (tmp_path / "ä.de").write_text("ä ≡ ö\n" * 2, encoding="utf-8")
    run_directory.start(tmp_path / "läufe" / "ä≡", tiny.experiment(tmp_path))
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(pathlib.Path(cli.__file__).parents[2])}
    for words, says in {
        ("train", "wmt14_base", "--help"): "─",
        ("runs", "show", "läufe/ä≡"): "läufe/ä≡",
        ("data", "check", "ä.en", "ä.de"): "ä.en",
        ("compare", "ä.en", "ä.de", "--source", "ä.en", "--reference", "ä.de", "--samples", "5"): "ä.de",
    }.items():
        done = subprocess.run([sys.executable, "-m", "jaxnmt", *words], capture_output=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        assert says in done.stdout.decode("utf-8")
    done = subprocess.run([sys.executable, "-m", "jaxnmt", "runs", "show", "≡"], capture_output=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, b"error: \\u2261 does not exist\n")
