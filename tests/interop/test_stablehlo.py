"""Searches as StableHLO programs: the translations of their run, for any batch and length."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import foreign
import jax
import jax.export
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.data.pieces import Numbering, Pieces
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.errors import UserError
from jaxnmt.interop import stablehlo
from jaxnmt.interop.formats import format_of
from jaxnmt.interop.loaders import save_programs
from jaxnmt.parallel.axes import path_name

TRANSLATING = [name for name, (_, task) in tiny.SUBJECTS.items() if type(task) in (cfg.Translation, cfg.Denoising) and name != "scanned"]


def test_an_export_translates_as_its_run_and_needs_only_jax_and_numpy(tmp_path):
    run = foreign.run(tmp_path / "run")
    found = jaxnmt.export_model(run, tmp_path / "out", "stablehlo")
    assert [(each.beam_size, each.same, each.sentences) for each in found] == [(1, 12, 12), (5, 12, 12)]
    assert not any(array.dtype == object for array in np.load(tmp_path / "out/model.npz", allow_pickle=False).values())
    text = "".join((tmp_path / "out" / name).read_text() for name in ("loader.py", "translate.py"))
    assert "jaxnmt" not in text and "sentencepiece" in (tmp_path / "out/README.md").read_text()


def subject(name: str):
    config, task = tiny.SUBJECTS[name]
    model = tiny.model_of(config, task=task)
    experiment = cfg.Experiment(model=config, task=task, data=cfg.Data(max_length=16))
    decoding = lambda changes: cfg.replace(cfg.Decoding(max_length_extra=3), **changes)  # noqa: E731
    return SimpleNamespace(model=model, params=tiny.params_of(model), config=experiment, decoding=decoding, weights="trained")


@pytest.mark.parametrize("name", ["bag", "luong_location", pytest.param("gnmt", marks=pytest.mark.slow)])
def test_a_rung_has_a_program_for_every_platform(name):
    program = jax.export.deserialize(bytearray(stablehlo.program(subject(name), 1)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(size) for size in program.in_avals[-1].shape] == ["b", "s"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSLATING)
def test_every_rung_finds_the_translations_of_its_search(name):
    run, (source, _) = subject(name), tiny.some_sentences(5, 7)
    limits = np.full(5, 13, np.int32)  # 1.5 times 7, and 3
    params = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(run.params)}
    for beam_size in (1, 5):
        found, scores = jax.export.deserialize(bytearray(stablehlo.program(run, beam_size))).call(params, source)
        wanted = search(run.model, SearchOptions(beam_size, found.shape[1]), run.params, {"encoder_input_tokens": source}, limits)
        np.testing.assert_array_equal(found, wanted.tokens_BWT[:, 0])
        np.testing.assert_allclose(scores, wanted.scores_BW[:, 0], rtol=1e-5)


def test_the_longest_translation_has_room():
    from jaxnmt.decoding.batches import output_limit

    for ratio, extra in ((1.5, 20), (0.0, 1), (1.3333333, 0), (2.0, 7)):
        settings = cfg.Decoding(max_length_ratio=ratio, max_length_extra=extra)
        assert all(stablehlo._target_length(length, settings) >= output_limit(length, settings) for length in range(1, 600))


@pytest.mark.parametrize("name", ["stablehlo", "onnx"])
def test_what_it_cannot_hold_is_refused_by_name(name, tmp_path):
    labels = SimpleNamespace(config=cfg.replace(cfg.Experiment(), task=cfg.Classification()), weights="trained")
    assert "trained for the task Classification" in format_of(name).refusal(labels)
    run = foreign.run(tmp_path / "run")
    with pytest.raises(UserError, match="leave out --weights int8"):
        jaxnmt.export_model(jaxnmt.load(run.folder, weights="int8"), tmp_path / "out", name)


def test_pieces_that_others_number_are_refused_since_the_loader_reads_sentencepieces_own_ids(tmp_path):
    run = foreign.run(tmp_path / "run")
    size = foreign.tokenizer_files(tmp_path)
    numbering = Numbering(tuple(json.loads((tmp_path / "vocab.json").read_text())), size - 1, 0, 1)
    run.tokenizer = Tokenizer(*(Pieces((tmp_path / f"{side}.spm").read_bytes(), numbering) for side in ("source", "target")))
    assert stablehlo.refusal(run).endswith("use ctranslate2 or safetensors")


def test_the_program_keeps_empty_lines_empty_and_answers_mistakes_in_a_sentence(tmp_path):
    save_programs(tmp_path, "stablehlo_loader.py")
    (tmp_path / "loader.py").write_text("def load(beam_size=5):\n    return lambda sentences: [[beam_size, *ids] for ids in sentences]\n")

    def said(text: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, tmp_path / "translate.py", *words], input=text, capture_output=True, text=True)

    assert said("3 4\n\n  5\n").stdout == "5 3 4\n\n5 5\n" and said("3", "1").stdout == "1 3\n"
    for made in (said("drei"), said("3", "beam")):
        assert made.returncode == 1 and made.stderr.startswith("translate.py: invalid") and made.stderr.count("\n") == 1


def test_a_corrupted_export_is_caught(tmp_path, monkeypatch):
    run, right = foreign.run(tmp_path / "run"), np.savez

    def swapped(file, **arrays):
        names = [f"params/decoder/layer_0/{kind}_norm/scale" for kind in ("cross_attention", "mlp")]
        right(file, **arrays | {names[0]: arrays[names[1]], names[1]: arrays[names[0]]})

    monkeypatch.setattr(np, "savez", swapped)
    with pytest.raises(UserError, match="the exported files translate differently"):
        jaxnmt.export_model(run, tmp_path / "out", "stablehlo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v.tsv"]


@pytest.mark.slow
def test_the_loader_is_a_program(tmp_path):
    run = foreign.run(tmp_path / "run")
    jaxnmt.export_model(run, tmp_path / "out", "stablehlo")
    lines = foreign.lines(3, 9)
    made = subprocess.run([sys.executable, tmp_path / "out/translate.py", "1"], input="\n".join(lines), capture_output=True, text=True)
    assert made.stdout.splitlines() == [each.text for each in run.translate(lines, beam_size=1)]
