"""Settings and tokenizers of M2M100 and NLLB: the ids of their tokens, and files that do not fit. tests/parity has their numbers."""

from __future__ import annotations

import json
import os

import foreign
import pytest

from jaxnmt.data.tokenizer import load_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.interop import huggingface_files

LANGUAGES = ["deu_Latn", "eng_Latn"]
CONFIG = {
    **{"model_type": "m2m_100", "d_model": 8, "max_position_embeddings": 64, "activation_function": "relu"},
    **{f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "ffn_dim", "attention_heads")},
    **{"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 2},
}


def written(folder, has_table: bool) -> list[str]:
    tokens = foreign.fairseq_files(folder, LANGUAGES, has_table)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": len(tokens) + 3}))
    return tokens


@pytest.fixture(params=[False, True], ids=["nllb", "m2m100"])
def read(request, tmp_path):
    """What is read of a folder, and the tokens there."""
    tokens = written(tmp_path, request.param)
    return huggingface_files.read(tmp_path), tokens


def test_ids_are_special_tokens_pieces_languages_and_unused_rows(read):
    found, tokens = read
    numbering = found.numberings["source"]
    assert list(numbering.tokens[: len(tokens)]) == tokens and len(numbering.tokens) == len(tokens) + 3
    assert (numbering.bos, numbering.pad, numbering.eos, numbering.unk, numbering.begin) == (0, 1, 2, 3, 2)
    assert numbering.ours[:5].tolist() == [1, 0, 2, 3, 4] and numbering.ours[-1] == len(tokens) + 2
    model = found.experiment.model
    assert (model.positions, model.norm_order, model.tie_embeddings, model.scale_embeddings) == ("fairseq", "pre", "all", True)
    assert not model.output_bias and found.experiment.data.source_language == ""


def test_a_language_is_a_token_only_as_the_first_word(read, tmp_path):
    tokenizer = read[0].tokenizer
    plain, coded, inside, glued = tokenizer.encode_source(["das haus", " eng_Latn  das haus", "das eng_Latn haus", "eng_Latndas haus"])
    language = tokenizer.encode_source(["eng_Latn"])[0]
    assert len(language) == 1 and coded == language + plain and tokenizer.source_pieces(language) == ["eng_Latn"]
    assert language[0] not in inside and language[0] not in glued
    assert tokenizer.decode_target(coded) == "das haus"
    tokenizer.save(tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    assert again.encode_source([" eng_Latn  das haus"]) == [coded] and again.fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize("word", ["eng_Latm", "eng_latn", "end_Latn"])
def test_a_mistyped_language_is_refused(word, read):
    tokenizer = read[0].tokenizer
    with pytest.raises(UserError, match=f"begins with {word}, which is not one of the model's 2 languages; did you mean .*eng_Latn"):
        tokenizer.encode_source([f"{word} das haus"])
    assert all(tokenizer.encode_target(["das_haus", "haus_boot das", f"das {word}", "__init__", "_"]))


def change(folder, name: str, function) -> None:
    path = folder / name
    path.write_text(json.dumps(function(json.loads(path.read_text()) if path.exists() else {})))


def listed(languages):
    return lambda f: change(f, "special_tokens_map.json", lambda m: m | {"additional_special_tokens": languages})


MODEL = "sentencepiece.bpe.model"
HOSTILE = {
    "no model": (lambda f: (f / MODEL).unlink(), "has no sentencepiece.bpe.model"),
    "no SentencePiece": (lambda f: (f / MODEL).write_bytes(b"evil"), "is not a SentencePiece model, or is damaged"),
    "huge": (lambda f: os.truncate(f / MODEL, 2**34), "has 17,179,869,184 bytes"),
    "no list": (lambda f: (f / "special_tokens_map.json").unlink(), "does not list its language tokens: fetch special_tokens_map.json"),
    "an empty list": (listed([]), "does not list its language tokens"),
    "special tokens alone": (listed(["<s>", {"content": "<mask>"}]), "does not list its language tokens"),
    "numbers": (listed([1, 2]), "does not list language tokens, each a word and once"),
    "lists": (listed([["eng_Latn"]]), "does not list language tokens, each a word and once"),
    "two words": (listed(["eng Latn"]), "does not list language tokens, each a word and once"),
    "twice": (listed([*LANGUAGES, *LANGUAGES]), "does not list language tokens, each a word and once"),
    "too many": (listed([f"l{i}" for i in range(100)]), "tokens with its languages, and config.json says"),
    "rows": (lambda f: change(f, "config.json", lambda c: c | {"vocab_size": 2**22}), "config.json says 4,194,304"),
    "other ids": (
        lambda f: change(f, "tokenizer_config.json", lambda c: {"added_tokens_decoder": {"9": {"content": "eng_Latn"}}}),
        "eng_Latn has the id 9, and in the order of vocabulary and languages it has",
    ),
    "unknown": (lambda f: change(f, "tokenizer_config.json", lambda c: {"unk_token": []}), "vocab.json has no token '[]' for unknown"),
    "padding": (lambda f: change(f, "config.json", lambda c: c | {"pad_token_id": 0}), "pad_token_id is 0, and of M2M100 and NLLB it is 1"),
    "begin": (lambda f: change(f, "config.json", lambda c: c | {"decoder_start_token_id": 1}), "decoder_start_token_id is 1, and of"),
    "tables": (lambda f: change(f, "config.json", lambda c: c | {"tie_word_embeddings": False}), "tie_word_embeddings is not true"),
    "table": (lambda f: change(f, "vocab.json", lambda v: v | {"</s>": v["<s>"], "<s>": v["</s>"]}), "vocab.json begins with"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_do_not_fit(name, tmp_path):
    written(tmp_path, has_table=name in ("table", "unknown"))
    spoil, says = HOSTILE[name]
    spoil(tmp_path)
    with pytest.raises(UserError) as error:
        huggingface_files.read(tmp_path)
    assert says in str(error.value) and str(tmp_path) in str(error.value)


def test_a_model_of_other_pieces_is_refused(tmp_path):
    """A SentencePiece model of jaxnmt has padding first; NLLB's has unknown."""
    written(tmp_path, has_table=False)
    foreign.run(tmp_path / "run")
    (tmp_path / MODEL).write_bytes((tmp_path / "run/tokenizer/joint.model").read_bytes())
    with pytest.raises(UserError, match=r"has unknown, begin and end at \(3, 1, 2\), and NLLB's has them at \(0, 1, 2\)"):
        huggingface_files.read(tmp_path)
