"""Decoding with scanned layers: what unrolled ones give, from programs whose size does not depend on the depth."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.decoding.search import SearchOptions, search
from jaxnmt.lab.laws import Subject, ask
from jaxnmt.lab.laws.subject import batch_of, model_of, random_pairs, sources
from jaxnmt.lab.visualize.passes import teacher_forced
from jaxnmt.models import parameters
from jaxnmt.models.parameters import for_decoding, is_scanned, stack_layers
from jaxnmt.models.seq2seq import source_attention
from jaxnmt.models.transformer import TransformerModule

THREE = {"num_encoder_layers": 3, "num_decoder_layers": 3, "scan_layers": True}


@pytest.fixture
def always(monkeypatch):
    """Scanned layers stay scanned, however few they are."""
    monkeypatch.setattr(parameters, "UNROLLED", 0)


def test_many_scanned_layers_are_scanned_in_decoding_too():
    for depth, scans, expected in ((12, True, False), (13, True, True), (13, False, False)):
        made = for_decoding(cfg.replace(tiny.BASE, num_encoder_layers=depth, scan_layers=scans, remat="full"))
        assert (is_scanned(made), made.remat) == (expected, "none")
    assert for_decoding(tiny.RNN) == tiny.RNN


@dataclasses.dataclass(frozen=True)
class OwnConfig(cfg.Transformer):
    def build(self, *sizes):
        return OwnModule(self, *sizes)


class OwnModule(TransformerModule):
    pass


def test_nothing_of_this_is_expected_of_a_users_own_model():
    own = OwnConfig(**vars(cfg.replace(tiny.BASE, num_encoder_layers=13, scan_layers=True)))
    assert not is_scanned(for_decoding(own))
    model = model_of(own)
    shapes = model.shapes
    assert not model.can_gather and model.cast_kernels(shapes) is shapes
    sown = {"intermediates": {"decoder": {"layers": {"attention": (np.zeros((2, 1, 4, 5)),)}}}}  # a module of this name, with two rows
    plain = model_of(tiny.BASE)
    assert plain._unstacked(sown) is sown["intermediates"]
    assert set(model._unstacked(sown)["decoder"]) == {"layer_0", "layer_1"}


@pytest.mark.parametrize("law", ["cached", "greedy", "beam", "alone"])
@pytest.mark.parametrize("task", [cfg.Translation(), cfg.Language()], ids=["translation", "language"])
@pytest.mark.parametrize(
    "variant", ["rotary", pytest.param("post", marks=pytest.mark.slow), pytest.param("learned", marks=pytest.mark.slow)]
)
def test_the_laws_of_a_search_hold(variant, task, law, always):
    subject = Subject(cfg.replace(tiny.VARIANTS[variant], **THREE), task)
    assert is_scanned(subject.decoder.module.config)
    verdict = ask(law, subject)
    assert verdict.holds, verdict.measured


def lowered(depth):
    model = model_of(for_decoding(cfg.replace(tiny.BASE, num_encoder_layers=depth, num_decoder_layers=depth, scan_layers=True)))
    batch = {"encoder_input_tokens": jnp.ones((4, 8), jnp.int32)}
    run = jax.jit(functools.partial(search, model, SearchOptions(3, 8)))
    return re.sub(r"\b\d+\b", "", run.lower(model.shapes, batch, jnp.ones((4,), jnp.int32)).as_text())


def test_the_program_of_a_deep_model_is_as_long_as_that_of_any_other():
    assert len(lowered(48).splitlines()) == len(lowered(13).splitlines())


def test_attention_has_the_same_names_and_weights():
    config = cfg.replace(tiny.BASE, **THREE | {"scan_layers": False})
    flat, scanned = model_of(config), model_of(cfg.replace(config, scan_layers=True))
    params = tiny.params_of(flat)
    stacked = jax.jit(stack_layers)(params)
    batch = tiny.as_arrays(batch_of(random_pairs(3), [[0], [1], [2]], 8, 8))
    found = [jax.jit(model.attention)(own, batch) for model, own in ((flat, params), (scanned, stacked))]
    tiny.assert_close(*found, atol=1e-5)
    whole = source_attention(found[0], flat.attention_module)

    def steps(model, own):
        memory = model.encode(own, sources(batch))
        carry, weights = model.start(own, memory, 8), []
        for token_B in batch["decoder_input_tokens"].T:
            _, carry, attention_BS = model.step_with_attention(own, memory, carry, token_B)
            weights.append(attention_BS)
        return jnp.stack(weights, 1)

    real = np.asarray(batch["decoder_input_tokens"])[..., None] > 0
    np.testing.assert_allclose(np.where(real, jax.jit(functools.partial(steps, scanned))(stacked), 0), np.where(real, whole, 0), atol=1e-5)


@pytest.mark.slow
def test_a_run_translates_and_is_looked_at_as_if_its_layers_were_unrolled(tmp_path, monkeypatch):
    changes = {"model.num_encoder_layers": 2, "model.scan_layers": True, "validation.metric": "bleu", "training.steps": 4}
    modules = {f"{stack}/layer_{i}/self_attention" for stack, depth in (("encoder", 2), ("decoder", 1)) for i in range(depth)}
    made = []
    for name, unrolled in (("flat", 12), ("scanned", 0)):
        monkeypatch.setattr(parameters, "UNROLLED", unrolled)
        run = jaxnmt.train(tiny.experiment(tmp_path / name, **changes), folder=tmp_path / name / "run")
        assert is_scanned(run.translator.model.module.config) == (name == "scanned")
        log_p_TV, attention, vectors = teacher_forced(run.translator.model, run.translator.params, [5, 6, 2], [7, 8, 9, 2])
        assert {found.name for found in attention} == modules | {"decoder/layer_0/cross_attention"}
        assert len(vectors) == 5  # three layers, and the positions of each side
        decoding = cfg.replace(run.config.decoding, n_best=2)
        found = [each.translator.translate(["a b c", "d e"], decoding) for each in (run, jaxnmt.load(run.folder, weights="int8"))]
        best = [translation for lines in found for hypotheses in lines for translation in hypotheses]
        losses = [record["loss"] for record in run.metrics if record["kind"] == "validation"]
        weights, outputs = [found.weights_HTS for found in attention], [x for _, _, x in vectors]
        made.append(([each.text for each in best], (log_p_TV, weights, outputs, [each.score for each in best], losses)))
    assert made[0][0] == made[1][0] and any(made[0][0])
    tiny.assert_close(made[0][1], made[1][1], atol=1e-5)
