"""`jaxnmt laws` with a model of the user's own: it says what holds, and notices each fault."""

import pathlib
import re

import pytest

from jaxnmt import cli
from jaxnmt.lab.laws import LAWS

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


def test_an_unknown_law_is_answered_with_those_there_are(capsys):
    assert cli.main(["laws", OWN, "--only", "casual"]) == 2
    assert "casual" in (error := capsys.readouterr().err) and "causal, padding" in error


def test_a_decoder_without_its_mask_is_found_out(capsys):
    small = ["--model.emb-dim", "16", "--model.num-heads", "2", "--model.mlp-dim", "24"]
    assert cli.main(["laws", "quickstart", "--model.causal", "False", *small, "--only", "causal", "cached"]) == 1
    assert [told for told, _ in lines_of(capsys).values()] == ["FAILS", "FAILS"]
