"""Trains tiny models on meshes of the eight devices that this process has: `python meshes.py FOLDER`, for test_meshes.py.

Each mesh takes the first steps from the start, and one more from what the mesh before it has saved.
"""

import json
import pathlib
import re
import sys
import types
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tiny

import jaxnmt
from jaxnmt import config as cfg
from jaxnmt.config import Mesh
from jaxnmt.data.special_tokens import EOS
from jaxnmt.data.tokenizer_training import train_tokenizer
from jaxnmt.decoding.rules import Rules
from jaxnmt.decoding.search import SearchOptions
from jaxnmt.decoding.translator import Translator
from jaxnmt.evaluation.validation import ValidationTranslator
from jaxnmt.lab.laws.subject import Practice, Subject
from jaxnmt.lab.laws.training import restore, save
from jaxnmt.models.parameters import UNROLLED
from jaxnmt.models.seq2seq import build_model
from jaxnmt.parallel import sharding
from jaxnmt.parallel.sharding import make_mesh, param_shardings, to_mesh

STEPS = 3
MESHES = {
    "8x1x1": Mesh(data=8),
    "1x8x1": Mesh(data=1, fsdp=8),
    "2x2x2": Mesh(data=2, fsdp=2, tensor=2),
    "4x1x2": Mesh(data=4, tensor=2),
    "1x2x4": Mesh(data=1, fsdp=2, tensor=4),
}
DECODED = ("8x1x1", "2x2x2", "1x8x1")
ROWS, BEAMS, LENGTH = 16, 3, 10
LETTERS = "a b c d e f g h i j k l m n o p"
SOME_LINES = ["a b c", "d", "e f g h"]
_NOISY = {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1}
_TRANSFORMER = cfg.replace(tiny.BASE, **_NOISY, num_heads=4, num_encoder_layers=2, num_decoder_layers=2)
MODELS = {
    "transformer": _TRANSFORMER,
    "scanned": cfg.replace(_TRANSFORMER, scan_layers=True, remat="full"),
    "lstm": cfg.Recurrent(emb_dim=16, hidden_dim=16, num_encoder_layers=2, dropout=0.2),
}


def subject_of(name: str) -> Subject:
    """A model, to be trained with a moving average."""
    return Subject(MODELS[name])


def losses(subject: Subject, mesh: Mesh, folder: pathlib.Path, before: pathlib.Path | None) -> tuple[list[float], float | None]:
    """-> the loss of each of the first steps, whose end is saved in `folder`, and that of the step after what `before` holds."""
    practice = Practice(subject.model, cfg.replace(subject.experiment, mesh=mesh))
    state, found = practice.run(practice.fresh(), [subject.batch_of_step(step) for step in range(STEPS)])
    save(subject, state, folder)
    if before is None:
        return found, None
    _, on = practice.run(restore(subject, practice, before, STEPS), [subject.batch_of_step(STEPS)])
    return found, on[0]


def translator_of(name: str, mesh: Mesh | None, whole: bool = False) -> Translator:
    """With parameters as training has them on a mesh (None: on one device), or whole on each device as `translate` has them."""
    tokenizer = train_tokenizer(cfg.Tokenizer(kind="words", vocab_size=0), [(LETTERS, LETTERS)])
    config = cfg.replace(MODELS[name], remat="none", num_encoder_layers=8) if name == "scanned" else MODELS[name]  # deeper than the decoder
    model = build_model(config, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    params = tiny.params_of(model, 5)
    if mesh is not None and whole:
        params = jax.device_put(params, sharding.replicated(make_mesh(mesh)))
    elif mesh is not None:
        layouts = param_shardings(params, model.axes, make_mesh(mesh))
        spread = jax.tree.map(lambda layout, x, axes: sharding.shard_over_data(layout, x.shape, axes), layouts, params, model.axes)
        params = jax.device_put(params, spread)
    return Translator(model, params, tokenizer, 12)


def translations(name: str, mesh: Mesh | None) -> list[str]:
    """Some lines, by greedy and by beam search, and with rules for every other line."""
    translator = translator_of(name, mesh)
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(LETTERS.split(), random.integers(1, 9))) for _ in range(11)]
    decoding = cfg.Decoding(batch_size=6, max_length_ratio=1.0, max_length_extra=3)
    found = [translator.translate(lines, cfg.replace(decoding, beam_size=beam)) for beam in (1, 3)]
    rules = [Rules("a", ("b c|d",), ("e",)) if row % 2 else Rules() for row in range(len(lines))]
    found.append(translator.translate(lines, cfg.replace(decoding, beam_size=3), 1, rules))
    return [candidates[0].text for part in found for candidates in part]


def validated(name: str, mesh: Mesh | None) -> list[str]:
    """What validations translate, the second time, with parameters as training has them on a mesh."""
    trained, validate = translator_of(name, mesh), ValidationTranslator()
    pairs = [(line, line) for line in ("a b c", "d e", "f g h i")]
    data = types.SimpleNamespace(tokenizer=trained.tokenizer, validation=pairs, languages=("", ""))
    trainer: Any = types.SimpleNamespace(config=cfg.Experiment(), decoder=trained.model, data=data)
    for _ in range(2):
        found, _ = validate(trainer, trained.params)
    return found


def loaded(folder: pathlib.Path) -> dict[str, Any]:
    """A deep run that is trained with fsdp, and what is loaded of it: a device's share of the parameters, and translations."""
    deep = cfg.replace(MODELS["scanned"], num_encoder_layers=UNROLLED + 1)
    changes = {"model": deep, "mesh": Mesh(data=1, fsdp=8), "training.steps": 2, "validation.every": 0}
    jaxnmt.train(tiny.experiment(folder, **changes), folder=folder / "run")
    run = jaxnmt.load(folder / "run")
    found, params = run.translate(SOME_LINES, beam_size=2, n_best=2), jax.tree.leaves(run.translator.params)
    share = sum(x.addressable_shards[0].data.size for x in params) / sum(x.size for x in params)
    return {"share": share, "found": [[each.text, each.score] for line in found for each in line]}


def exchanged(name: str, mesh: Mesh, kind: str = "all-gather|all-reduce|all-to-all|collective-permute") -> list[list[int]]:
    """-> the shapes of the arrays that a beam search over eight devices exchanges."""
    translator = translator_of(name, mesh, whole=name != "scanned")
    rows, beams, length = ROWS, BEAMS, LENGTH
    options, tokens = SearchOptions(beams, length), np.full((rows, 8), EOS, np.int32)
    arrays = to_mesh({"encoder_input_tokens": tokens, "limits": np.full(rows, length, np.int32)}, translator.mesh)
    program = translator._whole.batch.program(translator.params)
    text = program.lower(options, translator.params, arrays, arrays.pop("limits")).compile().as_text()
    found = re.findall(rf"= (.*?) (?:{kind})(?:-start)?\(", text)
    shapes = [shape for results in found for shape in re.findall(r"\w\[([\d,]*)\]", results)]
    return [[int(size) for size in filter(None, shape.split(","))] for shape in shapes]


def main(folder: pathlib.Path) -> None:
    sharding.MIN_SHARDED_SIZE = 1  # devices share the update of small matrices too
    told: dict = {"devices": jax.device_count(), "models": {}}
    told["translations"] = {name: {mesh: translations(name, MESHES[mesh]) for mesh in DECODED} for name in MODELS}
    told["validated"] = {name: {mesh: validated(name, MESHES[mesh]) for mesh in DECODED} for name in ("transformer", "scanned")}
    told["exchanged"] = {name: exchanged(name, Mesh(data=8)) for name in ("transformer", "lstm")}
    told["loaded"] = loaded(folder / "loaded")
    told["gathered"] = exchanged("scanned", Mesh(data=1, fsdp=8), "all-gather")
    for name in MODELS:
        subject, before = subject_of(name), None
        told["models"][name] = {}
        for mesh, axes in MESHES.items():
            where = folder / name / mesh
            told["models"][name][mesh] = losses(subject, axes, where, before)
            before = where
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
