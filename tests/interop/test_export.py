"""What `export` refuses, and that it catches what it has written wrongly: a format's own software is played by our import."""

from __future__ import annotations

from pathlib import Path

import foreign
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt.errors import UserError
from jaxnmt.interop import formats, huggingface, plain, tensors, transformers_formats

pytest.importorskip("safetensors", reason="models are exchanged in the format safetensors")
from safetensors.numpy import load_file  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return foreign.run(tmp_path_factory.mktemp("export") / "run", norm_order="post")


class Imported:
    """Translates by a run that is imported from the files."""

    name, decoding, least = "the import", formats.plain_search(length_normalization="average", length_penalty=1.0), 0.99
    is_float32 = True

    def __init__(self, folder: Path, place: Path):
        self._run = jaxnmt.import_model(folder, place)

    def translate(self, sources, beam_size):
        settings = {**self.decoding, "max_length_extra": 4, "beam_size": beam_size}
        return [list(each.tokens) for each in self._run.translate([source.text for source in sources], **settings)]


@pytest.fixture
def checks(monkeypatch, tmp_path):
    monkeypatch.setattr(transformers_formats.MARIAN, "runtime", lambda run, folder: Imported(folder, tmp_path / "imported"))


def test_an_export_says_how_many_sentences_it_has_checked(run, checks, tmp_path):
    found = jaxnmt.export_model(run, tmp_path / "out", "marian")
    assert [(each.beam_size, each.same, each.sentences) for each in found] == [(1, 12, 12), (5, 12, 12)]
    assert (
        "the import and jaxnmt translate to the same tokens: greedy: 12 of 12; beam 5: 12 of 12" in (tmp_path / "out/README.md").read_text()
    )


def test_a_run_that_computes_in_bfloat16_is_compared_in_float32(checks, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))
    run = foreign.run(tmp_path / "run", norm_order="post", dtype="bfloat16")
    (tmp_path / "v.tsv").write_text("".join(f"{line}\t{line}\n" for line in foreign.lines(60, 7)))
    found = jaxnmt.export_model(run, tmp_path / "out", "marian")
    assert [each.same for each in found] == [60] and run.config.model.dtype == "bfloat16"


FAULTS = {
    "queries and keys are swapped": lambda tensor: tensor._replace(part={0: 1, 1: 0}.get(tensor.part, tensor.part)),
    "rows are of other tokens": lambda tensor: tensor,
    "a layer's norms are swapped": lambda tensor: tensor._replace(path=tensor.path.replace("cross_attention_norm", "mlp_norm")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_corrupted_export_is_caught_and_leaves_nothing(fault, run, checks, tmp_path, monkeypatch):
    right = huggingface.theirs

    def wrong(tensor, params, numberings):
        x = right(FAULTS[fault](tensor), params, numberings)
        return np.roll(x, 1, 0) if fault.startswith("rows") and x.shape[0] > 1 and tensor.side else x

    monkeypatch.setattr(huggingface, "theirs", wrong)
    with pytest.raises(UserError, match="the exported files translate differently, greedy: .* nothing was kept"):
        jaxnmt.export_model(run, tmp_path / "out", "marian")
    assert [path.name for path in tmp_path.iterdir()] == ["imported"]


def test_safetensors_has_every_parameter(run, tmp_path):
    jaxnmt.export_model(run, tmp_path / "out", "safetensors")
    found, ours = load_file(tmp_path / "out/model.safetensors"), foreign.arrays(run.params)
    assert found.keys() == ours.keys() and all((x == found[name]).all() for name, x in ours.items())
    assert (tmp_path / "out/config.json").read_bytes() == (run.folder / "config.json").read_bytes()
    assert plain.NEEDS == "" and "not been compared" in (tmp_path / "out/README.md").read_text()


REFUSED = {
    "pegasus": ({"norm_order": "post"}, "it has pre-norm layers only, and model.norm_order is post: --to marian holds it"),
    "marian": ({"norm_order": "pre"}, "it has post-norm layers only, and model.norm_order is pre: --to pegasus holds it"),
    "marian norm": ({"norm": "rmsnorm"}, "model.norm must be layernorm, and it is rmsnorm: --to safetensors holds every model"),
    "marian positions": ({"positions": "rotary"}, "model.positions must be sinusoidal, and it is rotary"),
    "pegasus activation": ({"activation": "swiglu"}, "model.activation must be relu or gelu or gelu_exact or silu, and it is swiglu"),
    "pegasus heads": ({"head_dim": 6}, "all heads together are as wide as model.emb_dim 16, and model.head_dim is 6"),
    "pegasus tables": ({"tie_embeddings": "decoder"}, "one table for source, target and output, and model.tie_embeddings is decoder"),
    "marian pre-norm tables": (
        {"norm_order": "pre", "tie_embeddings": "decoder"},
        "it has post-norm layers only, and model.norm_order is pre: --to safetensors holds every model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_format_cannot_hold_is_refused_with_one_that_can(name, run, tmp_path, monkeypatch):
    changes, says = REFUSED[name]
    other = jaxnmt.load(run.folder)
    other.config = jaxnmt.replace(run.config, model=jaxnmt.replace(tiny.BASE, **changes))
    with pytest.raises(UserError) as refused:
        jaxnmt.export_model(other, tmp_path / "out", name.partition(" ")[0])
    assert says in str(refused.value) and str(run.folder) in str(refused.value)


def test_weights_that_are_rounded_are_refused(run, tmp_path):
    for weights in ("int8", "bfloat16"):
        with pytest.raises(UserError, match=f"it holds weights as they were trained: leave out --weights {weights}"):
            jaxnmt.export_model(jaxnmt.load(run.folder, weights=weights), tmp_path / "out", "safetensors")


def test_a_trained_bias_of_padding_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(transformers_formats.MARIAN, "runtime", lambda run, folder: None)
    biased = foreign.run(tmp_path / "run", norm_order="post", output_bias=True)
    jaxnmt.export_model(biased, tmp_path / "out", "marian")
    found, ours = load_file(tmp_path / "out/model.safetensors")["final_logits_bias"][0], foreign.arrays(biased.params)["output_bias"]
    assert found[-1] == -1e9 and ours[1] != -1e9 and found[:2].tolist() == ours[2:4].tolist()


def test_scalars_stay_scalars(tmp_path):
    tensors.save(tmp_path / "x.safetensors", {"scalar": np.float32(3), "turned": np.arange(6.0).reshape(2, 3).T})
    found = load_file(tmp_path / "x.safetensors")
    assert found["scalar"].shape == () and found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_other_models_and_text_in_words_are_refused(run, tmp_path):
    other = jaxnmt.load(run.folder)
    other.config = jaxnmt.replace(run.config, model=tiny.RNN)
    with pytest.raises(UserError, match="it is a Transformer, and the model is a Recurrent: --to safetensors"):
        jaxnmt.export_model(other, tmp_path / "out", "marian")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "onyx"], "--to onyx: choose one of "),
        ([], "--to is missing: choose one of "),
        (["--to", "pegasus"], "--to pegasus cannot hold "),
    ],
)
def test_a_mistake_is_one_sentence(words, says, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", str(run.folder), "out", *words]) == 2
    assert f"error: {says}" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_folder_that_exists_stays(run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists: choose another folder, or remove it"):
        jaxnmt.export_model(run, tmp_path / "out", "marian")
    with pytest.raises(UserError, match="there is no folder"):
        jaxnmt.export_model(run, tmp_path / "missing/out", "marian")
