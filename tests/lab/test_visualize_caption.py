"""The record of a caption: the model's own attention, word by word, true regions, and what cannot be drawn."""

import base64
import io

import numpy as np
import pytest
from lab import seen
from PIL import Image

from jaxnmt import config as cfg
from jaxnmt.data import scenes
from jaxnmt.decoding.captioner import Captioner
from jaxnmt.errors import UserError
from jaxnmt.lab.probes import pointing
from jaxnmt.lab.visualize import caption
from jaxnmt.models.seq2seq import build_model


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_the_weights_are_those_that_the_probe_measures(kind):
    captioner, found = seen.captioner(kind), seen.captioned(kind)
    ids = captioner.tokenizer.encode_target([found["translation"]])
    (weights_TS,) = pointing.attention(captioner.model, captioner.params, [found["sentence"]], ids)
    shown = [word["layers"][found["chosen"]] for word in found["words"][:-1]]
    np.testing.assert_allclose(shown, weights_TS, atol=1e-5)
    assert [word["text"] for word in found["words"]] == [*found["translation"].split(), "‹end›"]
    assert all(sum(layer) == pytest.approx(1, abs=1e-3) for word in found["words"] for layer in word["layers"])
    assert len(found["layers"]) == len(found["words"][0]["layers"]) == (3 if kind == "transformer" else 1)


def test_the_score_is_that_of_the_words():
    found = seen.captioned("lstm")
    scored = seen.captioner("lstm").translate([found["sentence"]], cfg.Decoding(beam_size=1, max_length_extra=8, length_penalty=0.0))
    assert np.log([word["p"] for word in found["words"]]).sum() == pytest.approx(scored[0][0].score, abs=1e-3)
    assert all(word["likely"][0]["p"] == pytest.approx(word["p"], rel=1e-5) for word in found["words"][:-1])  # greedy, until the limit


def test_the_picture_is_what_the_model_reads_and_things_are_where_they_are():
    found, scene = seen.captioned("lstm"), scenes.scene("test", 10)
    image = Image.open(io.BytesIO(base64.b64decode(found["picture"]["image"].partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(image), scenes.draw(scene, 24))
    assert found["truth"] == scenes.caption(scene, "en") and len(found["things"]) == len(scene.things)
    for drawn, thing in zip(found["things"], scene.things, strict=True):
        assert drawn["touched"] == np.flatnonzero(pointing.inside(thing, cfg.Captioning(size=24, patch=4))[0]).tolist()
        assert drawn["text"] == " ".join(word for word, about in scenes.words(scene, "en") if about is thing)


def test_an_outline_by_hand():
    mask = np.zeros((3, 3), bool)
    mask[1, 1:] = True
    edges = set(caption.outline(mask).replace("M", " M").split())
    assert caption.outline(mask).count("M") == len("M1 1h1 M2 1h1 M1 2h1 M2 2h1 M1 1v1 M3 1v1".split("M")) - 1 and edges
    for edge in ("M1 1h1", "M2 1h1", "M1 2h1", "M2 2h1", "M1 1v1", "M3 1v1"):
        assert edge in caption.outline(mask)


def test_words_of_a_wrong_caption_have_the_thing_of_the_true_words_they_equal(monkeypatch):
    captioner, scene = seen.captioner("fixed"), scenes.scene("test", 10)
    truth = scenes.words(scene, "en")
    changed = [word if number else "three" for number, (word, _) in enumerate(truth)]
    assert truth[0][0] != "three"
    ids = captioner.tokenizer.encode_target([" ".join(changed)])[0]
    best = captioner.translate(["scenes/en:test#10"], cfg.Decoding(beam_size=1, max_length_extra=1))[0][0]
    monkeypatch.setattr(captioner, "translate", lambda lines, decoding: [[best._replace(parts=((best.parts[0][0], ids),))]])
    found = caption.record(captioner, None, "scenes/en:test#10", "en", cfg.Decoding())
    expected = [None, *(None if thing is None else scene.things.index(thing) for _, thing in truth[1:]), None]
    assert [word["thing"] for word in found["words"]] == expected and set(expected) == {None, 0, 1}
    assert found["layers"] == [] and found["words"][0]["layers"] == []


def test_pictures_that_are_no_scenes_have_no_truth(tmp_path):
    Image.fromarray(scenes.draw(scenes.scene("test", 0), 50)).save(tmp_path / "a.png")
    found = caption.record(seen.captioner("lstm"), None, str(tmp_path / "a.png"), "en", cfg.Decoding(beam_size=2, max_length_extra=3))
    assert found["truth"] == "" and found["things"] == [] and {word["thing"] for word in found["words"]} == {None}
    drawn = caption.page(found | {"run": "<b>", "checkpoint": "1", "languages": ["", ""]})
    assert "://" not in drawn.replace("http://www.w3.org/2000/svg", "") and "<b>" not in drawn


def test_what_cannot_be_drawn():
    model = build_model(seen.CONFIGS["cho"], 3, 30, cfg.Captioning(source="vectors", size=4))
    with pytest.raises(UserError, match="vectors of 4 numbers, which have no regions"):
        caption.record(Captioner(model, model.shapes, seen.SCENE_WORDS, 24), None, "a.npz#0", "en", cfg.Decoding())
    with pytest.raises(UserError, match="draws samples"):
        caption.record(seen.captioner("lstm"), None, "scenes/en:test#1", "en", cfg.Decoding(temperature=1.0))
    with pytest.raises(UserError, match="no-such.png is not a picture"):
        caption.record(seen.captioner("lstm"), None, "no-such.png", "en", cfg.Decoding())
