"""Runs go to Marian and Pegasus folders and come back: the same numbers, tokens and files. tests/parity asks transformers itself."""

from __future__ import annotations

import json

import foreign
import numpy as np
import pytest

import jaxnmt

pytest.importorskip("safetensors", reason="models are exchanged in the format safetensors")
from safetensors.numpy import load_file  # noqa: E402

FORMS = {
    "marian": {"norm_order": "post", "activation": "silu"},
    "pegasus": {"norm_order": "pre", "num_decoder_layers": 2},
    "marian_two_tables": {"norm_order": "post", "tie_embeddings": "decoder"},
    "marian_three_tables": {"norm_order": "post", "tie_embeddings": "none", "output_bias": True},
}


@pytest.fixture(scope="module", params=FORMS)
def exported(request, tmp_path_factory):
    """A run, the folder that it was exported to, and the run that was imported from there."""
    folder = tmp_path_factory.mktemp(request.param)
    run = foreign.run(folder / "run", joint="tables" not in request.param, **FORMS[request.param])
    to = request.param.partition("_")[0]
    jaxnmt.export_model(run, folder / "out", to)
    return run, folder / "out", jaxnmt.import_model(folder / "out", folder / "back"), to


def test_what_goes_out_comes_back(exported):
    run, _, back, _ = exported
    ours, theirs = foreign.arrays(run.params), foreign.arrays(back.params)
    bias = theirs.pop("output_bias")
    ours.pop("output_bias", None)
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        if name.endswith("_embedding/table"):  # padding is never read, and other ids are no tokens
            size = run.tokenizer.source_vocab_size if name.startswith("source") else run.tokenizer.target_vocab_size
            np.testing.assert_array_equal(x[1:size], theirs[name][1:size], err_msg=name)
        else:
            np.testing.assert_array_equal(x, theirs[name], err_msg=name)
    assert run.config.model.output_bias or (bias[2:] == 0).all()


def test_it_translates_alike(exported):
    run, _, back, _ = exported
    texts = foreign.lines(20, 3)
    assert run.tokenizer.encode_source(texts) == back.tokenizer.encode_source(texts)
    for beam_size in (1, 3):
        ours, theirs = (each.translate(texts, beam_size=beam_size, max_length_extra=4) for each in (run, back))
        assert [each.tokens for each in ours] == [each.tokens for each in theirs]
        assert [each.text for each in ours] == [each.text for each in theirs]
        np.testing.assert_allclose([each.score for each in ours], [each.score for each in theirs], rtol=1e-5)


def test_its_second_export_is_the_same_files(exported, tmp_path):
    _, out, back, to = exported
    jaxnmt.export_model(back, tmp_path / "again", to, data=str(back.folder.parent / "v.tsv"))
    one, other = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "again"))
    assert one.keys() == other.keys() and all((x == other[name]).all() for name, x in one.items())
    for name in sorted(path.name for path in out.iterdir() if path.suffix in (".json", ".spm") and path.stem != "generation_config"):
        if name == "tokenizer_config.json":
            continue  # a model that others trained reads longer sentences than ours were
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_the_card_says_what_it_is(exported):
    run, out, _, to = exported
    card = (out / "README.md").read_text()
    assert 'language: ["de", "en"]' in card and f"in the format {to}" in card and run.checkpoint in card


def test_a_run_of_another_begins_with_it(exported, tmp_path):
    """`init.from` takes an imported run."""
    _, _, back, _ = exported
    settings = {"data.train": (str(back.folder.parent / "v.tsv"),), "data.held_out": 2, "training.steps": 1, "init.from": str(back.folder)}
    cleaning = {
        "data.cleaning.drop_duplicates": False,
        "data.cache": str(tmp_path / "cache"),
        "data.workers": 1,
        "validation.metric": "loss",
    }
    made = jaxnmt.replace(
        back.config,
        **settings,
        **cleaning,
        **{"data.validation": (), "data.max_length": 16, "batching.tokens": 256, "batching.row_length": 16},
    )
    run = jaxnmt.train(made, folder=tmp_path / "run")
    assert run.tokenizer.fingerprint() == back.tokenizer.fingerprint()


def test_pieces_that_the_table_lacks_are_unknown(tmp_path):
    from jaxnmt.data.pieces import Numbering, Pieces

    size = foreign.tokenizer_files(tmp_path)
    tokens = list(json.loads((tmp_path / "vocab.json").read_text()))
    vocabulary = Pieces((tmp_path / "source.spm").read_bytes(), Numbering(tuple(tokens), size - 1, 0, 1))
    (plain,), (coded,), (odd,) = (vocabulary.encode([text]) for text in ("das haus", ">>en<< das haus", "das ħaus"))
    assert coded == [vocabulary.encode([">>en<<"])[0][0], *plain] and vocabulary.piece(coded[0]) == ">>en<<"
    assert 3 in odd and 3 not in plain and vocabulary.decode(plain) == "das haus"
    assert vocabulary.numbering.ours.tolist()[:3] == [2, 3, 4] and vocabulary.numbering.ours[-1] == 1
