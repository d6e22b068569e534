"""Adapters apart from their base: base + adapter ≡ the merged run, several of them share parameters and programs, and what is refused."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref

import foreign
import jax
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.config.files import save_config
from jaxnmt.errors import UserError
from jaxnmt.interop import adapter_files
from jaxnmt.models import parameters
from jaxnmt.runs import directory
from jaxnmt.training.lora import initial_adapter
from jaxnmt.training.paths import by_path

pytest.importorskip("safetensors", reason="models are exchanged in the format safetensors")
from safetensors.numpy import load_file, save_file  # noqa: E402

LINES = foreign.lines(6, 3)


def trained(folder, name, **changes):
    """A run that begins with the base, and whose steps are large enough to change translations."""
    base = directory.read(folder / "base")
    (folder / "t.tsv").write_text("".join(f"{line}\t{line[::-1]}\n" for line in foreign.lines(40, 2)))
    experiment = cfg.replace(
        base,
        data=cfg.replace(base.data, train=(str(folder / "t.tsv"),), cache=str(folder / "cache"), workers=1),
        batching=cfg.Batching(layout="buckets", max_shapes=1, tokens=512),
        model=cfg.replace(base.model, dropout=0.2),
        schedule=cfg.Schedule(name="constant", learning_rate=0.015, warmup_steps=1),
        training=cfg.Training(steps=3),
        validation=cfg.Validation(metric="loss"),
        logging=cfg.Logging(tensorboard=False),
        init=cfg.Init(from_=str(folder / "base")),
    )
    return jaxnmt.train(experiment, folder=folder / name, settings=changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a base, two runs that LoRA has fine-tuned from it, and the adapter of one as a folder."""
    folder = tmp_path_factory.mktemp("adapters")
    foreign.run(folder / "base", num_decoder_layers=2)
    trained(folder, "formal", **{"training.lora.rank": 2, "training.ema_decay": 0.3})
    trained(folder, "legal", **{"training.lora.rank": 2, "training.lora.alpha": 5, "training.lora.paths": (".*/layer_1", ".*/layer_0/mlp")})
    jaxnmt.export_model(jaxnmt.load(folder / "formal"), folder / "formal-adapter", "adapter")
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    """The base and both fine-tuned runs, opened once, so that tests trace their programs once."""
    return {name: jaxnmt.load(folder / name) for name in ("base", "formal", "legal")}


def translations(run):
    return [(each.text, each.score) for each in run.translate(LINES, beam_size=3)]


@pytest.mark.parametrize("name, adapter", [("formal", "formal-adapter"), ("formal", "formal"), ("legal", "legal")])
def test_base_and_adapter_are_the_merged_run(name, adapter, folder, runs):
    both = jaxnmt.with_adapter(runs["base"], folder / adapter)
    tiny.assert_same(both.params, runs[name].params)
    assert translations(both) == translations(runs[name])
    texts = [[text for text, _ in translations(each)] for each in (both, runs["base"])]
    assert len(set(texts[0])) > 1 and texts[0] != texts[1]


def test_scores_and_alignments_are_those_of_the_merged_run(folder, runs):
    both = jaxnmt.with_adapter(runs["base"], folder / "legal")
    runs["base"].align(LINES[0])  # what the base has must not serve the adapter
    assert both.score(LINES, LINES) == runs["legal"].score(LINES, LINES) != runs["base"].score(LINES, LINES)
    np.testing.assert_array_equal(both.align(LINES[0], beam_size=3).weights_TS, runs["legal"].align(LINES[0], beam_size=3).weights_TS)


def test_the_folder_has_the_factors_alone(folder, runs):
    made = folder / "formal-adapter"
    assert sorted(path.name for path in made.iterdir()) == ["README.md", "adapter.json", "adapter.safetensors"]
    record, factors = json.loads((made / "adapter.json").read_text()), load_file(made / "adapter.safetensors")
    assert record["rank"] == 2 and record["base"] == {"run": "base", "checkpoint": 0, "checksum": runs["base"]._found.checksum}
    assert factors["decoder/layer_1/self_attention/qkv/kernel/a"].shape == (16, 3, 1, 1, 2)
    kernels = {name.rpartition("/")[0] for name in factors}
    assert kernels and all(name.endswith("/kernel") for name in kernels)
    card = (made / "README.md").read_text()
    assert "Sentences that base + adapter and jaxnmt translate to the same tokens: greedy: 12 of 12; beam 5: 12 of 12" in card
    assert "jaxnmt translate base --adapter ." in card and str(folder) not in card + (made / "adapter.json").read_text()


def test_adapters_of_one_base_share_its_parameters_and_programs(folder, runs, compiled):
    run = runs["base"]
    first, second, third = (jaxnmt.with_adapter(run, folder / name) for name in ("formal", "formal-adapter", "legal"))

    def all_of(run):
        return (
            translations(run),
            run.score(LINES, LINES),
            run.align(LINES[0], beam_size=3),
            run.translate(LINES, beam_size=3, unk="replace"),
        )

    expected = [repr(all_of(each)) for each in (run, first, second, third)]
    shared = set(map(id, jax.tree.leaves(run.params)))
    same = {name for name, x in by_path(third.params).items() if id(x) in shared}
    kernels = {path.rpartition("/")[0] for path in third.adapter.read()}
    assert kernels and same == by_path(run.params).keys() - kernels
    assert expected[1] == expected[2] and len(set(expected)) == 3
    compiled.clear()
    assert [repr(all_of(each)) for each in (first, third, second, run)] == [expected[i] for i in (1, 3, 2, 0)]
    assert compiled == []


def test_only_the_adapter_that_was_used_last_has_kernels_in_memory(folder, runs):
    first, second = (jaxnmt.with_adapter(runs["base"], folder / name) for name in ("formal", "legal"))
    translations(first)
    kernel = weakref.ref(by_path(first.params)["decoder/layer_1/mlp/wi/kernel"])
    assert kernel() is not None
    translations(second)
    gc.collect()
    assert kernel() is None


def test_stacked_layers_take_the_factors_of_some_layers(folder, runs, monkeypatch, tmp_path):
    """Layers that are scanned in decoding are merged in the form that they have there."""
    monkeypatch.setattr(parameters, "UNROLLED", 0)
    shutil.copytree(folder / "base", tmp_path / "base")
    config = tmp_path / "base" / directory.CONFIG
    config.write_text(config.read_text().replace('"scan_layers": false', '"scan_layers": true'))
    both = jaxnmt.with_adapter(jaxnmt.load(tmp_path / "base"), folder / "legal")
    assert parameters.is_scanned(both.translator.model.module.config)
    tiny.assert_close(both.params, runs["legal"].params, rtol=1e-6, atol=1e-7)
    assert [text for text, _ in translations(both)] == [text for text, _ in translations(runs["legal"])]


def test_the_command_decodes_with_an_adapter(folder, runs, tmp_path, capsys):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--beam-size", "3"]
    assert cli.main(["translate", str(folder / "base"), "--adapter", str(folder / "formal-adapter"), *words]) == 0
    assert (tmp_path / "out").read_text().splitlines() == [text for text, _ in translations(runs["formal"])]
    capsys.readouterr()
    words = ["--split", "validation", "--beam-size", "3", "--json", "True"]
    assert cli.main(["evaluate", str(folder / "base"), "--adapter", str(folder / "formal"), *words]) == 0
    expected = runs["formal"].evaluate(runs["formal"].test_set("validation"), beam_size=3)
    found = json.loads(capsys.readouterr().out)
    assert [each["value"] for each in found["metrics"]] == [each.value for each in expected.metrics]


def test_an_ensemble_may_have_members_with_adapters(folder, runs):
    members = [jaxnmt.with_adapter(runs["base"], folder / name) for name in ("formal", "legal")]
    assert translations(jaxnmt.ensemble(*members)) == translations(jaxnmt.ensemble(runs["formal"], runs["legal"]))


def test_kept_translations_are_those_of_the_adapter(folder, runs):
    run, both = runs["base"], jaxnmt.with_adapter(runs["base"], folder / "legal")
    plain, adapted = (each.translations(LINES, beam_size=3) for each in (run, both))
    assert adapted == [text for text, _ in translations(runs["legal"])] != plain == [text for text, _ in translations(run)]


# ---- what is refused


def changed(folder, place, **changes):
    """A copy of the run `formal` with other settings in its config."""
    shutil.copytree(folder / "formal", place)
    save_config(cfg.replace(directory.read(place), **changes), place / directory.CONFIG)
    return jaxnmt.load(place)


def test_runs_without_an_adapter_of_their_own_are_refused_by_name(folder, runs, tmp_path):
    tuned = {"training.lora": cfg.Lora(), "training.freeze": ("encoder",), "training.rates": ("decoder=0.5",)}
    says = r"its own parameters were trained by training.freeze and training.rates without training.lora.rank: --to safetensors holds it"
    for run in (changed(folder, tmp_path / "frozen", **tuned), runs["base"]):
        with pytest.raises(UserError, match=says if run is not runs["base"] else "its own parameters were trained without"):
            jaxnmt.export_model(run, tmp_path / "out", "adapter")
        with pytest.raises(UserError, match="cannot serve as an adapter: it has no adapter"):
            jaxnmt.with_adapter(runs["base"], run.folder)
    with pytest.raises(UserError, match="leave out --weights int8"):
        jaxnmt.export_model(jaxnmt.load(folder / "formal", weights="int8"), tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_other_parameters_changed_is_refused(folder, runs, tmp_path):
    """Its record names a base whose parameters are not those that its adapter was trained on."""
    shutil.copytree(folder / "formal", tmp_path / "formal")
    metrics = tmp_path / "formal" / directory.METRICS
    checksum = runs["base"]._found.checksum
    metrics.write_text(metrics.read_text().replace(str(checksum), str(checksum + 1)))
    with pytest.raises(UserError, match=r"without its adapter it does not have the parameters of \S+base, so that base and adapter would"):
        jaxnmt.export_model(jaxnmt.load(tmp_path / "formal"), tmp_path / "out", "adapter")
    metrics.unlink()
    with pytest.raises(UserError, match="its metrics.jsonl does not say which run its adapter belongs to"):
        jaxnmt.export_model(jaxnmt.load(tmp_path / "formal"), tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()


def test_a_setting_that_gives_parameters_another_meaning_is_refused(folder, runs, tmp_path):
    run = changed(folder, tmp_path / "silu", **{"model.activation": "silu"})
    says = r"trained with model.activation silu, which is relu in "
    with pytest.raises(UserError, match=says):
        jaxnmt.export_model(run, tmp_path / "out", "adapter")
    with pytest.raises(UserError, match=says):
        jaxnmt.with_adapter(runs["base"], run.folder)


def test_settings_that_change_no_meaning_are_free(folder):
    """Dropout is one, and settings from Python may have 0 where files have 0.0."""
    fit, base = adapter_files.open_adapter(folder / "formal-adapter").fit, directory.settings(folder / "base")
    for value in (0, 0.0, 0.5):
        assert fit.difference(base | {"model": base["model"] | {"dropout": value}}) is None


def test_a_wrong_export_is_caught(folder, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnmt.interop.check.BEAMS", (1,))
    monkeypatch.setattr(adapter_files.Adapter, "applied", lambda self, params: params)
    with pytest.raises(UserError, match="the exported files translate differently, greedy: .* nothing was kept"):
        jaxnmt.export_model(runs["formal"], tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()


def test_another_base_is_refused(folder, runs, tmp_path):
    other = foreign.run(tmp_path / "other", num_decoder_layers=3)
    says = rf"is an adapter of checkpoint 0 of a run base \(checksum \d+\), and {other.folder} is used with checkpoint 0"
    for name in ("formal", "formal-adapter"):
        with pytest.raises(UserError, match=says):
            jaxnmt.with_adapter(other, folder / name)
    shutil.copytree(folder / "base", tmp_path / "words")
    described = tmp_path / "words" / "tokenizer" / "tokenizer.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"normalization": "nfkc"}))
    with pytest.raises(UserError, match="was trained with another vocabulary than that of"):
        jaxnmt.with_adapter(jaxnmt.load(tmp_path / "words"), folder / "formal-adapter")
    for refused in (jaxnmt.with_adapter(runs["base"], folder / "legal"), jaxnmt.ensemble(runs["base"], runs["legal"])):
        with pytest.raises(UserError, match="give the run itself"):
            jaxnmt.with_adapter(refused, folder / "formal")
    with pytest.raises(UserError, match="--engine ctranslate2 reads no adapters: give the fine-tuned run itself"):
        jaxnmt.with_engine(jaxnmt.with_adapter(runs["base"], folder / "legal"), "ctranslate2")
    with pytest.raises(UserError, match="leave out weights int8"):
        jaxnmt.with_adapter(jaxnmt.load(folder / "base", weights="int8"), folder / "formal")


def settings(folder, change):
    path = folder / "adapter.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def tensors(folder, change):
    path = folder / "adapter.safetensors"
    save_file({name: np.asarray(x, order="C") for name, x in change(load_file(path)).items()}, path)


A, B = (f"decoder/layer_0/mlp/wi/kernel/{part}" for part in "ab")
HOSTILE = {
    "truncated": (lambda f: os.truncate(f / "adapter.safetensors", 3000), "is not a safetensors file, or is damaged"),
    "no factors": (lambda f: (f / "adapter.safetensors").unlink(), "has no file adapter.safetensors"),
    "neither": (lambda f: (f / "adapter.json").unlink(), "is not an adapter: it has no adapter.json, and is not a run either"),
    "not JSON": (lambda f: (f / "adapter.json").write_text("{"), "is not JSON as it should be"),
    "too large": (lambda f: (f / "adapter.json").write_bytes(b" " * 2**21), "and such a file has at most"),
    "another version": (lambda f: settings(f, lambda s: s | {"format": "jaxnmt adapter 9"}), "the format is 'jaxnmt adapter 9', and"),
    "no base": (lambda f: settings(f, lambda s: s | {"base": 3}), "base is '3', which is not what an adapter has there"),
    "no checksum": (lambda f: settings(f, lambda s: s | {"base": s["base"] | {"checksum": True}}), "checksum is 'True', which"),
    "no rank": (lambda f: settings(f, lambda s: s | {"rank": 0}), "rank 0 and alpha 16.0 must be numbers above 0"),
    "infinite": (lambda f: settings(f, lambda s: s | {"alpha": float("inf")}), "rank 2 and alpha inf must be numbers above 0"),
    "no float": (lambda f: settings(f, lambda s: s | {"alpha": 10**400}), "rank 2 and alpha 10000000000000000000 must be"),
    "no tensors": (lambda f: tensors(f, lambda t: {}), "adapter.safetensors has no factors"),
    "no axes": (lambda f: tensors(f, lambda t: t | {A: np.zeros((), np.float32)}), rf"{A} has the shape \(\), which does not fit"),
    "another rank": (lambda f: settings(f, lambda s: s | {"rank": 3}), "which does not fit the kernel's .* and the rank 3"),
    "NaN": (lambda f: tensors(f, lambda t: t | {A: t[A] * np.float32("nan")}), f"the tensor {A} has NaN or infinite numbers"),
    "another type": (lambda f: tensors(f, lambda t: t | {A: t[A].astype(np.int64)}), f"the tensor {A} has the type I64"),
    "one of two": (lambda f: tensors(f, lambda t: {n: x for n, x in t.items() if n != B}), f"it has no {B}, which goes with a"),
    "a path that the base lacks": (
        lambda f: tensors(f, lambda t: {n.replace("layer_1", "layer_7"): x for n, x in t.items()}),
        r"it has factors of decoder/layer_7\S+, and its base has no such parameter",
    ),
    "no factor": (lambda f: tensors(f, lambda t: t | {"x": t[A]}), "it has factors of x, and its base has no such parameter"),
    "another shape": (
        lambda f: tensors(f, lambda t: t | {A: t[A][:8]}),
        r"has the shape \(8, 1, 2\), which does not fit the kernel's \(16, 24\)",
    ),
    "other axes": (lambda f: tensors(f, lambda t: t | {A: t[A][:, 0]}), r"has the shape \(16, 2\), which does not fit the kernel's"),
    "an axis of none": (lambda f: tensors(f, lambda t: t | {A: t[A][:1], B: t[B]}), r"has the shape \(1, 1, 2\), which does not fit"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_or_damaged_adapter_is_refused_in_a_sentence(fault, folder, runs, tmp_path):
    change, says = HOSTILE[fault]
    shutil.copytree(folder / "formal-adapter", tmp_path / "adapter")
    change(tmp_path / "adapter")
    with pytest.raises(UserError, match=says):
        jaxnmt.with_adapter(runs["base"], tmp_path / "adapter").params  # noqa: B018


def test_the_command_refuses_in_a_sentence_and_writes_nothing(folder, tmp_path, capsys):
    shutil.copytree(folder / "formal-adapter", tmp_path / "adapter")
    tensors(tmp_path / "adapter", lambda t: t | {A: t[A][:8]})
    (tmp_path / "in").write_text("haus\n")
    words = ["--adapter", tmp_path / "adapter", "--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert cli.main(["translate", str(folder / "base"), *map(str, words)]) == 2
    message = capsys.readouterr().err
    assert "does not fit the kernel's" in message and "Traceback" not in message and not (tmp_path / "out").exists()
    words = [str(folder / "base"), "--adapter", str(folder / "formal")]
    assert cli.main(["translate", *words, "--engine", "ctranslate2"]) == 2
    assert "--engine ctranslate2 reads no adapters" in capsys.readouterr().err
    assert cli.main(["evaluate", *words, "--weights", "int8"]) == 2
    assert "leave out weights int8" in capsys.readouterr().err


def test_factors_of_stacked_layers_are_those_of_each(folder):
    """Layers without factors get zeros, whose product changes nothing."""
    kernels = {f"encoder/layer_{i}/kernel": (4, 6) for i in range(3)} | {"norm": (4,)}
    factors = {f"encoder/layer_1/kernel/{part}": np.asarray(x) for part, x in initial_adapter(0, ["x"], "DF", (4, 6), 2).items()}
    filled = adapter_files._filled(factors, kernels)
    assert sorted(filled) == [f"encoder/layer_{i}/kernel/{part}" for i in range(3) for part in "ab"]
    assert filled["encoder/layer_1/kernel/a"].any() and not filled["encoder/layer_0/kernel/a"].any()
