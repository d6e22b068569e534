"""Probes of runs: each number by hand, or by the model itself."""

import csv
import statistics

import numpy as np
import pytest

from jaxnmt import cli
from jaxnmt.analysis.probes import length
from jaxnmt.evaluation.scores import bleu_metric, bleu_score
from jaxnmt.evaluation.test_sets import TestSet

WORDS = "a man in the red hat sits on his old bench and reads".split()


def sentences(count, seed, longest=12):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest + 1))) for _ in range(count)]


def damaged(lines, seed):
    random = np.random.default_rng(seed)
    return [" ".join("oh" if random.random() < 0.2 else word for word in line.split()) for line in lines]


def corpus(count=60):
    references = sentences(count, 1)
    return TestSet("test", sentences(count, 2), references, False, ("en", "de"))


# ---- length


def test_bins_by_hand():
    found = length.bins([5, 1, 2, 2, 9, 1, 7, 3], 4)
    assert [(each.members, each.fewest, each.most) for each in found] == [([1, 5], 1, 1), ([2, 3], 2, 2), ([7, 0], 3, 5), ([6, 4], 7, 9)]
    assert [each.mean for each in found] == [1, 2, 4, 8]
    assert [len(each.members) for each in length.bins([3] * 7 + [4], 4)] == [7, 1]  # those of one length stay together
    for count in (1, 3, 8, 50):
        lengths = np.random.default_rng(count).integers(0, 30, 200).tolist()
        found = length.bins(lengths, count)
        assert sorted(number for each in found for number in each.members) == list(range(200)) and len(found) <= count
        assert all(left.most < right.fewest for left, right in zip(found, found[1:], strict=False))


def test_one_bin_is_what_evaluate_says_and_its_band_is_near_sacrebleus_other_bootstrap():
    test = corpus()
    translations = damaged(test.references, 3)
    line = length.curves(test, {"a": [translations]}, length.bins_of(test, 1))["a"]
    theirs = bleu_metric(False, "de").corpus_score(translations, [test.references], n_bootstrap=1000)
    assert line.y == [bleu_score(translations, test.references, False, ("en", "de"))] == [pytest.approx(theirs.score)]
    assert (line.low[0], line.high[0]) == pytest.approx((theirs._mean - theirs._ci, theirs._mean + theirs._ci), abs=0.7)  # drawn otherwise
    assert line.x == [pytest.approx(statistics.fmean(len(source.split()) for source in test.sources))]


def test_several_runs_are_their_mean_and_deviation_bin_by_bin():
    test = corpus()
    runs = [damaged(test.references, seed) for seed in (3, 4, 5)]
    bins = length.bins_of(test, 3)
    line = length.curves(test, {"a": runs}, bins)["a"]
    for place, each in enumerate(bins):
        references = [test.references[i] for i in each.members]
        scores = [bleu_score([run[i] for i in each.members], references, False, ("en", "de")) for run in runs]
        assert line.y[place] == pytest.approx(statistics.fmean(scores))
        assert line.high[place] - line.y[place] == pytest.approx(statistics.stdev(scores)) == pytest.approx(line.y[place] - line.low[place])


def test_which_runs_are_seeds_of_one_variant():
    assert length.variant_of("studies/x/runs/a_b/seed-2/run") == length.variant_of("studies/x/runs/a_b/seed-13/") == "studies/x/runs/a_b"
    assert length.variant_of("runs/seed-2-more") == "runs/seed-2-more"


def test_length_draws_files_and_keeps_the_numbers(tmp_path, capsys):
    test = corpus()
    for name, lines in {
        "s.en": test.sources,
        "r.de": test.references,
        "a.de": damaged(test.references, 3),
        "b.de": test.references,
    }.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    words = [str(tmp_path / name) for name in ("a.de", "b.de")]
    given = ["--source", str(tmp_path / "s.en"), "--reference", str(tmp_path / "r.de"), "--output", str(tmp_path / "x.svg"), "--bins", "3"]
    assert cli.main(["probe", "length", *words, *given]) == 0
    assert "100.0 (100.0–100.0)" in capsys.readouterr().out
    svg = (tmp_path / "x.svg").read_text()
    assert svg.startswith("<svg") and ">a.de<" in svg and ">b.de<" in svg
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert sum(int(row["sentences"]) for row in rows if row["line"] == "a.de") == len(test.sources)
    assert all(float(row["bleu"]) == pytest.approx(100) for row in rows if row["line"] == "b.de")


@pytest.mark.parametrize(
    ("words", "says"), [(["--output", "x.png"], ".svg"), (["--output", "no/x.svg"], "no folder"), (["--bins", "0"], "--bins")]
)
def test_mistakes_are_said(words, says, capsys):
    assert cli.main(["probe", "length", "a.de", *words]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
