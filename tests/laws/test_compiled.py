"""The compiler as jaxnmt sets it up is right where XLA's defaults are wrong; and a compiler that is wrong is noticed."""

import dataclasses
import importlib.metadata
import itertools
import os
import subprocess
import sys

import jax
import pytest
import tiny

from jaxnmt.errors import UserError
from jaxnmt.lab.laws import Subject, ask, gradients
from jaxnmt.models.recurrent import RecurrentModule
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel import compiler

XLAS_DEFAULT = f"{compiler.FLAG}=individual_dot,reduce"
JAXLIB = importlib.metadata.version("jaxlib")
WRONG = pytest.mark.skipif(JAXLIB in ("0.11.0", "0.11.1"), reason=f"no fusion of jaxlib {JAXLIB} is known to be wrong")


def jaxnmt(*words, flags, cwd):
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-m", "jaxnmt", *words], env=environment, capture_output=True, text=True, cwd=cwd)


@WRONG
def test_the_law_fails_with_xlas_defaults(tmp_path):
    done = jaxnmt("laws", "quickstart", "--only", "compiled", flags=XLAS_DEFAULT, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.startswith("FAILS") and "is off by" in done.stdout, done.stderr


@WRONG
def test_nothing_is_trained_with_xlas_defaults(tmp_path):
    config = tiny.write_config(tmp_path)
    words = ("train", config, "--data.train", tiny.write_text(tmp_path, "a", 60, 1), "--run", str(tmp_path / "run"))
    done = jaxnmt(*words, flags=XLAS_DEFAULT, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "run" / "checkpoints").exists()
    assert f"jaxlib {JAXLIB} computes wrong numbers" in done.stderr and f"remove {compiler.FLAG} from XLA_FLAGS" in done.stderr


def test_the_compiler_as_it_is_set_up_has_none_of_the_known_faults():
    assert compiler.DOTS_ONLY in os.environ["XLA_FLAGS"].split()
    assert compiler.miscompilations() == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, compiler.DOTS_ONLY),
        ("--xla_a=1", f"{compiler.DOTS_ONLY} --xla_a=1"),
        (f"{compiler.FLAG}=dot --xla_a=1", f"{compiler.FLAG}=dot --xla_a=1"),
    ],
)
def test_a_users_own_flags_stay(before, after, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS") if before is None else monkeypatch.setenv("XLA_FLAGS", before)
    compiler.use_right_fusions()
    assert os.environ["XLA_FLAGS"] == after


def test_flags_in_a_file_are_read_as_xla_reads_them(tmp_path, monkeypatch):
    (tmp_path / "flags").write_text("--xla_a=1\n--xla_b=2\n")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    compiler.use_right_fusions()
    assert os.environ["XLA_FLAGS"] == f"{compiler.DOTS_ONLY} --xla_a=1 --xla_b=2"


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        ("", f"set XLA_FLAGS={compiler.DOTS_ONLY}"),
        (XLAS_DEFAULT, f"remove {compiler.FLAG}"),
        (compiler.DOTS_ONLY, "install another version of jax"),
    ],
)
def test_a_compiler_that_is_wrong_is_refused_with_what_to_do(flags, remedy, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(compiler, "miscompilations", lambda: ("a sum is off by 3.0%",))
    with pytest.raises(UserError, match=f"jaxlib {JAXLIB} computes wrong numbers on this CPU \\(a sum is off by 3.0%\\): {remedy}"):
        compiler.check()


class _CompiledOtherwise(RecurrentModule):
    """Its features are a five-hundredth larger when they are compiled: what a wrong fusion looks like."""

    def features(self, memory, batch, noise=None):
        return super().features(memory, batch, noise) * (1.0 if jax.config.jax_disable_jit else 1.002)


@dataclasses.dataclass(frozen=True)
class _Planted:
    def build(self, *sizes):
        return _CompiledOtherwise(tiny.RECURRENT["bag"], *sizes)


def test_a_program_that_is_compiled_wrongly_is_found(monkeypatch):
    monkeypatch.setattr(gradients, "ROWS", 8)
    programs = gradients._Loss.programs
    monkeypatch.setattr(
        gradients._Loss, "programs", lambda *given: itertools.islice(programs(*given), 1)
    )  # the others need not be compiled
    assert build_model(_Planted(), 23, 29)
    verdict = ask("compiled", Subject(_Planted()))
    assert verdict.holds is False and "the loss and all gradients at 576 positions" in verdict.measured


def test_each_parameters_gradient_is_asked_for_alone_or_one_of_each_kind():
    loss = gradients._Loss(Subject(tiny.RUNGS["pre"]))
    alone = [{what.split()[3] for what, *_ in loss.programs(every) if what.startswith("the gradient of")} for every in (True, False)]
    assert alone[0] == set(loss.names)
    assert {name.rsplit("/", 1)[-1] for name in alone[1]} == {name.rsplit("/", 1)[-1] for name in loss.names}
    assert len(alone[1]) < len(alone[0]) / 2


@pytest.mark.slow
@pytest.mark.parametrize("rung", tiny.RUNGS)
def test_every_parameters_gradient_is_right(rung):
    verdict = gradients.compiled(Subject(tiny.RUNGS[rung]), every=True)
    assert verdict.holds, verdict.measured
