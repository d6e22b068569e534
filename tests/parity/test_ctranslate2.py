"""Exports to CTranslate2, by CTranslate2 itself: log-probabilities of given translations, tokens, and the engine."""

from __future__ import annotations

import fcntl

import foreign
import numpy as np
import pytest

import jaxnmt
from jaxnmt import cli
from jaxnmt.errors import UserError
from jaxnmt.interop import ctranslate2, ctranslate2_layout
from jaxnmt.interop.engine import _remove_unneeded

library = pytest.importorskip("ctranslate2", reason="CTranslate2 is the software that is compared with: pip install ctranslate2")

FORMS = {
    "pre": {"num_decoder_layers": 3},
    "post": {"norm_order": "post", "activation": "gelu_exact", "output_bias": True},
    "post_rms": {"norm_order": "post", "norm": "rmsnorm", "positions": "learned", "tie_embeddings": "none", "activation": "gelu"},
    "none": {"positions": "none", "activation": "silu", "joint": False, "tie_embeddings": "decoder"},
    "rotary": {"norm": "rmsnorm", "positions": "rotary", "activation": "swiglu"},
    "head_dim": {"positions": "rotary", "head_dim": 6, "scale_embeddings": False},
}


@pytest.mark.parametrize("form", FORMS)
def test_log_probabilities_are_the_runs(form, tmp_path):
    run = foreign.run(tmp_path / "run", **FORMS[form])
    (tmp_path / "out").mkdir()
    ctranslate2.write(run, tmp_path / "out")
    sources, targets = foreign.lines(12, 3), [line[::-1] for line in foreign.lines(12, 4)]
    pieces = [run.tokenizer.source_pieces(ids) for ids in run.tokenizer.encode_source(sources)]
    wanted = [each.log_prob for each in run.score(sources, targets)]
    theirs = library.Translator(str(tmp_path / "out")).score_batch(
        pieces, [run.tokenizer.target_pieces(ids) for ids in run.tokenizer.encode_target(targets)]
    )
    np.testing.assert_allclose([sum(each.log_probs) for each in theirs], wanted, rtol=1e-4)


@pytest.mark.parametrize("form", ["pre", "rotary"])
def test_an_export_chooses_the_tokens_of_its_run(form, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))  # translations of random models do not end, and a beam ends them otherwise
    (found,) = jaxnmt.export_model(foreign.run(tmp_path / "run", **FORMS[form]), tmp_path / "out", "ctranslate2")
    assert found.same == 12


def test_int8_weights_are_checked_in_float32_on_both_sides(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))
    run = jaxnmt.load(foreign.run(tmp_path / "run").folder, weights="int8")
    (found,) = jaxnmt.export_model(run, tmp_path / "out", "ctranslate2")
    assert found.same == 12
    right = ctranslate2_layout.quantised
    monkeypatch.setattr(ctranslate2_layout, "quantised", lambda weight: (right(weight)[0], right(weight)[1][::-1].copy()))
    with pytest.raises(UserError, match="the exported files translate differently"):
        jaxnmt.export_model(run, tmp_path / "wrong", "ctranslate2")


def test_its_own_software_catches_a_corrupted_export(tmp_path, monkeypatch):
    run, right = foreign.run(tmp_path / "run"), ctranslate2_layout._layer
    swap = {"self_attention_norm": "mlp_norm", "mlp_norm": "self_attention_norm"}
    monkeypatch.setattr(
        ctranslate2_layout, "_layer", lambda *words: [each._replace(ours=swap.get(each.ours, each.ours)) for each in right(*words)]
    )
    with pytest.raises(UserError, match="the exported files translate differently"):
        jaxnmt.export_model(run, tmp_path / "out", "ctranslate2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v.tsv"]


def test_the_engine_exports_once_and_translates(tmp_path, monkeypatch, capsys):
    run = foreign.run(tmp_path / "run")
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))
    lines = foreign.lines(5, 8)
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    words = ["translate", str(run.folder), "--engine", "ctranslate2", "--beam-size", "1", "--input", str(tmp_path / "lines.txt")]
    assert cli.main(words) == 0
    wanted = [each.text for each in run.translate(lines, beam_size=1, min_length=1)]
    assert capsys.readouterr().out.splitlines() == wanted
    (made,) = (path for path in (run.folder / "ctranslate2").iterdir() if path.is_dir())
    before = made.stat().st_mtime_ns
    engine = jaxnmt.with_engine(run, "ctranslate2")
    assert [each.text for each in engine.translate(lines, beam_size=1)] == wanted and made.stat().st_mtime_ns == before
    assert engine.score(lines[0], lines[1]).log_prob == run.score(lines[0], lines[1]).log_prob
    few = {"no_repeat_ngram_size": 2, "beam_size": 1}
    assert [each.text for each in engine.translate(lines, **few)] == [each.text for each in run.translate(lines, **few, min_length=1)]
    with pytest.raises(UserError, match="no prefixes"):
        engine.translate(lines, prefix="x")


def test_an_export_goes_when_its_checkpoint_is_gone(tmp_path, monkeypatch):
    run = foreign.run(tmp_path / "run")
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))
    kept, place = [], run.folder / "ctranslate2"
    old = ["deadbeef-int8", "checkpoint-7-float32", "average-of-checkpoints-1,-2-int8"]
    for name in (*old, "mine", ".deadbeef-int8.1.2"):
        (place / name).mkdir(parents=True)
        (place / name / "model.bin").write_text("")
        kept += [] if name in old else [name]

    def opened(*words):  # no process removes a folder that another one opens
        with pytest.raises(BlockingIOError), (place / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return right(*words)

    jaxnmt.with_engine(run, "ctranslate2").translate("das haus", beam_size=1)
    (made,) = {path.name for path in place.iterdir() if path.is_dir()} - set(kept)
    assert made.endswith("-float32") and set(kept) < {path.name for path in place.iterdir()}
    int8 = jaxnmt.load(run.folder, weights="int8")
    translator, right = jaxnmt.with_engine(int8, "ctranslate2").translator, ctranslate2.CTranslate2
    monkeypatch.setattr(ctranslate2, "CTranslate2", opened)
    assert translator._engine.name
    names = {path.name for path in place.iterdir() if path.is_dir()}
    assert names - set(kept) == {made, made.replace("float32", "int8")}  # the checkpoint still needs the first


def test_an_export_stays_when_training_removes_its_checkpoint_meanwhile(tmp_path, monkeypatch):
    run = foreign.run(tmp_path / "run")
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))

    def late(*words):
        monkeypatch.setattr("jaxnmt.training.saved.CheckpointReader.steps", lambda self: [])
        _remove_unneeded(*words)

    monkeypatch.setattr("jaxnmt.interop.engine._remove_unneeded", late)
    assert jaxnmt.with_engine(run, "ctranslate2").translate("das haus", beam_size=1).text
    assert any((run.folder / "ctranslate2").glob("*-float32/model.bin"))


def test_an_export_in_a_folder_that_may_only_be_read_translates(tmp_path, monkeypatch):
    run = foreign.run(tmp_path / "run")
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))
    wanted = jaxnmt.with_engine(run, "ctranslate2").translate("das haus", beam_size=1).text
    (run.folder / "ctranslate2/lock").unlink()
    (run.folder / "ctranslate2/lock").mkdir()  # which cannot be opened, as a file there that others own
    assert jaxnmt.with_engine(run, "ctranslate2").translate("das haus", beam_size=1).text == wanted


def test_the_engine_says_how_an_imported_run_gets_its_sentences(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    ctranslate2.write(foreign.run(tmp_path / "run"), tmp_path / "out")
    run = jaxnmt.import_model(tmp_path / "out", tmp_path / "back")
    engine = jaxnmt.with_engine(run, "ctranslate2")
    with pytest.raises(UserError, match="no validation sentences .* by jaxnmt export ") as refused:
        engine.translate("das haus")
    words = str(refused.value).partition("by jaxnmt ")[2].replace("a.en a.de", str(tmp_path / "v.tsv")).split()
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))
    assert cli.main(words) == 0
    assert engine.translate("das haus", beam_size=1).text
