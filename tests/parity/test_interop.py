"""Marian and Pegasus by transformers itself: logits of imported models, files of exported ones, tokens, greedy and beam search."""

from __future__ import annotations

import json

import foreign
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxnmt
from jaxnmt.errors import UserError
from jaxnmt.interop import huggingface, transformers_files

transformers = pytest.importorskip("transformers", reason="transformers is the software that is compared with: pip install transformers")
from safetensors.numpy import load_file  # noqa: E402

MODELS = {"marian": transformers.MarianMTModel, "pegasus": transformers.PegasusForConditionalGeneration}
FORMS = {
    "marian": {"scale_embedding": True, "activation_function": "swish"},
    "marian_gelu": {"activation_function": "gelu", "encoder_layers": 3},
    "marian_two_tables": {"scale_embedding": True, "activation_function": "relu", "share_encoder_decoder_embeddings": False},
    "marian_three_tables": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    "pegasus": {"scale_embedding": True, "activation_function": "relu"},
    "pegasus_gelu_new": {"activation_function": "gelu_new", "decoder_layers": 1},
}
TINY = {"d_model": 24, "heads": 3, "ffn_dim": 40, "layers": 2, "max_position_embeddings": 64}
BASE = {"d_model": 512, "heads": 8, "ffn_dim": 2048, "layers": 6, "max_position_embeddings": 512}


def written(folder, form: str, sizes: dict, vocabulary: int = 0):
    """Write a folder with a random model, as transformers saves it; no number is left at zero or one."""
    kind = form.partition("_")[0]
    folder.mkdir()
    size = foreign.tokenizer_files(folder)
    if vocabulary:
        table = json.loads((folder / "vocab.json").read_text())
        tokens = [*list(table)[:-1], *(f"filler{index}" for index in range(vocabulary - size)), "<pad>"]
        (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
        size = vocabulary
    per_stack = {
        f"{stack}_{name}": sizes[short]
        for stack in ("encoder", "decoder")
        for name, short in (("layers", "layers"), ("attention_heads", "heads"), ("ffn_dim", "ffn_dim"))
    }
    ids = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1, "eos_token_id": 0, "forced_eos_token_id": 0}
    own = {name: sizes[name] for name in ("d_model", "max_position_embeddings")}
    config = MODELS[kind].config_class(**{**own, **per_stack, **ids, "vocab_size": size, **FORMS[form]})
    torch.manual_seed(0)
    model = MODELS[kind](config).eval()
    with torch.no_grad():
        for name, x in [*model.named_parameters(), ("bias", model.final_logits_bias)]:
            if "embed_positions" not in name:
                x.add_(torch.randn(x.shape), alpha=0.1 if sizes is TINY else 0.02)
    model.generation_config = transformers.GenerationConfig(**ids, num_beams=3, length_penalty=0.8)
    model.save_pretrained(folder)
    return model


def assert_it_comes_in_and_goes_out(folder, form: str, sizes: dict, vocabulary: int = 0) -> None:
    """Import a random model, compare logits, export it and compare files."""
    theirs = written(folder / "in", form, sizes, vocabulary)
    run = jaxnmt.import_model(folder / "in", folder / "run")
    random, numbering = np.random.default_rng(0), run.tokenizer.subwords["source"][1]
    source, target = (random.integers(2, len(numbering.tokens) - 1, (4, length)) for length in (9, 7))
    lengths, begin = np.array([9, 7, 1, 4]), np.full((4, 1), numbering.pad)
    source[np.arange(9) >= lengths[:, None]] = numbering.pad
    target = np.concatenate([begin, target], 1)
    with torch.inference_mode():
        mask = torch.tensor(np.arange(9) < lengths[:, None])
        wanted = theirs(input_ids=torch.tensor(source), attention_mask=mask, decoder_input_ids=torch.tensor(target)).logits.numpy()
    ours = numbering.ours
    batch = {
        "encoder_input_tokens": jnp.where(source == numbering.pad, 0, ours[source]),
        "decoder_input_tokens": jnp.asarray(ours[target]),
    }
    found = np.asarray(run.model.decode(run.params, run.model.encode(run.params, batch), batch))[..., ours]
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)
    jaxnmt.export_model(run, folder / "out", form.partition("_")[0])
    one, other = (load_file(folder / name / "model.safetensors") for name in ("in", "out"))
    assert one.keys() == other.keys()
    for name, x in one.items():
        np.testing.assert_array_equal(x, other[name], err_msg=name)
    before, after = (json.loads((folder / name / "config.json").read_text()) for name in ("in", "out"))
    assert {name: before[name] for name in after if name in before} == {name: x for name, x in after.items() if name in before}
    assert {name: x for name, x in after.items() if name not in before and x is not None} == {}
    for name in ("source.spm", "target.spm"):
        assert (folder / "in" / name).read_bytes() == (folder / "out" / name).read_bytes()
    assert json.loads((folder / "in/vocab.json").read_text()) == json.loads((folder / "out/vocab.json").read_text())


@pytest.fixture
def unchecked(monkeypatch):
    """Exports are compared with files, not with translations. Beams of random models differ where the end token is among the worst of 2W
    candidates: transformers ends a hypothesis only if it is among the best W."""
    monkeypatch.setattr(transformers_files, "TransformersRuntime", lambda *folder: None)


@pytest.mark.parametrize("form", FORMS)
def test_a_random_model_comes_in_with_its_logits_and_goes_out_to_the_bit(form, tmp_path, unchecked):
    assert_it_comes_in_and_goes_out(tmp_path, form, TINY)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["marian", "pegasus"])
def test_so_does_one_of_the_usual_size(form, tmp_path, unchecked):
    assert_it_comes_in_and_goes_out(tmp_path, form, BASE, 8000)


def test_the_tokens_are_those_of_its_tokenizer(tmp_path):
    written(tmp_path / "in", "marian", TINY)
    run, theirs = jaxnmt.import_model(tmp_path / "in", tmp_path / "run"), transformers.MarianTokenizer.from_pretrained(tmp_path / "in")
    ours = run.tokenizer.subwords["source"][1].ours
    texts = [*foreign.lines(20, 5), ">>en<< das haus", ">>xx<< das haus", "ein ħaus", "a  b", "Das Haus ist GROSS!"]
    wanted = [ours[ids].tolist() for ids in theirs(texts)["input_ids"]]
    known = [ids for ids, text in zip(wanted, texts, strict=True) if ">>xx<<" not in text]
    assert [[*ids, 2] for ids in run.tokenizer.encode_source([text for text in texts if ">>xx<<" not in text])] == known
    assert run.config.decoding.beam_size == 3 and run.config.decoding.length_penalty == 0.8


RUNS = {
    "marian": {"norm_order": "post", "tie_embeddings": "decoder", "joint": False},
    "pegasus": {"norm_order": "pre", "kind": "unigram"},
}


@pytest.mark.parametrize("form", RUNS)
def test_a_run_that_goes_out_translates_there_as_here(form, tmp_path):
    run = foreign.run(tmp_path / "run", **RUNS[form])
    rates = jaxnmt.export_model(run, tmp_path / "out", form.partition("_")[0])
    assert [each.same for each in rates] == [12, 12]
    assert transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").config.decoder_start_token_id is not None


def test_its_own_software_catches_a_corrupted_export(tmp_path, monkeypatch):
    run, right = foreign.run(tmp_path / "run", norm_order="post"), huggingface.theirs
    swap = lambda tensor, *rest: right(tensor._replace(part={0: 1, 1: 0}.get(tensor.part, tensor.part)), *rest)  # noqa: E731
    monkeypatch.setattr(huggingface, "theirs", swap)
    with pytest.raises(UserError, match="the exported files translate differently"):
        jaxnmt.export_model(run, tmp_path / "out", "marian")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v.tsv"]
