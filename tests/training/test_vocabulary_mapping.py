"""A run that begins with another's parameters and has a vocabulary of its own; and that it remembers its ancestors."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.config.files import save_config
from jaxnmt.data.tokenizer import load_tokenizer
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.errors import UserError
from jaxnmt.parallel.axes import path_name
from jaxnmt.runs import directory
from jaxnmt.training.hooks import Log, Save
from jaxnmt.training.initial import _rows, take
from jaxnmt.training.loop import Trainer
from jaxnmt.training.metrics import MetricsLog
from jaxnmt.training.progress import Progress
from jaxnmt.training.step import TrainPrograms

PIECES = {"tokenizer.kind": "unigram", "tokenizer.vocab_size": 340}
MAPPED = {"init.vocabulary": "map"}
SHORT = {
    "training.steps": 2,
    "checkpoints.every": 2,
    "batching.layout": "buckets",
    "batching.max_shapes": 1,
    "training.accumulation": 1,
    "data.max_length": 40,
}


def by_path(tree):
    return {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def new_text(folder):
    """Pairs with letters that the runs of `tiny.experiment` have not."""
    lines = [" ".join("abcxyzß"[(i * k) % 7] for k in range(1, 5)) + f" {'jachten' if i % 2 else 'beijing'}" for i in range(80)]
    (folder / "new.xx").write_text("".join(f"{line}\n" for line in lines))
    (folder / "new.yy").write_text("".join(f"{line[::-1]}\n" for line in lines))
    return {"data.train": (f"{folder / 'new'}.xx,{folder / 'new'}.yy",)}


def begun(folder, name, **changes):
    (run := folder / name).mkdir(exist_ok=True)
    config = cfg.replace(tiny.experiment(folder), **SHORT | changes)
    save_config(config, run / directory.CONFIG)
    return Trainer(config, run, [Log(), Save()])


def taken_by(trainer):
    """What a new run takes from another."""
    abstract = TrainPrograms(trainer.flat_model, trainer.config, trainer.mesh).abstract
    return take(trainer.config, trainer.flat_model, abstract.model_params(abstract.params), trainer.data.tokenizer, trainer.mesh)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    for name, changes in (("words", {}), ("pieces", PIECES)):
        trainer = begun(folder, name, **changes, **{"training.seed": 2})
        with trainer.store as store:
            state = trainer.programs.fresh(trainer.config.training)
            store.save(dataclasses.replace(state, step=jnp.int32(2)), Progress(), None)
    return folder


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_tokens_keep_their_vectors_or_begin_as_the_mean_of_those_that_spell_them(kind, folder):
    changes = MAPPED | (PIECES if kind == "pieces" else {}) | new_text(folder) | {"init.from": str(folder / kind)}
    trainer = begun(folder, f"mapped-{kind}", **changes, **{"training.ema_decay": 0.0})
    taken, old, new = taken_by(trainer), load_tokenizer(folder / kind / "tokenizer"), trainer.data.tokenizer
    there = by_path(jaxnmt.load(folder / kind, "latest").params)
    random, found = (by_path(trainer.programs.fresh(trainer.config.training, params).params) for params in (None, taken.params))
    known = {piece: index for index, piece in enumerate(old.source_pieces(range(old.source_vocab_size)))}
    counts = dict.fromkeys(("kept", "mean", "random"), 0)
    for index, piece in enumerate(new.source_pieces(range(new.source_vocab_size))):
        row, table = found["shared_embedding/table"][index], there["shared_embedding/table"]
        if piece in known:
            counts["kept"] += 1
            np.testing.assert_array_equal(row, table[known[piece]])
        elif ids := old.spellings(new, "source")[index]:
            counts["mean"] += 1
            np.testing.assert_allclose(row, np.mean([table[i] for i in ids], 0), rtol=1e-5, atol=1e-7)
        else:
            counts["random"] += 1
            np.testing.assert_array_equal(row, random["shared_embedding/table"][index])
    kept, mean, alone = counts.values()
    assert (
        f"of {new.source_vocab_size:,} source tokens {kept} keep their vectors, {mean} are means of others, and {alone} are random"
        in taken.line
    )
    assert kept > 4 and (mean > 3 and not alone if kind == "pieces" else alone > 3 and not mean)
    padding = found["shared_embedding/table"][new.source_vocab_size :]
    np.testing.assert_array_equal(padding, random["shared_embedding/table"][new.source_vocab_size :])
    for name in there:
        if "embedding" not in name:
            np.testing.assert_array_equal(found[name], there[name])


def test_a_piece_is_spelt_where_it_stands_in_a_word():
    text = [("haus boot bahn hof haushof bahnhof", "") for _ in range(40)]
    old, new = (train_tokenizer(cfg.Tokenizer(vocab_size=size), pairs) for size, pairs in ((290, text), (300, [("hofhaus ", "")] * 40)))
    pieces = {piece: ids for piece, ids in zip(new.source_pieces(range(len(new._source))), old.spellings(new, "source"), strict=True)}
    assert all(ids == [index] for index, ids in enumerate(list(pieces.values())[:260]))  # special tokens and bytes
    for piece, ids in list(pieces.items())[260:]:
        assert "".join(old.source_pieces(ids)) == piece or any(i < 260 for i in ids)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training.lora.rank": 2}, "training.lora.rank trains adapters alone, not shared_embedding, and"),
        ({"training.freeze": ("shared_embedding",)}, "training.freeze freezes shared_embedding, and"),
        ({"training.freeze": ("shared_embedding", "decoder"), "init.only": "encoder"}, "training.freeze freezes decoder, which"),
    ],
)
def test_nothing_that_is_frozen_stays_random(changes, says, folder):
    changes = MAPPED | new_text(folder) | {"init.from": str(folder / "words")} | changes
    with pytest.raises(UserError, match=says):
        taken_by(begun(folder, "stuck", **changes))


def test_a_bias_of_tokens_is_mapped_as_their_vectors_are():
    numbers = _rows(jnp.array([1.0, 2.0, 4.0]), [[0], [1, 2], []], 4)
    np.testing.assert_array_equal(numbers.over(jnp.full(4, -1.0)), [1, 3, -1, -1])
    assert numbers.size == 2


def test_rows_are_means():
    table = jnp.arange(12.0).reshape(4, 3)
    rows = _rows(table, [[0], [], [1, 3, 3], [2]], 6)
    np.testing.assert_array_equal(rows.known, [True, False, True, True, False, False])
    np.testing.assert_allclose(rows.values[2], np.asarray((table[1] + 2 * table[3]) / 3), rtol=1e-6)
    np.testing.assert_array_equal(rows.values[3], table[2])
    over = rows.over(jnp.full((6, 3), 7.0))
    np.testing.assert_array_equal(over[jnp.array([1, 4, 5])], np.full((3, 3), 7.0))
    assert rows.size == 9


def test_another_kind_of_vocabulary_is_refused(folder):
    with pytest.raises(UserError, match=r"tokenizer.kind unigram does not fit: set it to words"):
        begun(folder, "refused", **MAPPED, **PIECES, **{"init.from": str(folder / "words")})


def test_a_run_remembers_its_ancestors_when_they_are_gone(folder):
    for parent, name in (("words", "second"), ("second", "third")):
        trainer = begun(folder, name, **{"init.from": str(folder / parent)})
        with trainer.store as store:
            store.save(dataclasses.replace(trainer.programs.fresh(trainer.config.training), step=jnp.int32(7)), Progress(), None)
        with MetricsLog(folder / name, 0, False) as log:
            log.write("init", 0, taken_by(trainer).record)
    shutil.rmtree(folder / "second")
    found = directory.ancestry(folder / "third")
    assert [(record["from"], record["checkpoint"]) for record in found] == [(str(folder / "second"), 7), (str(folder / "words"), 2)]
    lines = [line for line in directory.show(folder / "third").splitlines() if "began with" in line]
    assert [line.partition(" (")[0] for line in lines] == [
        f"began with checkpoint 7 of {folder / 'second'}",
        f"which began with checkpoint 2 of {folder / 'words'}",
    ]
