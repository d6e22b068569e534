"""A run that captions pictures: scored against several captions, compared, looked at, and what it refuses."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

import jaxnmt
from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.data import scenes
from jaxnmt.errors import UserError
from jaxnmt.evaluation.scores import score
from jaxnmt.evaluation.test_sets import without_gaps

SCENES = [scenes.scene("test", index) for index in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures, of which every second has one more caption."""
    made = tmp_path_factory.mktemp("captions")
    for i, scene in enumerate(SCENES):
        Image.fromarray(scenes.draw(scene, 24)).save(made / f"{i}.png")
    lines = [f"{i}.png\t{scenes.caption(scene, 'en')}\n" for i, scene in enumerate(SCENES)]
    (made / "test.tsv").write_text("".join([*lines, *(f"{i}.png\tpicture {i}\n" for i in range(0, 6, 2))]))
    return made


@pytest.fixture(scope="module")
def run(folder):
    data = cfg.Data(
        train=("scenes/en-80:train",), validation=(str(folder / "test.tsv"),), max_length=16, cache=str(folder / "cache"), workers=1
    )
    experiment = cfg.Experiment(
        task=cfg.Captioning(size=24, patch=8, attention_penalty=0.1),
        data=cfg.replace(data, target_language="en"),
        tokenizer=cfg.Tokenizer(kind="words", vocab_size=0, joiner=""),
        batching=cfg.Batching(layout="buckets", max_shapes=1, tokens=256),
        model=cfg.replace(tiny.RECURRENT["bahdanau"], tie_embeddings="none"),
        training=cfg.Training(steps=2),
        validation=cfg.Validation(every=2, metric="bleu", beam_size=1),
        logging=cfg.Logging(tensorboard=False),
        decoding=cfg.Decoding(beam_size=1, max_length_extra=6, batch_size=8),
    )
    return jaxnmt.train(experiment, folder=folder / "run")


def test_a_picture_is_captioned_once_and_scored_against_all_its_captions(run, folder, capsys):
    test = run.test_set()
    assert test.sources == [str(folder / f"{i}.png") for i in range(6)]
    assert test.references[1] == ["picture 0", "", "picture 2", "", "picture 4", ""]
    captions = run.translations(test.sources)
    found = run.evaluate()
    assert [each.name for each in found.metrics] == ["BLEU", "chrF++", "TER", "CIDEr", "exact"] and found.sentences == 6
    assert found == score(captions, without_gaps(test.references), test.tokenize, test.note, ("bleu", "chrf++", "ter", "cider", "exact"))
    assert test.score([lines[0] if lines[0] else lines[1] for lines in zip(*test.references, strict=True)]).metrics[-1].value == 100
    assert cli.main(["evaluate", str(run.folder), "--metrics", "cider", "exact"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][:3] == ["CIDEr", "exact", "6"]
    assert [record["bleu"] for record in run.metrics if record["kind"] == "validation"][-1] == pytest.approx(found.bleu)


def test_captions_are_compared(run, folder, capsys):
    test = run.test_set()
    (folder / "true.txt").write_text("".join(f"{line}\n" for line in test.references[0]))
    assert cli.main(["compare", str(run.folder), str(folder / "true.txt"), "--json", str(folder / "numbers.json")]) == 0
    found = {each["name"]: each["estimates"] for each in json.loads((folder / "numbers.json").read_text())["metrics"]}
    assert list(found) == ["BLEU", "chrF2++", "TER", "CIDEr", "exact"] and "CIDEr" in capsys.readouterr().out
    assert found["exact"][1]["score"] == 100 and found["CIDEr"][1]["p"] < 0.05 and found["CIDEr"][1]["score"] > 400


def test_a_caption_is_drawn_and_attention_measured(run, folder, capsys):
    page, figure = folder / "page.html", folder / "pointing.svg"
    assert cli.main(["visualize", str(run.folder), "scenes/en:test#3", "--output", str(page), "--json", str(folder / "page.json")]) == 0
    record = json.loads((folder / "page.json").read_text())
    assert record["translation"] == run.translate("scenes/en:test#3").text == capsys.readouterr().out.strip()
    assert len(record["things"]) == 2 and record["languages"][1] == "en" and "<svg" not in page.read_text().partition("<script>")[0]
    assert cli.main(["probe", "pointing", str(run.folder), "--count", "5", "--output", str(figure)]) == 0
    assert "run: chance" in capsys.readouterr().out and figure.exists() and figure.with_suffix(".csv").exists()


def test_a_bad_picture_is_named(run, folder):
    (folder / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"bad\.png is not a picture that can be read"):
        run.translate([str(folder / "0.png"), str(folder / "bad.png")])


def test_what_needs_words_of_the_source_is_refused(run):
    assert np.isfinite(run.translate("scenes/en:test#1", beam_size=2).score)
    for setting in ({"coverage_penalty": 0.1}, {"shortlist": 10}, {"unk": "replace"}):
        with pytest.raises(UserError, match="words of the source, and a picture has no words"):
            run.translate("scenes/en:test#1", **setting)
    with pytest.raises(UserError, match="no words that those of a caption could be aligned with"):
        run.align("scenes/en:test#1")
    with pytest.raises(UserError, match="captions pictures"):
        run.score("scenes/en:test#1", "a circle")
    with pytest.raises(UserError, match="an ensemble is of runs that translate"):
        jaxnmt.ensemble(run, run)
    with pytest.raises(UserError, match="predicts no labels"):
        run.predict("scenes/en:test#1")
