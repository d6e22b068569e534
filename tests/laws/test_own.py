"""`jaxnmt laws` with a model of the user's own: it says what holds, and notices each fault."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
import tiny

from jaxnmt import cli
from jaxnmt.config import files as config_files
from jaxnmt.lab.laws import LAWS, Subject, ask
from jaxnmt.models.copying import CopyingModule
from jaxnmt.models.parameters import training_flops
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel import sharding
from jaxnmt.parallel.axes import is_matrix, path_name

OWN = str(pathlib.Path(__file__).with_name("own.py"))
QUICK = ["causal", "padding", "neighbours", "cached", "greedy", "beam", "alone", "scanned", "packed", "accumulated", "resume", "reversal"]


def lines_of(capsys):
    found = [re.fullmatch(r"(holds|FAILS|does not apply) +(\w+) +(.+): (.+)", line) for line in capsys.readouterr().out.splitlines()]
    return {line[2]: (line[1], line[4]) for line in found}


@pytest.mark.parametrize("only", [QUICK, pytest.param(list(LAWS), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_a_model_of_ones_own_is_put_through_the_laws(only, capsys):
    assert cli.main(["laws", OWN, "--model.width", "24", "--only", *only]) == 0
    told = {name: told for name, (told, _) in lines_of(capsys).items()}
    apart = dict.fromkeys(("neighbours", "scanned", "packed"), "does not apply")
    assert told == dict.fromkeys(only, "holds") | apart and list(told) == only


@pytest.mark.parametrize(
    ("fault", "fails"),
    [
        ("looks ahead", "causal"),
        ("knows the length", "causal"),
        ("copies the answer", "causal"),
        ("reads padding", "padding"),
        ("forgets the source", "padding"),
        ("does not count", "cached"),
        ("raises", "cached"),
        ("mixes beams", "beam"),
        ("mixes sentences", "alone"),
        ("divides by the width", "alone"),
        ("counts rows", "accumulated"),
        ("forgets the source", "overfit"),
    ],
)
def test_each_fault_fails_the_law_that_forbids_it(fault, fails, capsys):
    assert cli.main(["laws", OWN, "--model.fault", fault, "--only", fails]) == 1
    told, measured = lines_of(capsys)[fails]
    assert told == "FAILS" and (fault != "raises" or "no step yet" in measured)


class _CopiesFromANeighbour(CopyingModule):
    """In a step it copies words of another sentence."""

    def step(self, memory, carry, token_B):
        return super().step(memory._replace(tokens_BS=jnp.roll(memory.tokens_BS, 1, 0)), carry, token_B)


class _ForgetsItsCoverage(CopyingModule):
    """It attends in each step as if it were the first."""

    def step(self, memory, carry, token_B):
        return super().step(memory, carry | {"coverage": jnp.zeros_like(carry["coverage"])}, token_B)


@dataclasses.dataclass(frozen=True)
class _Planted:
    module: type

    def build(self, *sizes):
        return self.module(tiny.RECURRENT["luong_concat"], *sizes)


@pytest.mark.parametrize("module", [pytest.param(_CopiesFromANeighbour, marks=pytest.mark.slow), _ForgetsItsCoverage])
def test_a_fault_in_copying_or_coverage_is_found_out(module):
    assert ask("cached", Subject(_Planted(module))).holds is False


def test_an_unknown_law_is_answered_with_those_there_are(capsys):
    assert cli.main(["laws", OWN, "--only", "casual"]) == 2
    assert "casual" in (error := capsys.readouterr().err) and "causal, padding" in error


def test_a_decoder_without_its_mask_is_found_out(capsys):
    small = ["--model.emb-dim", "16", "--model.num-heads", "2", "--model.mlp-dim", "24"]
    assert cli.main(["laws", "quickstart", "--model.causal", "False", *small, "--only", "causal", "cached"]) == 1
    assert [told for told, _ in lines_of(capsys).values()] == ["FAILS", "FAILS"]


@pytest.fixture(scope="module")
def declaring(tmp_path_factory):
    """The file `mlp.py` of docs/own_model.md, whose model declares all that can be declared."""
    path = tmp_path_factory.mktemp("declaring") / "mlp.py"
    page = pathlib.Path(__file__).parents[2] / "docs" / "own_model.md"
    path.write_text(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1])
    return path


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param([], id="unrolled", marks=pytest.mark.slow),
        pytest.param(["--model.scan-layers", "True", "--model.remat", "full"], id="scanned", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_declares_it_is_packed_and_scanned_as_ours_are(settings, declaring, capsys):
    only = ["causal", "padding", "neighbours", "cached", "scanned", "packed", "accumulated", "resume"]
    assert cli.main(["laws", str(declaring), *settings, "--only", *only]) == 0
    assert {name: told for name, (told, _) in lines_of(capsys).items()} == dict.fromkeys(only, "holds")


@pytest.mark.slow
def test_a_model_that_declares_its_axes_reaches_the_same_losses_on_a_mesh_with_a_tensor_axis(declaring, capsys):
    assert cli.main(["laws", str(declaring), "--only", "devices"]) == 0
    told, measured = lines_of(capsys)["devices"]
    assert told == "holds" and measured.startswith("2 x 2 x 2")


def test_its_parameters_are_split_stacked_counted_and_decayed_by_their_letters(declaring):
    config = config_files.load_config(str(declaring)).model
    grid = jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES)
    for scan in (False, True):
        model = build_model(dataclasses.replace(config, scan_layers=scan), 29, 29)
        specs = {
            path_name(path): s.spec
            for path, s in jax.tree_util.tree_leaves_with_path(sharding.param_shardings(model.shapes, model.axes, grid))
        }
        layer, stacked = ("layers", (None,)) if scan else ("layer_3", ())
        assert tuple(specs[f"encoder/{layer}/Dense_0/kernel"]) == (*stacked, "fsdp", "tensor")
        assert tuple(specs[f"encoder/{layer}/Dense_1/kernel"]) == (*stacked, "tensor", "fsdp")
        # a source token: 4 layers of 2 x 64 x 256, keys and values of 64 x 64; a target token: queries, outputs and 128 x 64
        assert training_flops(model, 10, 1) == 6 * (10 * (4 * 2 * 64 * 256 + 2 * 64 * 64) + 2 * 64 * 64 + 128 * 64)
        decayed = jax.tree_util.tree_map_with_path(is_matrix, model.axes)
        assert {path[-1].key for path, yes in jax.tree_util.tree_leaves_with_path(decayed) if not yes} == {"bias"}
