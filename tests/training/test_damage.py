"""A damaged checkpoint is noticed, or what was damaged did not matter; never is something else restored in silence."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxnmt import config as cfg
from jaxnmt.config import Mesh, Optimizer, Training
from jaxnmt.errors import UserError
from jaxnmt.parallel.sharding import make_mesh
from jaxnmt.training import checksums
from jaxnmt.training.checkpoints import Checkpoints
from jaxnmt.training.checksums import checksum
from jaxnmt.training.optim import make_optimizer
from jaxnmt.training.progress import Progress, Score
from jaxnmt.training.saved import CheckpointReader
from jaxnmt.training.state import abstract_state, initial_state

MODEL = tiny.model_of(tiny.RECURRENT["bag"])
RULE = make_optimizer(Optimizer(), MODEL.axes)
TRAINING = Training(ema_decay=0.9)
SCORE = Score("bleu", 12.25, 3.5, "nrefs:1|tok:13a")
PROGRESS = Progress(best=SCORE, best_step=3, stale=1, target_tokens=987, window={"loss": 0.1, "steps": 2})


def state_at(step):
    """All numbers random, so that no two places look alike."""
    random = np.random.default_rng(step)
    shapes = jax.eval_shape(lambda: initial_state(MODEL, RULE, TRAINING))
    state = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape) * 9, x.dtype), shapes)
    return dataclasses.replace(state, step=jnp.int32(step))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = tmp_path_factory.mktemp("saved")
    store = Checkpoints(run, cfg.Checkpoints())
    store.save(state_at(3), PROGRESS, SCORE)
    store.close()
    return run


def restore(run):
    store = Checkpoints(run, cfg.Checkpoints())
    try:
        return store.restore(3, abstract_state(MODEL, RULE, TRAINING, make_mesh(Mesh())))
    finally:
        store.close()


def test_what_was_saved_is_restored_to_the_bit(saved):
    state, progress = restore(saved)
    tiny.assert_same(state, state_at(3))
    assert progress == PROGRESS


def test_every_bit_moves_the_checksum():
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.arange(3), "c": jnp.float32(0)}
    plain = checksum(tree)
    for name, leaf in tree.items():
        for place in range(leaf.size):
            for bit in (0, 13, 31):
                bits = np.asarray(leaf).copy().reshape(-1).view(np.uint32)
                bits[place] ^= np.uint32(1 << bit)
                flipped = tree | {name: jnp.asarray(bits.view(leaf.dtype).reshape(leaf.shape))}
                assert checksum(flipped) != plain
    assert checksum(tree | {"a": tree["a"][::-1]}) != plain
    assert checksum(tree | {"a": tree["a"].reshape(-1)}) == plain  # a number's place is that in the rows of its leaf


def test_numpy_and_jax_compute_the_same_checksum(monkeypatch):
    random = np.random.default_rng(0)
    tree = {"a": jnp.asarray(random.standard_normal((3, 5, 2)), jnp.float32), "b": jnp.arange(7), "c": jnp.float32(-0.0)}
    expected = checksum(tree)
    monkeypatch.setattr(checksums, "SMALL", 0)
    assert checksum(tree) == expected != 0


DTYPES = ["bool", "int4", "int8", "uint8", "int16", "uint16", "int64", "uint64", "float8_e4m3fn", "bfloat16", "float16", "float64"]


def test_the_checksum_of_what_every_run_has_is_what_it_always_was():
    # Command, on version 0.1.0: int(jaxnmt.training.checkpoint.checksum(tree)) of this tree
    tree = {"a": jnp.arange(6.0).reshape(2, 3) / 3, "b": jnp.arange(3) - 1, "c": jnp.uint32([7, 2**32 - 1])}
    assert checksum(tree) == 2799320467


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_every_type_moves_the_checksum(dtype):
    with jax.enable_x64(True):
        numbers = np.array([[0, 1], [1, 0]] if dtype == "bool" else [[1, 2], [3, -4]]).astype(jnp.dtype(dtype))
        plain = int(checksum({"a": jnp.asarray(numbers)}))
        width = {"bool": 1, "int4": 4}.get(dtype, 8 * numbers.itemsize)
        word = f"u{numbers.itemsize}"
        for place in range(numbers.size):
            for bit in range(width):
                bits = numbers.copy().reshape(-1).view(word)
                bits[place] ^= np.array(1 << bit, word)
                flipped = bits.view(numbers.dtype).reshape(numbers.shape)
                assert int(checksum({"a": jnp.asarray(flipped)})) != plain, (place, bit)


def read(run, ahead):
    """Return the parameters that decoding uses, and what was read ahead and is still kept."""
    reader, device = CheckpointReader(run), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = reader.find(3)
    if ahead:
        reader.read_ahead(found)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), MODEL.shapes)
    return reader.params(found, like), reader._begun


def test_parameters_that_are_read_ahead_are_the_same_and_so_is_the_error(saved, tmp_path):
    tiny.assert_same(read(saved, True), (state_at(3).ema, {}))
    tiny.assert_same(read(saved, False), (state_at(3).ema, {}))
    run = shutil.copytree(saved, tmp_path / "run")
    for file in (run / "checkpoints" / "3" / "ema").rglob("*"):
        if file.is_file() and not file.name.startswith("_"):
            file.write_bytes(file.read_bytes()[:-9])
    sentences = set()
    for ahead in (True, False):
        with pytest.raises(UserError, match=f"checkpoint 3 of {run} cannot be read .*; remove the folder") as error:
            read(run, ahead)
        sentences.add(str(error.value))
    assert len(sentences) == 1


def files(run):
    return sorted(path.relative_to(run) for path in (run / "checkpoints" / "3").rglob("*") if path.is_file() and path.stat().st_size)


def damages():
    """(what is done, to which share of the files)."""

    def flip(data, place):
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    yield "a bit in the middle flips", lambda data: flip(data, len(data) // 2)
    yield "a bit near the end flips", lambda data: flip(data, len(data) * 9 // 10)
    yield "the second half is lost", lambda data: data[: len(data) // 2]
    yield "the file is lost", lambda data: None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=name, marks=[pytest.mark.slow] if any(word in name for word in ("end", "half", "lost")) else [])
        for name, damage in damages()
    ],
)
def test_damage_to_any_file_is_noticed_or_harmless(saved, tmp_path, damage):
    noticed = 0
    for number, file in enumerate(files(saved)):
        run = tmp_path / str(number)
        shutil.copytree(saved, run)
        data = damage((run / file).read_bytes())
        (run / file).unlink() if data is None else (run / file).write_bytes(data)
        try:
            state, progress = restore(run)
            found = Checkpoints(run).scores()
        except UserError as error:
            noticed += 1
            assert str(run) in str(error) and "remove the folder" in str(error)
        else:
            tiny.assert_same(state, state_at(3))
            assert progress == PROGRESS and found in ({3: SCORE}, {}), file  # {}: the file with the score is lost
        shutil.rmtree(run)
    assert noticed >= 3


def test_a_digit_of_a_score_that_changes_is_noticed(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "run")
    file = run / "checkpoints" / "3" / "metrics" / "metrics"
    file.write_text(file.read_text().replace("12.25", "72.25"))
    with pytest.raises(UserError, match=f"checkpoint 3 of {run} is damaged: its metrics are not what was written"):
        Checkpoints(run).scores()
