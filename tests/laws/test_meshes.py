"""Laws 2 and 7 on eight devices: every mesh reaches one device's losses, and what it saved is restored on another and on one device."""

import json
import math

import jax
import numpy as np
import pytest
import tiny
from laws import meshes

import jaxnmt
from jaxnmt.lab.laws.subject import Practice
from jaxnmt.lab.laws.training import restore

pytestmark = pytest.mark.slow  # `devices` of test_every_rung.py takes one mesh for every rung


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """-> (folder of checkpoints, what the process with eight devices tells)."""
    folder = tmp_path_factory.mktemp("meshes")
    tiny.on_eight_devices(meshes.__file__, folder)
    told = json.loads((folder / "told.json").read_text())
    assert told["devices"] == 8 and jax.device_count() == 1
    return folder, told


@pytest.fixture(scope="module", params=meshes.MODELS)
def one(request):
    """-> (a model's name, its training on one device, and the losses there)."""
    subject = meshes.subject_of(request.param)
    practice = Practice(subject.model, subject.experiment)
    _, losses = practice.run(practice.fresh(), [subject.batch_of_step(step) for step in range(meshes.STEPS + 1)])
    return request.param, subject, practice, losses


def test_every_mesh_reaches_the_losses_of_one_device(eight, one):
    name, _, _, expected = one
    assert len(set(expected)) == len(expected)
    for mesh, (losses, _) in eight[1]["models"][name].items():
        np.testing.assert_allclose(losses, expected[: meshes.STEPS], rtol=0, atol=1e-4, err_msg=mesh)


def test_a_mesh_goes_on_from_what_another_saved(eight, one):
    name, _, _, expected = one
    for mesh, (_, on) in list(eight[1]["models"][name].items())[1:]:
        assert on == pytest.approx(expected[meshes.STEPS], abs=1e-4), mesh


def test_one_device_goes_on_from_what_a_mesh_saved(eight, one):
    folder, (name, subject, practice, expected) = eight[0], one
    for mesh in meshes.MESHES:
        _, on = practice.run(restore(subject, practice, folder / name / mesh, meshes.STEPS), [subject.batch_of_step(meshes.STEPS)])
        assert on[0] == pytest.approx(expected[meshes.STEPS], abs=1e-4), mesh


@pytest.mark.parametrize("name", meshes.MODELS)
def test_translations_are_the_same_on_every_mesh(eight, name):
    expected = meshes.translations(name, None)
    assert len(set(expected)) > 3
    assert eight[1]["translations"][name] == {mesh: expected for mesh in meshes.DECODED}


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_devices_that_share_a_search_exchange_words_and_no_states(eight, name):
    sizes = [math.prod(shape) for shape in eight[1]["exchanged"][name]]
    assert 0 < max(sizes) <= meshes.ROWS * meshes.BEAMS * meshes.LENGTH


def test_scanned_layers_gather_their_parameters_one_after_the_other(eight):
    config, gathered = meshes.MODELS["scanned"], eight[1]["gathered"]
    width, heads = config.emb_dim, (config.num_heads, config.emb_dim // config.num_heads)
    assert [width, 3, *heads] in gathered and [width, 2, *heads] in gathered
    assert not any(shape[0] in (8, config.num_decoder_layers) and len(shape) > 2 and shape[1] == width for shape in gathered)


def test_validations_translate_the_same_on_every_mesh(eight):
    for name, found in eight[1]["validated"].items():
        assert found == {mesh: meshes.validated(name, None) for mesh in meshes.DECODED}, name


def test_a_deep_run_that_was_sharded_stays_so_in_decoding(eight):
    folder, told = eight[0] / "loaded", eight[1]["loaded"]
    assert told["share"] < 0.25  # norms and biases are replicated
    found = jaxnmt.load(folder / "run").translate(meshes.SOME_LINES, beam_size=2, n_best=2)
    assert [each.text for line in found for each in line] == [text for text, _ in told["found"]]
    np.testing.assert_allclose([each.score for line in found for each in line], [score for _, score in told["found"]], atol=1e-5)
