"""Sentences over a distance: each pair differs in one word, the distance is what it says, and the splits keep their promises."""

import itertools

import numpy as np
import pytest
import tiny

from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.config.files import save_config
from jaxnmt.data.phrases import LANGUAGES
from jaxnmt.data.phrases.grammar import Language
from jaxnmt.data.phrases.meaning import PERSONS
from jaxnmt.errors import UserError
from jaxnmt.lab.options import Contrast
from jaxnmt.lab.probes import cloze, contrast, distant
from jaxnmt.run import Run
from jaxnmt.training.loop import train

MISSING = {"es": {2}}
NO_GAP = {"en": {0, 1}, "tr": {0, 1}}


def bare(sentence):
    return [word.strip(".,") for word in sentence.split()]


def shows_number(language):
    """The words that show the number of a subject: those of persons' last nouns, and verbs that differ."""
    words = Language(language).words
    verbs = {
        form.split()[0]
        for tenses in words["verbs"].values()
        for forms in tenses.values()
        for form in forms
        if len({each.split()[0] for each in forms}) > 1
    }
    participles = {form.split()[-1] for tenses in words["verbs"].values() for form in tenses.get("past", ()) if " " in form}
    return verbs - participles | {words["who"][person].split()[-1].lower() for person in PERSONS}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pair_differs_in_one_word_at_its_distance(language):
    source = "tr" if language == "en" else "en"
    for distance in range(distant.FURTHEST + 1):
        for index in range(0 if distance in MISSING.get(language, ()) else 4):
            pair = distant.agreement(source, language, "test", distance, index)
            assert pair == distant.agreement(source, language, "test", distance, index) and pair.distance == distance
            right, wrong = bare(pair.right), bare(pair.wrong)
            place = next(i for i, (one, other) in enumerate(zip(right, wrong, strict=False)) if one != other)
            if language == "tr":  # a main clause ends where the reported one does
                assert len(right) == place + 2 and len(wrong) == place + 1 and right[:place] == wrong[:place]
                subject = next(
                    i for i, word in enumerate(right) if i and word.endswith(("nın", "nin", "nun", "nün", "ın", "in", "un", "ün"))
                )
                assert place - subject - 1 == distance
                continue
            assert right[:place] + right[place + 1 :] == wrong[:place] + wrong[place + 1 :]
            shown = shows_number(language)
            assert {right[place], wrong[place]} <= shown
            assert place - max(i for i in range(place) if right[i].lower() in shown) - 1 == distance


def test_sentences_by_hand():
    """A change of the drawing changes what runs were trained on."""
    assert distant.agreement("tr", "en", "test", 5, 0) == (
        "Pilot on dört gün boyunca bekledi ve cuma akşamı Mısır'da çalışıyor.",
        "The pilot waited for fourteen days and works in Egypt on Friday evening.",
        "The pilot waited for fourteen days and work in Egypt on Friday evening.",
        5,
    )
    assert distant.agreement("en", "tr", "test", 5, 0) == (
        "The students write that the baker bought sixty-nine blue letters.",
        "Öğrenciler, fırıncının altmış dokuz mavi mektup satın aldığını yazıyor.",
        "Öğrenciler, fırıncının altmış dokuz mavi mektup satın aldı.",
        5,
    )
    test = distant.cloze("tr", "test", 9, 0)
    assert test.words[test.right] == "İtalyanca" and test.sentences[test.right] == (
        "Erkek kardeşim on altı Ağustos'ta İstanbul'a vardı, ama komşumuz İtalya'da büyüdü, Berlin'de bekledi, altmış altı siyah şapka"
        " buldu ve İtalyanca konuşuyor."
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_gap_is_decided_by_one_word_at_its_distance(language):
    names = distant.Longer(language)
    right = set()
    for distance in (7, 15, 16, 30, *((2, 3, 4) if language in NO_GAP else ())):
        for index in range(12):
            test = distant.cloze(language, "test", distance, index)
            assert test == distant.cloze(language, "test", distance, index) and test.distance == distance
            lines = [bare(sentence) for sentence in test.sentences]
            [gap] = {i for i, words in enumerate(zip(*lines, strict=True)) if len({*words}) > 1}
            assert tuple(line[gap] for line in lines) == test.words and len({*test.words}) == 9
            country = names.name(list(distant.SPOKEN)[test.right])
            [decides] = [i for i, word in enumerate(lines[0]) if country in word]  # it is named once
            assert gap - decides - 1 == distance and lines[test.right].count(test.words[test.right]) == 1
            right.add(test.right)
    assert len(right) == 9


def test_each_distance_has_its_count_of_different_sentences():
    drawn = list(distant.draw(distant.agreement, ("en", "es"), "test", range(5), 20))
    assert len({*drawn}) == len(drawn) and [pair.distance for pair in drawn] == [d for d in (0, 1, 3, 4) for _ in range(20)]
    drawn = list(distant.draw(distant.cloze, ["tr"], "test", (1, 2, 9), 20))
    assert len({*drawn}) == len(drawn) and [test.distance for test in drawn] == [2] * 20 + [9] * 20


def test_the_test_has_combinations_of_its_own():
    """Person and country of the cloze; person and place where a verb agrees."""

    def combinations(split):
        tests = [distant.cloze("en", split, distance, index) for distance in (3, 8) for index in range(150)]
        return {(bare(t.sentences[0])[bare(t.sentences[0]).index("grew") - 1], t.right) for t in tests}

    found = [combinations(split) for split in ("train", "validation", "test")]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(found, 2)) and len(found[2]) > 12
    assert {person for person, _ in found[2]} <= {person for person, _ in found[0]}
    pairs = [[distant.agreement("en", "tr", split, 1, index).source for index in range(150)] for split in ("train", "test")]
    assert {*pairs[0]}.isdisjoint(pairs[1])


def test_text_to_train_on():
    lines = list(distant.text("contrast", ["tr", "en"], "train", 62))
    assert [len(line.split("\t")) for line in lines] == [2] * 62
    assert lines[31] == "\t".join(distant.agreement("tr", "en", "train", 0, 1)[:2])
    assert next(distant.text("cloze", ["fr"], "train", 1)).count("grandi") == 1
    for words in (("cloze", ["en", "de"]), ("contrast", ["en", "en"]), ("contrast", ["en", "xx"]), ("gap", ["en"])):
        with pytest.raises(UserError, match="give"):
            distant.text(*words, "train", 1)


def test_contrast_draws_pairs_for_runs_on_the_embedded_corpus(tmp_path):
    (tmp_path / "run").mkdir()

    def pairs(rules="", **data):
        save_config(
            cfg.replace(cfg.Experiment(), **{f"data.{key}": value for key, value in data.items()}), tmp_path / "run" / "config.json"
        )
        return contrast.of_runs([Run(tmp_path / "run")], Contrast(rules=rules, count=2))

    found = pairs(test=("phrases/en-fr:test",), source_language="en", target_language="fr")
    assert [pair.distance for pair in found] == [d for d in range(31) for _ in range(2)]
    assert pairs("grammar", source_language="en", target_language="fr") == found
    with pytest.raises(UserError, match="translate en-it"):
        pairs("grammar", source_language="en", target_language="it")


def test_a_distance_with_many_pairs_is_a_point():
    pairs = [contrast.Pair("", "", "", distance) for distance in [5] * contrast.MANY + [4, 6]]
    assert [(s.nearest, s.furthest, s.pairs) for s in contrast.by_distance(pairs, [True] * len(pairs))] == [
        (4, 6, 2),
        (5, 5, contrast.MANY),
    ]


def test_points_by_hand():
    tests = [distant.Cloze((), ("a", "b", "c"), right, distance) for right, distance in ((0, 2), (1, 2), (2, 9))]
    shares = np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.2, 0.4, 0.4]])
    near, far = cloze.points(tests, np.log(shares) - 7)
    assert near[:3] == (2, 2, 1) and near.probability == pytest.approx(0.4)
    assert far[:3] == (9, 1, 0) and far.probability == pytest.approx(0.4)  # a tie is wrong
    assert (near.low, near.high) == contrast.wilson(1, 2)


def test_the_commands_on_a_language_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["probe", "text", "cloze", "tr", "--lines", "300", "--output", "text.tr"]) == 0
    experiment = tiny.experiment(
        tmp_path,
        task=cfg.Language(),
        batching=cfg.Batching(layout="buckets", tokens=1024, max_shapes=1),
        **{
            "data.train": ("text.tr",),
            "data.validation": ("text.tr",),
            "training.steps": 1,
            "data.max_length": 128,
            "validation.metric": "loss",
        },
    )
    (tmp_path / "run").mkdir()
    save_config(experiment, tmp_path / "run" / "config.json")
    train(experiment, tmp_path / "run")
    assert cli.main(["probe", "cloze", "run", "--distances", "2", "9", "--count", "3"]) == 0
    kept = [line.split("\t")[2] for line in (tmp_path / "cloze.tsv").read_text().splitlines()]
    rows = [line.split(",") for line in (tmp_path / "cloze.csv").read_text().splitlines()[1:]]
    assert [row[:3] for row in rows] == [["run", distance, str(kept.count(distance))] for distance in ("2", "9")]
    assert ">guessing<" in (tmp_path / "cloze.svg").read_text()
    assert cli.main(["probe", "cloze", "run", "--language", "xx"]) == 2
    assert "choose one of them" in capsys.readouterr().err
