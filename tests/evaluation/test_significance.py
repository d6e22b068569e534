"""Systems against a baseline: the digits are those of sacreBLEU's command, in a process of its own."""

import pytest
from evaluation.sacrebleu_command import cell, corpora, sacrebleu

from jaxnmt.errors import UserError
from jaxnmt.evaluation.scores import holm, metric, over_runs, paired, score


@pytest.mark.parametrize(
    ("test", "metrics", "tokenize", "samples", "flags"),
    [
        ("paired-bootstrap", ("bleu", "chrf", "ter"), "13a", 0, ["--paired-bs"]),
        ("paired-bootstrap", ("bleu", "chrf++", "ter"), "none", 200, ["--paired-bs-n", "200", "--paired-bs", "-cw", "2", "-tok", "none"]),
        ("approximate-randomisation", ("bleu", "chrf++", "ter"), "13a", 300, ["--paired-ar", "--paired-ar-n", "300", "-cw", "2"]),
    ],
)
def test_every_digit_is_that_of_sacrebleus_command(tmp_path, test, metrics, tokenize, samples, flags):
    reference, systems = corpora()
    ours = paired(systems, [reference], metrics, test, tokenize, samples)
    cells, out = sacrebleu(tmp_path, reference, systems, *flags)
    interval = test == "paired-bootstrap"  # with the other test its command gives none
    assert [[cell(metric.estimates[number], interval) for metric in ours] for number in range(len(systems))] == cells
    assert all(metric.signature.replace("" if interval else "|bs:1000", "") in out for metric in ours)
    assert all(abs(estimate.mean - estimate.score) < estimate.ci < 15 for metric in ours for estimate in metric.estimates)


def test_every_digit_with_several_references_is_that_of_sacrebleus_command(tmp_path):
    reference, (second, third, *systems) = corpora()
    systems += [third]
    ours = paired(systems, [reference, second, third], ("bleu", "chrf++", "ter"), "paired-bootstrap", "13a", 100)
    cells, out = sacrebleu(tmp_path, reference, systems, "--paired-bs", "--paired-bs-n", "100", "-cw", "2", others=(second, third))
    assert [[cell(metric.estimates[number], True) for metric in ours] for number in range(len(systems))] == cells
    assert all("nrefs:3" in metric.signature and metric.signature in out for metric in ours)


@pytest.mark.parametrize("test", ["paired-bootstrap", "approximate-randomisation"])
@pytest.mark.parametrize(("metric", "label"), [("rougeL", "ROUGE-L"), ("cider", "CIDEr")])
def test_our_metrics_are_tested_as_sacrebleus_are(test, metric, label):
    reference, systems = corpora()
    bleu, ours = paired(systems, [reference], ("bleu", metric), test, "13a", 100)
    assert ours.name == label and ours.signature.partition("|case")[0] == bleu.signature.partition("|case")[0]
    assert [each.score for each in ours.estimates] == [
        score(system, [reference], "13a", metrics=(metric,)).metrics[0].value for system in systems
    ]
    assert all(abs(each.mean - each.score) < each.ci < 150 for each in ours.estimates)
    assert ours.estimates[0].p is None and all(0 < each.p <= 1 for each in ours.estimates[1:])


def test_holm_by_hand():
    # sorted .01 .02 .04: times 3, 2, 1
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.04, 0.03, 0.03]) == pytest.approx([0.09, 0.09, 0.09])  # none falls below a smaller one's
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([]) == []


def test_p_is_corrected_for_the_systems_compared():
    reference, systems = corpora(sentences=25)
    (bleu,) = paired(systems, [reference], ("bleu",), "paired-bootstrap", "13a", 100)
    assert bleu.estimates[0].p is None and bleu.estimates[0].p_holm is None
    assert [estimate.p_holm for estimate in bleu.estimates[1:]] == holm([estimate.p for estimate in bleu.estimates[1:]])
    (alone,) = paired(systems[:1], [reference], ("bleu",), "paired-bootstrap", "13a", 100)
    assert alone.estimates == bleu.estimates[:1]


def test_a_missing_line_is_refused_with_both_numbers():
    reference, systems = corpora()
    with pytest.raises(UserError, match="39 translations .* 40 references"):
        paired([systems[0], systems[1][:-1]], [reference], ("bleu",), "paired-bootstrap", "13a")


def test_a_system_of_one_run_is_tested_like_a_system_and_the_same_run_thrice_proves_no_more():
    reference, systems = corpora()
    systems = systems[:2]  # the worst has n-grams without a match, which are smoothed by how many there are
    (once,) = paired(systems, [reference], ("bleu",), "paired-bootstrap", "13a")
    for runs in (1, 3):
        again = over_runs([[system] * runs for system in systems], metric("bleu", "13a", [reference]))
        assert again.estimates == once.estimates
    mixed = over_runs([[systems[0]] * 2, systems], metric("bleu", "13a", [reference]))
    (whole,) = paired([systems[0] * 2, systems[0] + systems[1]], [reference * 2], ("bleu",), "paired-bootstrap", "13a")
    assert mixed.estimates[1].score == whole.estimates[1].score != once.estimates[1].score
