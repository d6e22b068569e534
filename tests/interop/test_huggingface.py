"""Runs go to Marian and Pegasus folders and come back: the same numbers, tokens and files. tests/parity asks transformers itself."""

from __future__ import annotations

import functools
import io
import json
import re
import shutil

import foreign
import numpy as np
import pytest
from sentencepiece import SentencePieceTrainer

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.data.pieces import Numbering, Pieces
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.interop import huggingface_files

pytest.importorskip("safetensors", reason="models are exchanged in the format safetensors")
from safetensors.numpy import load_file  # noqa: E402

FORMS = {
    "marian": {"norm_order": "post", "activation": "silu"},
    "pegasus": {"norm_order": "pre", "num_decoder_layers": 2},
    "marian_two_tables": {"norm_order": "post", "tie_embeddings": "decoder"},
    "marian_three_tables": {"norm_order": "post", "tie_embeddings": "none", "output_bias": True},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of a form: a run, the folder that it was exported to, the run that was imported from there, and the format."""

    @functools.cache
    def make(form: str):
        folder, to = tmp_path_factory.mktemp(form), form.partition("_")[0]
        run = foreign.run(folder / "run", joint="tables" not in form, **FORMS[form])
        jaxnmt.export_model(run, folder / "out", to)
        return run, folder / "out", jaxnmt.import_model(folder / "out", folder / "back"), to

    return make


@pytest.fixture(params=FORMS)
def exported(request, made):
    return made(request.param)


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


def test_it_translates_alike(made):
    """tests/interop/test_export.py compares the translations of marian."""
    run, _, back, _ = made("pegasus")
    texts = foreign.lines(20, 3)
    assert run.tokenizer.encode_source(texts) == back.tokenizer.encode_source(texts)
    ours, theirs = (each.translate(texts, beam_size=3, max_length_extra=4) for each in (run, back))
    assert [(each.tokens, each.text) for each in ours] == [(each.tokens, each.text) for each in theirs]
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


@pytest.mark.slow
def test_a_new_run_begins_with_it(made, tmp_path):
    _, _, back, _ = made("pegasus")
    lines = str(back.folder.parent / "v.tsv")
    data = {"data.train": (lines,), "data.validation": (lines,), "data.cache": str(tmp_path / "cache"), "data.workers": 1}
    small = {"training.steps": 1, "batching.tokens": 256, "batching.row_length": 32, "data.max_length": 24, "validation.metric": "loss"}
    run = jaxnmt.train(jaxnmt.replace(back.config, **data, **small, **{"init.from": str(back.folder)}), folder=tmp_path / "run")
    assert run.tokenizer.fingerprint() == back.tokenizer.fingerprint()
    (begun,) = [record for record in run.metrics if record["kind"] == "init"]
    assert begun["parameters"] == sum(x.size for x in foreign.arrays(back.params).values())


def test_pieces_that_the_table_lacks_are_unknown(tmp_path):
    size = foreign.tokenizer_files(tmp_path)
    tokens = list(json.loads((tmp_path / "vocab.json").read_text()))
    vocabulary = Pieces((tmp_path / "source.spm").read_bytes(), Numbering(tuple(tokens), size - 1, 0, 1))
    (plain,), (coded,), (odd,) = (vocabulary.encode([text]) for text in ("das haus", ">>en<< das haus", "das ħaus"))
    assert coded == [vocabulary.encode([">>en<<"])[0][0], *plain] and vocabulary.piece(coded[0]) == ">>en<<"
    assert 3 in odd and 3 not in plain and vocabulary.decode(plain) == "das haus"
    assert vocabulary.numbering.ours.tolist()[:3] == [2, 3, 4] and vocabulary.numbering.ours[-1] == 1


@pytest.fixture
def pieces(tmp_path):
    """The vocabularies of both sides, which share a table: each side's model lacks pieces of the other."""
    size = foreign.tokenizer_files(tmp_path)
    numbering = Numbering(tuple(json.loads((tmp_path / "vocab.json").read_text())), size - 1, 0, 1)
    return [Pieces((tmp_path / f"{side}.spm").read_bytes(), numbering, side) for side in ("source", "target")]


def test_pieces_of_the_other_sides_model_are_decoded_too(pieces):
    source, target = pieces
    (ids,) = source.encode(["das haus"])
    assert any(target._processor.piece_to_id(source.piece(index)) == target._processor.unk_id() for index in ids)
    assert target.decode(ids) == "das haus"


def test_imported_pieces_spell_the_tokens_of_another_vocabulary(pieces):
    old = Tokenizer(*pieces)
    new = train_tokenizer(cfg.Tokenizer(kind="unigram", vocab_size=30, byte_fallback=False), [(line, line) for line in foreign.lines(200)])
    spelt = old.spellings(new, "source")
    assert len(spelt) == new.source_vocab_size
    wanted = new.source_pieces(range(new.source_vocab_size))
    assert all("".join(old.source_pieces(ids)) == piece for ids, piece in zip(spelt[4:], wanted[4:], strict=True) if ids)
    assert sum(map(bool, spelt)) > len(spelt) // 2
    assert old.spellings(old, "target") == [[index] for index in range(old.target_vocab_size)]


def test_two_vocabularies_have_padding_at_one_id(made, tmp_path):
    run, out, _, _ = made("marian_two_tables")
    fewer = train_tokenizer(cfg.replace(run.config.tokenizer, vocab_size=32), [(line, line) for line in foreign.lines(200)])
    other = jaxnmt.load(run.folder)
    other.tokenizer = run.tokenizer.with_target(fewer)
    says = "in vocabularies of 39 and 31 tokens they are (38, 0, 1) and (30, 0, 1): --to safetensors"
    with pytest.raises(UserError, match=re.escape(says)):
        jaxnmt.export_model(other, tmp_path / "out", "marian")
    shutil.copytree(out, tmp_path / "in")
    table = json.loads((tmp_path / "in/target_vocab.json").read_text())
    pad, end = "<pad>", "</s>"
    (tmp_path / "in/target_vocab.json").write_text(json.dumps(table | {pad: table[end], end: table[pad]}))
    with pytest.raises(UserError, match="config.json has one id for both"):
        jaxnmt.import_model(tmp_path / "in", tmp_path / "run")


def test_pegasus_numbers_its_pieces_after_its_masks(tmp_path):
    """As in its paper's code: padding 0, end 1, masks to 104, unknown 105, and then the other pieces."""
    model = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    SentencePieceTrainer.train(sentence_iterator=iter(foreign.lines(200)), model_writer=model, vocab_size=30, minloglevel=2, **ids)
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    sizes = {"d_model": 8, "vocab_size": 133, "max_position_embeddings": 64}
    sizes |= {f"{s}_{n}": 2 for s in ("encoder", "decoder") for n in ("layers", "ffn_dim", "attention_heads")}
    form = {"model_type": "pegasus", "scale_embedding": True, "activation_function": "relu"}
    config = sizes | form | {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = huggingface_files.read(tmp_path)
    numbering = found.numberings["source"]
    assert (numbering.pad, numbering.eos, numbering.unk, len(numbering.tokens)) == (0, 1, 105, 133)
    assert numbering.tokens[2:5] == ("<mask_1>", "<mask_2>", "<unk_2>") and numbering.tokens[104:106] == ("<unk_102>", "<unk>")
    (tokens,) = found.tokenizer.encode_source(["das haus"])
    assert found.tokenizer.decode_source(tokens) == "das haus" and found.tokenizer.joint
    assert found.experiment.model.norm_order == "pre" and found.experiment.data.max_length == 29
