"""How a model captions one picture: the attention over the picture for every word, as plain numbers ready for JSON, and as a page."""

from __future__ import annotations

import base64
import difflib
import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxnmt import config as cfg
from jaxnmt.data import identity, pictures, scenes
from jaxnmt.data.special_tokens import BOS, EOS, PAD, UNK
from jaxnmt.decoding.alignments import of_words
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.lab.visualize.record import LIKELY, framed, piece_of, probability, rounded
from jaxnmt.parallel.axes import path_name
from jaxnmt.run import Run

SCRIPTS = ("common.js", "caption.js")


def of_run(run: Run, name: str, decoding: cfg.Decoding) -> dict[str, Any]:
    """Return the record of a run's caption of a picture, with its origin: run, checkpoint, languages (codes, or "").

    Raises:
        UserError: the picture cannot be read, or the run reads vectors.
    """
    translator, languages = run.translator, identity.languages(run.folder, run.config.data)
    origin = {"run": run.folder.absolute().name, "checkpoint": run.checkpoint, "languages": list(languages)}
    return origin | record(translator, run.config.model, name, languages[1], decoding)


def record(translator: Translator, config: Any, name: str, language: str, decoding: cfg.Decoding) -> dict[str, Any]:
    """Caption a picture and record where the model looks.

    Args:
        config: the model's configuration.
        name: of the picture, as in `data.pictures`.
        language: of the captions; of a scene, the true caption is known in it.

    Returns:
        sentence (the picture's name), translation (the caption), score; model {name}; picture {image, a data URI; size; side, the number of
        regions in a row}; words, one for each word of the caption and one for its end: {text, p, likely [{piece, p}], layers, each {regions
        of a row of weights}, thing, its number or None}; layers, their names; chosen, the number of the layer that stands for all; truth,
        the true caption of a scene, or ""; things [{text, outline, an SVG path; touched, the regions that it touches}].

    Raises:
        UserError: as `of_run`; or a setting of decoding does not go with it.
    """
    task = translator.model.task
    if task.source != "pictures":
        raise UserError(
            f"the model reads vectors of {task.size} numbers, which have no regions to look at: choose a run that reads pictures"
        )
    if decoding.temperature:
        raise UserError(f"decoding.temperature {decoding.temperature:g} draws samples, and the page shows a search: set it to 0")
    best = translator.translate([name], decoding)[0][0]
    ids, picture = [*best.parts[0][1], EOS], pictures.read(name, task)
    log_p_TV, layers = _teacher_forced(translator, picture, ids)
    words, word_of = translator.tokenizer.target_words(ids[:-1])
    truth, things = _scene(name, language, task)
    groups = [[t for t, word in enumerate(word_of) if word == number] for number in range(len(words))] + [[len(ids) - 1]]
    spoken = _things_of(words, truth)
    side = task.size // task.patch
    every = range(side * side)
    of_layer = [of_words(weights_TS, [*word_of, len(words)], every, len(words) + 1, len(every)) for weights_TS in layers]
    return {
        "sentence": name,
        "translation": best.text,
        "score": rounded(best.score),
        "model": {"name": type(config).__name__, "settings": {}},
        "picture": {"image": _data_uri(picture), "size": task.size, "side": side},
        "words": [
            {
                "text": text,
                "p": probability(log_p_TV[group, [ids[t] for t in group]].sum()),
                "likely": _likely(translator, log_p_TV[group[0]]),
                "layers": [rounded(weights[number], 5) for weights in of_layer],
                "thing": thing,
            }
            for number, (text, group, thing) in enumerate(zip([*words, "‹end›"], groups, [*spoken, None], strict=True))
        ],
        "layers": [f"layer {number}" for number in range(1, len(layers) + 1)],
        "chosen": len(layers) - (2 if len(layers) > 2 else 1),  # as `seq2seq.source_attention` chooses
        "truth": " ".join(word for word, _ in truth),
        "things": things,
        # what common.js reads of every record
        "source": {"pieces": []},
        "target": {"pieces": [*words, "‹end›"]},
        "steps": [],
        "attention": [],
    }


def _teacher_forced(translator: Translator, picture: np.ndarray, ids: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return log-probabilities (T, V) of each token of a caption, and each layer's attention over the regions, (T, S), mean of heads."""
    model = translator.model
    batch = {
        "encoder_input_tokens": np.array([[UNK, EOS]], np.int32),
        "encoder_input_vectors": picture[None],
        "decoder_input_tokens": np.array([[BOS, *ids[:-1]]], np.int32),
    }

    @jax.jit
    def run(params, batch):
        logits_BTV = model.decode(params, model.encode(params, batch), batch)
        return logits_BTV[0], model.attention(params, batch)

    logits_TV, sown = jax.device_get(run(translator.params, batch))
    logits_TV = np.where(np.isin(np.arange(logits_TV.shape[1]), [PAD, BOS]), -np.inf, logits_TV)
    return np.asarray(jax.nn.log_softmax(logits_TV)), _layers(sown, model.attention_module)


def _layers(sown: Any, module: str) -> list[np.ndarray]:
    """Return each layer's attention over the source, (T, S), the first layer first; none if the model has no attention."""
    named = {f"/{path_name(path)}": x for path, x in jax.tree_util.tree_leaves_with_path(sown)}
    layers = sorted((name for name in named if name.endswith(f"/{module}/attention/0")), key=lambda name: (len(name), name))
    return [np.asarray(named[name][0], np.float32).mean(0) for name in layers]


def _scene(name: str, language: str, task: Any) -> tuple[list[tuple[str, int | None]], list[dict[str, Any]]]:
    """Return the words of a scene's true caption, each with the number of its thing, and the things; nothing if it is no scene."""
    path, _, number = name.rpartition("#")
    match = pictures.SCENES.fullmatch(path)
    if not match or language not in scenes.LANGUAGES:
        return [], []
    scene, things = scenes.scene(match["split"] or "train", int(number)), []
    said = scenes.words(scene, language)
    for thing in scene.things:
        mask = scenes.region(thing, task.size)
        side = task.size // task.patch
        touched = mask.reshape(side, task.patch, side, task.patch).any((1, 3)).ravel()
        text = " ".join(word for word, about in said if about is thing)
        things.append({"text": text, "outline": outline(mask), "touched": np.flatnonzero(touched).tolist()})
    return [(word, None if about is None else scene.things.index(about)) for word, about in said], things


def outline(mask: np.ndarray) -> str:
    """Return the edges between pixels that are in a mask and those that are not, as an SVG path."""
    padded = np.pad(mask, 1)
    across = np.argwhere(padded[:-1, 1:-1] != padded[1:, 1:-1])
    down = np.argwhere(padded[1:-1, :-1] != padded[1:-1, 1:])
    return "".join([*(f"M{x} {y}h1" for y, x in across.tolist()), *(f"M{x} {y}v1" for y, x in down.tolist())])


def _things_of(words: Sequence[str], truth: Sequence[tuple[str, int | None]]) -> list[int | None]:
    """Return the thing of each word of a caption that stands, in the same order, in the true one."""
    found: list[int | None] = [None] * len(words)
    matcher = difflib.SequenceMatcher(None, words, [word for word, _ in truth], autojunk=False)
    for start, there, length in matcher.get_matching_blocks():
        found[start : start + length] = [thing for _, thing in truth[there : there + length]]
    return found


def _likely(translator: Translator, log_p_V: np.ndarray) -> list[dict[str, Any]]:
    likely = [int(i) for i in np.argsort(-log_p_V, kind="stable")[:LIKELY] if np.isfinite(log_p_V[i])]
    return [{"piece": piece_of(translator.tokenizer, i), "p": probability(log_p_V[i])} for i in likely]


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def page(record: dict[str, Any]) -> str:
    """Return the page of a record of `of_run`, as `record.page` does."""
    return framed(record, "caption", record["translation"], ("page.css", "caption.css"), SCRIPTS)
