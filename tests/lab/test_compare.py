"""`jaxnmt compare`: what it refuses, what it translates and when it does not, and its page."""

import html.parser
import json
import re
import types
import unicodedata

import pytest
from evaluation.sacrebleu_command import cell, corpora, sacrebleu

from jaxnmt import cli
from jaxnmt.config import Experiment, replace
from jaxnmt.data import identity
from jaxnmt.evaluation.scores import Estimate
from jaxnmt.lab import baselines, compare, comparison_report, figures, pages
from jaxnmt.lab.comparison_report import ranked
from jaxnmt.lab.options import Systems, labels
from jaxnmt.run import Run
from jaxnmt.runs import directory as run_directory
from jaxnmt.training.saved import Found

SOURCE = ["one two three .", "four", "five <b>six</b> & seven", "eight nine ten eleven twelve thirteen ."]
REFERENCE = ["eins zwei drei .", "vier", "fünf sechs & sieben", "acht neun zehn elf zwölf dreizehn ."]
WORSE = ["eins zwei zwei zwei", "vier", "<script>alert(1)</script> sechs & sieben", "acht neun"]
BETTER = ["eins zwei drei .", "fier", "fünf sechs & sieben", "acht neun zehn elf zwölf ."]


@pytest.fixture
def files(tmp_path):
    made = types.SimpleNamespace()
    for name, lines in {"source.en": SOURCE, "reference.de": REFERENCE, "worse.de": WORSE, "better.de": BETTER}.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        setattr(made, name.split(".")[0], str(tmp_path / name))
    made.given = ["--source", made.source, "--reference", made.reference]
    made.folder = tmp_path
    return made


@pytest.fixture
def translated(monkeypatch):
    """What runs translated: (run, sentences, beam size) of each time."""
    calls = []

    class Shouting:
        def __init__(self, run):
            self.run = run

        def translate(self, lines, decoding, first=1, rules=()):
            calls.append((self.run.folder.name, len(lines), decoding.beam_size))
            return [[types.SimpleNamespace(text=line.upper())] for line in lines]

    def found(run):
        return Found(f"checkpoint {run._asked}", run._asked, int((run.folder / "sum").read_text()))

    monkeypatch.setattr(Run, "translator", property(Shouting))
    monkeypatch.setattr(Run, "_found", property(found))
    return calls


def start(files, name, **changes):
    """A run that never trained, with the test set and the training text of `files`."""
    text = (files.source, files.reference)
    run_directory.start(files.folder / name, replace(Experiment(), **{"data.test": text, "data.train": text, **changes}))
    (files.folder / name / "sum").write_text("7")
    return str(files.folder / name)


def numbers(files, *words):
    file = files.folder / "numbers.json"
    assert cli.main(["compare", *words, "--json", str(file), "--samples", "20"]) == 0
    return json.loads(file.read_text())


def test_baselines_copy_the_source():
    sources = ["Red fox. A quick red fox jumps. It is late.", "It is late now. One fox", ""]
    assert baselines.made("lead", sources, ["", "", ""], 3) == ["Red fox. A", "It is late", ""]
    assert baselines.central_sentences(sources) == ["A quick red fox jumps.", "It is late now.", ""]
    assert baselines.made("extractive", sources, ["one two", "one two three", "one"], 0) == ["A quick", "It is", ""]  # their mean


def test_baselines_follow_the_systems(files, capsys):
    words = ["--baselines", "lead", "extractive", "--baseline-words", "2", "--metrics", "rouge1", "rougeL"]
    found = numbers(files, files.worse, *files.given, *words)
    assert found["systems"] == [files.worse, "lead", "extractive"] and found["made_by"][1:] == ["from the source"] * 2
    assert [metric["name"] for metric in found["metrics"]] == ["ROUGE-1", "ROUGE-L"]
    assert "against it: lead (from the source)" in capsys.readouterr().out
    assert cli.main(["compare", files.worse, *files.given, "--baselines", "lead", "lead"]) == 2
    assert "lead is named twice" in capsys.readouterr().err


def test_files_are_compared_with_the_first(files, capsys):
    found = numbers(files, files.worse, files.better, *files.given)
    assert [metric["name"] for metric in found["metrics"]] == ["BLEU", "chrF2++", "TER"]
    first, second = found["metrics"][0]["estimates"]
    assert first["p"] is None and 0 < second["p"] <= 1 and second["score"] > first["score"]
    assert found["sentence_chrf"][1][0] == pytest.approx(100) and found["counted_in"] == "the references"
    assert found["shapes"][0]["unfinished"] == 1 and found["shapes"][1]["unfinished"] == 0
    out = capsys.readouterr().out
    assert "4 sentences" in out and found["metrics"][0]["signature"] in out and f"baseline: {files.worse}" in out
    assert "tok:13a" in out and "\x1b" not in out and "│" not in out  # plain, for this is no terminal


def test_the_digits_are_those_of_sacrebleus_command_on_the_same_files(tmp_path, capsys):
    reference, systems = corpora()
    reference[5], systems[0][7], systems[1][3] = "", "", "Eine Frau\u2028im Park . \r"  # a line ends at \n alone
    cells, told = sacrebleu(tmp_path, reference, systems, "--chrf-word-order", "2", "--paired-bs")
    (tmp_path / "source.en").write_text("".join(f"sentence {number}\n" for number in range(len(reference))))
    files = [str(tmp_path / f"{number}.txt") for number in range(3)]
    given = ["--source", str(tmp_path / "source.en"), "--reference", str(tmp_path / "ref.txt")]
    assert cli.main(["compare", *files, *given, "--json", str(tmp_path / "numbers.json")]) == 0
    found, out = json.loads((tmp_path / "numbers.json").read_text()), capsys.readouterr().out
    estimates = [[Estimate(**metric["estimates"][system]) for metric in found["metrics"]] for system in range(3)]
    assert [[cell(estimate, interval=True) for estimate in row] for row in estimates] == cells
    assert all(metric["signature"] in told and metric["signature"] in out for metric in found["metrics"])
    assert all(f" {estimate.score:.2f} " in out for row in estimates for estimate in row)


def test_several_references_are_scored_together_as_sacrebleus_command_does(files, tmp_path, capsys):
    reference, (second, *systems) = corpora()
    cells, told = sacrebleu(tmp_path, reference, systems, "--chrf-word-order", "2", "--paired-bs", others=(second,))
    (tmp_path / "source.en").write_text("".join(f"sentence {number}\n" for number in range(len(reference))))
    page = tmp_path / "page.html"
    words = [str(tmp_path / "0.txt"), str(tmp_path / "1.txt"), "--source", str(tmp_path / "source.en")]
    words += ["--reference", str(tmp_path / "ref.txt"), str(tmp_path / "ref1.txt"), "--html", str(page)]
    assert cli.main(["compare", *words, "--json", str(tmp_path / "numbers.json")]) == 0
    found, out = json.loads((tmp_path / "numbers.json").read_text()), capsys.readouterr().out
    estimates = [[Estimate(**metric["estimates"][system]) for metric in found["metrics"]] for system in range(2)]
    assert [[cell(estimate, interval=True) for estimate in row] for row in estimates] == cells
    assert all("nrefs:2" in metric["signature"] and metric["signature"] in told for metric in found["metrics"])
    assert "40 sentences" in out and "2 references" in out and found["references"] == 2 and found["counted_in"] == "the first reference"
    assert out.count("the first of each sentence's references") == 3  # words by frequency, repetition, length
    assert Parsed(page.read_text()).text.count("reference") > 2 and "that the first reference does not have" in page.read_text()


def test_a_reference_with_another_number_of_lines_is_refused_with_both(files, capsys):
    (files.folder / "short.de").write_text("eins\n")
    words = ["compare", files.worse, "--source", files.source, "--reference", files.reference, str(files.folder / "short.de")]
    assert cli.main(words) == 2
    assert re.search("source.en has 4 lines and .*short.de 1", capsys.readouterr().err)


def test_translations_and_references_that_are_in_pieces_are_refused(files, capsys):
    pieces = files.folder / "pieces.de"
    pieces.write_text("".join(f"▁{line.replace(' ', ' ▁')}\n" for line in BETTER))
    for words in ([files.worse, str(pieces), *files.given], [files.worse, "--source", files.source, "--reference", str(pieces)]):
        assert cli.main(["compare", *words, "--pretokenized", "True"]) == 2
        assert "pieces.de is split into pieces by '▁': join them to words first" in capsys.readouterr().err


def test_the_script_of_the_references_or_the_user_chooses_the_tokenizer(files, capsys):
    chinese = files.folder / "zh.txt"
    chinese.write_text("一个男人\n四\n五六七\n八九十。\n")
    given = [str(chinese), "--source", files.source, "--reference", str(chinese)]
    found = numbers(files, *given)
    assert "tok:zh" in found["metrics"][0]["signature"] and "BLEU's tokenizer is zh, by the script" in capsys.readouterr().out
    assert "Han script has no spaces between words" in found["note"] and found["shapes"][0]["length_ratio"] == 1
    assert found["repetition"][0] == [0, 0, 0, 0] and sum(row["words"] for row in found["by_frequency"]) == 12  # words are characters
    assert "tok:char" in numbers(files, *given, "--tokenize", "char")["metrics"][0]["signature"]
    assert "labelled" not in numbers(files, *given, "--target-language", "zh")["note"]
    assert cli.main(["compare", *given, "--tokenize", "zx"]) == 2 and "--tokenize expects one of 13a, intl" in capsys.readouterr().err


def test_texts_in_different_unicode_forms_are_scored_as_they_stand_and_that_is_said(files):
    nfd = files.folder / "nfd.de"
    nfd.write_text(unicodedata.normalize("NFD", "".join(f"{line}\n" for line in BETTER)))
    found = numbers(files, files.better, str(nfd), *files.given)
    assert found["metrics"][0]["estimates"][1]["score"] < found["metrics"][0]["estimates"][0]["score"]
    assert f"{nfd} have letters in decomposed Unicode" in found["note"]
    assert numbers(files, files.better, *files.given)["note"] == ""


def test_a_run_brings_its_unicode_form_to_all_texts(files, translated):
    nfd = files.folder / "nfd.de"
    nfd.write_text(unicodedata.normalize("NFD", "".join(f"{line}\n" for line in BETTER)))
    found = numbers(files, start(files, "run"), files.better, str(nfd))
    assert found["metrics"][0]["estimates"][1]["score"] == found["metrics"][0]["estimates"][2]["score"] and found["note"] == ""


def test_a_runs_own_test_set_is_labelled_by_the_user_too(files, translated):
    run = start(files, "run")
    assert "tok:13a" in numbers(files, run, "--target-language", "zh")["metrics"][0]["signature"]  # Latin letters, whatever the label
    assert "tok:intl" in numbers(files, run, "--tokenize", "intl")["metrics"][0]["signature"]


def test_a_system_that_is_the_baseline_over_again_is_said_to_be(files, capsys):
    (files.folder / "copy.de").write_text("\n".join(WORSE))
    found = numbers(files, files.worse, files.better, str(files.folder / "copy.de"), *files.given)
    assert found["identical"] == [str(files.folder / "copy.de")]
    assert "copy.de translates every sentence as the baseline does" in capsys.readouterr().out


def test_split_text_is_scored_as_it_stands(files):
    found = numbers(files, files.worse, files.better, *files.given, "--pretokenized", "True")
    assert "tok:none" in found["metrics"][0]["signature"] and "tokenize=none" in found["note"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{worse}", "{short}", "--source", "{source}", "--reference", "{reference}"], "short.de has 3 lines, but .* has 4 sentences"),
        (["{worse}", "{better}"], "--source FILE and --reference FILE"),
        (["{worse}", "--source", "{source}"], "go together"),
        (["{worse}", "--source", "{short}", "--reference", "{reference}"], "has 3 lines and .* 4"),
        (["{worse}", "{worse}", "--source", "{source}", "--reference", "{reference}"], "named twice"),
        (["{worse}", "{folder}/bettr.de", "--source", "{source}", "--reference", "{reference}"], "did you mean .*better.de"),
        (["{worse}", "{folder}", "--source", "{source}", "--reference", "{reference}"], "is not a run"),
        (["{worse}", "{better}", "--other", "{reference}"], "--other .* is not compared"),
        (["{worse}", "{better}", "--html", "{folder}/no/page.html"], "there is no folder"),
    ],
)
def test_refusals(files, capsys, words, sentence):
    (files.folder / "short.de").write_text("eins\nzwei\ndrei")
    places = {**vars(files), "short": files.folder / "short.de"}
    assert cli.main(["compare", *(word.format(**places) for word in words)]) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error) and error.count("\n") == 1


def test_a_run_translates_its_test_set_once(files, translated):
    run = start(files, "run")
    found = numbers(files, run, files.better)
    assert translated == [("run", 4, 5)] and found["made_by"] == ["checkpoint best, beam 5", "file"]
    assert found["counted_in"].startswith("the training text")
    assert numbers(files, run, files.better) == found and len(translated) == 1
    numbers(files, run, files.better, "--beam-size", "2")
    numbers(files, run, files.better, "--checkpoint", "latest")
    assert translated[1:] == [("run", 4, 2), ("run", 4, 5)]
    (files.folder / "run" / "sum").write_text("8")  # other parameters under the same name
    numbers(files, run, files.better)
    (files.folder / "source.en").write_text("".join(f"{line} !\n" for line in SOURCE))
    numbers(files, run, files.better)
    assert len(translated) == 5
    for kept in (files.folder / "run" / "translations").iterdir():
        kept.write_text(kept.read_text()[:-9])
    numbers(files, run, files.better)
    assert len(translated) == 6


def test_a_file_may_be_the_baseline_and_a_run_bring_the_test_set(files, translated):
    found = numbers(files, files.better, start(files, "run"))
    assert found["systems"][0] == files.better and found["sentences"] == 4


def test_a_run_translates_the_source_that_is_given(files, translated):
    other = files.folder / "other.en"
    other.write_text("\n".join(SOURCE[:2]))
    reference = files.folder / "other.de"
    reference.write_text("\n".join(REFERENCE[:2]))
    found = numbers(files, start(files, "run"), "--source", str(other), "--reference", str(reference))
    assert translated == [("run", 2, 5)] and found["sentences"] == 2


def test_rare_words_are_rare_in_the_training_text(files, translated):
    train = str(files.folder / "train.en"), str(files.folder / "train.de")
    for name in train:
        (files.folder / name).write_text("Zwei zwei, zwei.\n" if name.endswith("de") else "eins acht\n")
    found = numbers(files, start(files, "run", **{"data.train": train}), files.better)
    assert [(row["frequency"], row["words"]) for row in found["by_frequency"]] == [("0", 13), ("1", 2), ("2–4", 1)]  # "." once, zwei twice
    assert found["counted_in"] == "the training text" and found["by_frequency"][2]["f1"] == [0, 1]
    for name in train:
        (files.folder / name).unlink()
    found = numbers(files, str(files.folder / "run"), files.better)
    assert found["counted_in"] == "the references" and [row["words"] for row in found["by_frequency"]] == [14, 2]


def test_a_run_on_split_words_reads_them_split_and_is_scored_on_them_joined(files, translated):
    (files.folder / "source.en").write_text("o@@ ne two\n" + "".join(f"{line}\n" for line in SOURCE[1:]))
    (files.folder / "reference.de").write_text("ei@@ ns zwei\n" + "".join(f"{line}\n" for line in REFERENCE[1:]))
    run = start(files, "run", **{"tokenizer.kind": "words", "tokenizer.vocab_size": 0})
    for settings in (Systems(), Systems(source=files.source, reference=(files.reference,))):
        test, systems, _ = compare.gather([run, files.better], settings)
        assert (test.sources[0], test.references[0][0], test.pretokenized) == ("one two", "eins zwei", True)
        assert systems[0].translations[0] == "O@@ NE TWO"  # what the model reads is as it was


def test_runs_with_different_test_sets_are_refused(files, translated, capsys):
    first, second = start(files, "first"), start(files, "second", **{"data.test": (files.source, files.worse)})
    assert cli.main(["compare", first, second]) == 2
    assert "have different test sets" in capsys.readouterr().err and translated == []
    assert cli.main(["compare", first, second, *files.given, "--samples", "5"]) == 0


def test_the_biggest_differences_come_first_and_equals_are_left_out():
    losses, gains = ranked([50, 50, 50, 50, 50], [50, 20, 90, 10, 60], 1)
    assert (losses, gains) == ([3], [2])
    losses, gains = ranked([50, 50, 50, 50, 50], [50, 20, 90, 10, 60], 9)
    assert (losses, gains) == ([3, 1], [2, 4])


class Parsed(html.parser.HTMLParser):
    """Elements opened and closed in order; the names, attributes and text that were met."""

    VOID = {"meta", "link", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.met, self.values, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.met.append(tag)
        self.values += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""


def test_the_page_is_whole_escapes_what_it_shows_and_asks_for_nothing(files):
    page = files.folder / "page.html"
    assert cli.main(["compare", files.worse, files.better, *files.given, "--samples", "20", "--html", str(page)]) == 0
    text = page.read_text()
    parsed = Parsed(text)
    assert "script" not in parsed.met and "<script>alert(1)</script> sechs & sieben" in parsed.text
    assert "b" not in parsed.met and "five <b>six</b> & seven" in parsed.text
    ids = [value for name, value in parsed.values if name == "id"]
    assert len(ids) == len(set(ids))
    links = [value for name, value in parsed.values if name in ("href", "src")]
    assert links and all(link == "data:," or link[1:] in ids for link in links) and "url(" not in text and "@import" not in text
    assert parsed.met.count("article") == 4 and "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert parsed.text.index("Sentence 4") > 0 and "mark" in parsed.met


def test_words_that_the_reference_lacks_are_marked():
    assert pages.marked("a x y b < c", "a b < d") == "a <mark>x y</mark> b &lt; <mark>c</mark>"
    assert pages.marked("我爱你", "我恨你") == "我<mark>爱</mark>你"
    assert pages.marked("", "a") == "" and pages.marked("a  b", "a b") == "a  b"


def test_a_table_in_plain_text_is_aligned(capsys):
    table = figures.Table("T", ("name", "n"), (("[bold]", "1"), ("b", "100")), "note")
    assert str(table) == "T\nname      n\n-----------\n[bold]    1\nb       100\nnote"
    figures.show([table])
    assert capsys.readouterr().out == f"{table}\n\n"


def test_lines_are_read_as_sacrebleu_reads_them(tmp_path):
    (tmp_path / "a.de").write_bytes("eins \r\nzwei\u2028drei\n\n vier".encode())
    assert compare.read_lines(str(tmp_path / "a.de"), "compare") == ["eins", "zwei\u2028drei", "", " vier"]


def test_labels_are_short_where_they_tell_systems_apart():
    assert labels(["a/x.de", "b/y.de"]) == ("x.de", "y.de") and labels(["a/x", "b/x/"]) == ("a/x", "b/x/")
    runs = [f"studies/ladder/runs/{variant}/seed-{seed}/run" for variant in ("bag", "gru") for seed in (1, 2)]
    assert labels(runs[::2]) == ("bag", "gru") and labels([runs[0], "runs/mine"]) == ("bag", "mine")
    assert labels(runs) == ("bag/seed-1", "bag/seed-2", "gru/seed-1", "gru/seed-2")


def test_given_files_without_a_language_have_the_runs(files, translated):
    run = start(files, "run")
    (files.folder / "run" / identity.RECORD).write_text(json.dumps({"languages": ["en", "zh"]}))
    (files.folder / "s.txt").write_text("one\n")
    (files.folder / "r.txt").write_text("你好\n")
    found = numbers(files, run, "--source", str(files.folder / "s.txt"), "--reference", str(files.folder / "r.txt"))
    assert "tok:zh" in found["metrics"][0]["signature"]


def test_a_given_source_is_read_as_translate_reads_it(files, translated):
    text = "\ufeffone\ttwo three\x00.\n" + "".join(f"{line}\n" for line in SOURCE[1:])
    (files.folder / "source.en").write_text(text)
    settings = Systems(source=files.source, reference=(files.reference,))
    _, [system], _ = compare.gather([start(files, "run")], settings)
    assert system.translations[0] == "ONE TWO THREE ."


def test_a_row_has_difference_p_and_corrected_p():
    row = comparison_report._row("b", Estimate(31.5, 31.4, 0.8, 0.01, 0.03), 33.0)
    assert row == ("b", "31.50", "31.40 ± 0.80", "-1.50", "0.0100", "0.0300")


def test_the_page_shows_the_system_that_is_named(files):
    third, page = files.folder / "third.de", files.folder / "page.html"
    third.write_text("".join(f"{line}\n" for line in REFERENCE))
    numbers(files, files.worse, files.better, str(third), *files.given, "--html", str(page), "--other", str(third), "--examples", "1")
    text = page.read_text()
    assert "Biggest gains of third.de against worse.de" in text and text.count("<article>") == 1
