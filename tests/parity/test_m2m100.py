"""M2M100 and NLLB by transformers itself: logits of imported models, tokens of texts, translations with a forced language token."""

from __future__ import annotations

from pathlib import Path

import foreign
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
import torch

import jaxnmt
from jaxnmt import cli
from jaxnmt.decoding.batches import output_limit

transformers = pytest.importorskip("transformers", reason="transformers is the software that is compared with: pip install transformers")
from transformers.models.m2m_100 import tokenization_m2m_100  # noqa: E402

SIZES = {"d_model": 24, "max_position_embeddings": 64}
LANGUAGES = {"m2m100": ("__de__", "__en__"), "nllb": ("deu_Latn", "eng_Latn")}
UNUSED = 5
"""Rows of the table that are no tokens."""


def written(folder: Path, kind: str):
    """Write a folder with a random model in several files, as transformers saves it. Returns the model and its tokens."""
    folder.mkdir()
    codes = tokenization_m2m_100.FAIRSEQ_LANGUAGE_CODES["m2m100"]
    languages = [f"__{code}__" for code in codes] if kind == "m2m100" else ["ace_Arab", "deu_Latn", "eng_Latn", "zul_Latn"]
    tokens = foreign.fairseq_files(folder, languages, has_table=kind == "m2m100")
    sizes = {
        f"{stack}_{name}": x for stack in ("encoder", "decoder") for name, x in (("layers", 2), ("attention_heads", 3), ("ffn_dim", 40))
    }
    torch.manual_seed(1)
    model = transformers.M2M100ForConditionalGeneration(
        transformers.M2M100Config(**SIZES, **sizes, vocab_size=len(tokens) + UNUSED, scale_embedding=kind == "m2m100")
    ).eval()
    with torch.no_grad():
        for name, x in model.named_parameters():  # translations end in models that are sure of their words
            x.add_(torch.randn(x.shape), alpha=0.5 if name == "model.shared.weight" else 0.1)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    return model, tokens


@pytest.fixture(scope="module", params=LANGUAGES)
def imported(request, tmp_path_factory):
    """The kind, transformers' model, its tokens, the folder and the run that it became."""
    folder = tmp_path_factory.mktemp(request.param)
    model, tokens = written(folder / "in", request.param)
    return request.param, model, tokens, folder / "in", jaxnmt.import_model(folder / "in", folder / "run")


def test_logits_are_the_same(imported):
    """The begin token is left out: it never occurs in a text, and our decoder starts with the end token's vector instead."""
    _, theirs, tokens, _, run = imported
    ours = run.tokenizer.subwords["source"][1].ours
    random, lengths = np.random.default_rng(0), np.array([9, 7, 1, 4])
    source, target = (random.integers(3, len(tokens), (4, length)) for length in (9, 7))
    source[np.arange(9) >= lengths[:, None]] = 1
    target[:, 0] = 2
    with torch.inference_mode():
        mask = torch.tensor(np.arange(9) < lengths[:, None])
        wanted = theirs(input_ids=torch.tensor(source), attention_mask=mask, decoder_input_ids=torch.tensor(target)).logits.numpy()
    begin = np.array(ours[target])
    begin[:, 0] = 1  # as our decoder begins
    batch = {"encoder_input_tokens": jnp.asarray(ours[source]), "decoder_input_tokens": jnp.asarray(begin)}
    found = np.asarray(run.model.decode(run.params, run.model.encode(run.params, batch), batch))
    np.testing.assert_allclose(found[..., ours[1:]], wanted[..., 1:], atol=1e-4, rtol=1e-4)


def test_a_text_begins_with_its_languages_token(imported):
    kind, _, tokens, folder, run = imported
    texts = [*foreign.lines(20, 5), "ein ħaus", "a  b"]
    source = LANGUAGES[kind][0]
    if kind == "m2m100":
        theirs = transformers.M2M100Tokenizer.from_pretrained(folder, src_lang="de")
        wanted = theirs(texts)["input_ids"]
    else:  # by its own rule: pieces follow the four special tokens, and languages follow the pieces
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
        language = processor.vocab_size() + 1 + 1  # the second in the list
        wanted = [[language, *(index + 1 if index else 3 for index in processor.encode(" ".join(text.split()))), 2] for text in texts]
    ours = run.tokenizer.subwords["source"][1].ours
    assert [[*ids, 2] for ids in run.tokenizer.encode_source([f"{source} {text}" for text in texts])] == [
        ours[ids].tolist() for ids in wanted
    ]
    (ids,) = run.tokenizer.encode_target([f"{LANGUAGES[kind][1]} das haus"])
    assert run.tokenizer.target_pieces(ids)[0] == LANGUAGES[kind][1] and run.tokenizer.decode_target(ids) == "das haus"


def translated(theirs, ids: list[int], target: int, beam_size: int, limit: int, counts: bool) -> list[int]:
    """Return the tokens of a translation by transformers, the language's included.

    Args:
        counts: the log-probability of the language token counts, as in our search and fairseq's; transformers makes it 0. It also divides
            the sum by the length then.
    """

    def as_ours(made: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Take padding and begin out of the softmax, and force the end at the limit, as our search does."""
        scores[:, :2] = -torch.inf
        scores = scores.log_softmax(-1)
        if (forced := target if counts and made.shape[1] == 1 else 2 if made.shape[1] == limit else None) is not None:
            kept = scores[:, forced].clone()
            scores[:] = -torch.inf
            scores[:, forced] = kept
        return scores

    options = {"num_beams": beam_size, "max_new_tokens": limit, "max_length": None, "logits_processor": [as_ours]}
    options |= {"early_stopping": "never" if beam_size > 1 else False, "length_penalty": float(counts)}
    options |= {} if counts else {"forced_bos_token_id": target}
    with torch.inference_mode():
        (made,) = theirs.generate(torch.tensor([ids]), **options).tolist()
    assert made[0] == 2
    return made[1 : made.index(2, 1)]


@pytest.mark.parametrize(("beam_size", "counts"), [(1, False), (5, False), (5, True)])
def test_translations_are_the_same(beam_size, counts, imported):
    kind, theirs, tokens, _, run = imported
    (source, target), ours = LANGUAGES[kind], run.tokenizer.subwords["source"][1].ours
    texts = [f"{source} {line}" for line in foreign.lines(12, 3)]
    settings = {"beam_size": beam_size, "max_length_extra": 4, "length_normalization": "average", "length_penalty": float(counts)}
    found = run.translate(texts, prefix=target, **settings)
    back = {int(index): place for place, index in enumerate(ours)}
    for text, each in zip(texts, found, strict=True):
        (ids,) = run.tokenizer.encode_source([text])
        limit = output_limit(len(ids), run.decoding(settings)) + 1
        wanted = translated(theirs, [*(back[index] for index in ids), 2], tokens.index(target), beam_size, limit, counts)
        assert list(each.tokens) == run.tokenizer.target_pieces(ours[wanted])
        assert target not in each.text


@pytest.mark.parametrize("imported", ["nllb"], indirect=True)  # the random M2M100 model writes nothing but languages
def test_it_is_scored_in_the_language_of_a_prefix(imported, tmp_path, capsys):
    kind, *_, run = imported
    (source, target), lines = LANGUAGES[kind], foreign.lines(4, 3)
    texts = [f"{source} {line}" for line in lines]
    (tmp_path / "test.tsv").write_text("".join(f"{text}\t{line}\n" for text, line in zip(texts, lines, strict=True)))
    output = tmp_path / "found.txt"
    words = ["evaluate", str(run.folder), "--data", str(tmp_path / "test.tsv"), "--output", str(output), "--beam-size", "1"]
    assert cli.main([*words, "--prefix", target, "--min-length", "5"]) == 0 and "BLEU" in capsys.readouterr().out
    wanted = [each.text for each in run.translate(texts, prefix=target, beam_size=1, min_length=5)]
    assert output.read_text().splitlines() == wanted != [each.text for each in run.translate(texts, beam_size=1, min_length=5)]


def test_it_is_not_exported_to_marian(imported, tmp_path):
    with pytest.raises(jaxnmt.errors.UserError, match="model.positions must be sinusoidal, and it is fairseq"):
        jaxnmt.export_model(imported[-1], tmp_path / "out", "pegasus", data=str(tmp_path / "v.tsv"))
