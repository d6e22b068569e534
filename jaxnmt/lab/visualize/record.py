"""How a model translates one sentence, as plain numbers ready for JSON, with which users can compute; and as a page that draws them."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data import identity
from jaxnmt.data.special_tokens import EOS
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.alignments import of_words
from jaxnmt.decoding.batches import bucket, output_limit
from jaxnmt.decoding.search import StepwiseSearch
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError
from jaxnmt.lab.pages import fill
from jaxnmt.lab.visualize import passes
from jaxnmt.run import Run

TEMPLATE = Path(__file__).parent / "template"
SCRIPTS = ("common.js", "heatmap.js", "narration.js", "player.js", "heads.js", "beam.js", "page.js")
LIKELY = 8
STRIP = 24
"""How many numbers of a vector are drawn."""


def of_run(run: Run, sentence: str, decoding: cfg.Decoding) -> dict[str, Any]:
    """Return the record of a run's model, with its origin: run, checkpoint, languages (codes, or "").

    Raises:
        UserError: the sentence is empty, or longer than the model reads.
    """
    translator, languages = run.translator, identity.languages(run.folder, run.config.data)
    origin = {"run": run.folder.absolute().name, "checkpoint": run.checkpoint, "languages": list(languages)}
    return origin | record(translator, run.config.model, sentence, decoding)


def record(translator: Translator, config: Any, sentence: str, decoding: cfg.Decoding) -> dict[str, Any]:
    """Translate a sentence and record how.

    Args:
        config: the model's configuration.

    Returns:
        sentence, translation, score, log_prob; model; source and target {pieces, ids, words, word_of: the word of each token but the
        last, which is EOS}; attention [{part, layer, name, heads (H, T, S), itself (H,), previous (H,): `shares`}]; alignment {name,
        weights (T, S), words} or None; vectors; recurrent: {states, readers, vector, initial} or None; steps, one per target token: {read,
        chosen, p, likely, and for recurrent models query, scores, weights, context, state, joined}; beam {size,
        length_penalty, length_normalization, nodes, finished}.

    Raises:
        UserError: the sentence is empty, or longer than the model reads.
    """
    if decoding.temperature:
        raise UserError(f"decoding.temperature {decoding.temperature:g} draws samples, and the page shows a search: set it to 0")
    if decoding.shortlist:
        raise UserError(f"decoding.shortlist {decoding.shortlist} hides tokens, and the page shows all probabilities: set it to 0")
    tokenizer, model, params = translator.tokenizer, translator.model, translator.params
    source = source_ids(tokenizer, translator.max_length, sentence)
    if decoding.beam_size > 1:
        nodes, finished = passes.tree(_search(translator, source, decoding))
        target = finished[0]["ids"]
    else:
        best = translator.translate([sentence], decoding)[0][0]
        target = [*best.parts[0][1], EOS]
    log_p_TV, attention, vectors = passes.teacher_forced(model, params, source, target)
    if decoding.beam_size == 1:
        nodes, finished = passes.chain(target, log_p_TV[np.arange(len(target)), target], best.score)
    recurrent = passes.steps(config, model, params, source, target) if isinstance(config, cfg.Recurrent) else None
    kind = {cfg.Transformer: "transformer", cfg.Recurrent: "recurrent"}.get(type(config), "other")
    settings = {name: value for name, value in dataclasses.asdict(config).items() if isinstance(value, str | int | float | bool)}
    found = {
        "sentence": sentence,
        "translation": tokenizer.decode_target(target),
        "score": rounded(finished[0]["score"]),
        "log_prob": rounded(finished[0]["log_prob"]),
        "model": {"kind": kind, "name": type(config).__name__, "settings": settings},
        "source": _side(tokenizer, source, tokenizer.source_pieces(source), tokenizer.source_words(sentence, source[:-1])),
        "target": _side(tokenizer, target, tokenizer.target_pieces(target), tokenizer.target_words(target[:-1])),
        "attention": [_attention(each) for each in attention],
        "vectors": [{"side": side, "name": name, "strips": [strip(x) for x in rows]} for side, name, rows in vectors],
        "recurrent": recurrent
        and {
            "states": [strip(x) for x in recurrent.states_SD],
            "readers": recurrent.readers,
            "vector": strip(recurrent.vector_D),
            "initial": strip(recurrent.initial_D),
        },
        "steps": _steps(tokenizer, target, log_p_TV, recurrent),
        "beam": _beam(tokenizer, decoding, nodes, finished),
    }
    return found | {"alignment": _alignment(found, attention)}


def _beam(tokenizer: Tokenizer, decoding: cfg.Decoding, nodes: list[dict], finished: list[dict]) -> dict[str, Any]:
    return {
        "size": decoding.beam_size,
        "length_penalty": decoding.length_penalty,
        "length_normalization": decoding.length_normalization,
        "nodes": [{**node, "log_prob": rounded(node["log_prob"]), "piece": piece_of(tokenizer, node["token"])} for node in nodes],
        "finished": [
            {"text": tokenizer.decode_target(each["ids"]), "node": each["node"]}
            | {name: rounded(each[name]) for name in ("score", "log_prob")}
            for each in finished
        ],
    }


def strip(vector: np.ndarray) -> dict[str, Any]:
    """Summarize a vector: its first numbers, its norm, and its size."""
    return {"values": rounded(vector[:STRIP], 3), "norm": rounded(np.linalg.norm(vector), 3), "size": len(vector)}


def source_ids(tokenizer: Tokenizer, max_length: int, sentence: str) -> list[int]:
    """Return a sentence's ids, with EOS.

    Raises:
        UserError: there are none, or more than `max_length`.
    """
    ids, limit = tokenizer.encode_source([sentence])[0], max_length - 1
    if not ids:
        raise UserError("the sentence has no word: give one, in quotes")
    if len(ids) > limit:
        raise UserError(f"the sentence has {len(ids)} tokens; the model reads {limit} (data.max_length): give a shorter one")
    return [*ids, EOS]


def _search(translator: Translator, source: list[int], decoding: cfg.Decoding):
    """Yield the beams of the search that `Translator.translate` makes, with its shape."""
    length = bucket(len(source))
    options = translator.options(decoding, length)
    batch = {"encoder_input_tokens": passes.padded(source, length)}
    limits = np.array([output_limit(len(source) - 1, decoding)], np.int32)
    return StepwiseSearch(translator.model)(options, translator.params, batch, limits)


def _side(tokenizer: Tokenizer, ids: list[int], pieces: list[str], words: tuple[list[str], list[int]]) -> dict[str, Any]:
    shown = [readable_piece(piece, tokenizer.pretokenized) for piece in pieces[:-1]]
    return {"pieces": [*shown, "‹end›"], "ids": ids, "words": words[0], "word_of": words[1]}


def piece_of(tokenizer: Tokenizer, token: int) -> str:
    """Return a target token for readers."""
    return "‹end›" if token == EOS else readable_piece(tokenizer.target_pieces([token])[0], tokenizer.pretokenized)


def readable_piece(piece: str, pretokenized: bool) -> str:
    """Return a piece for readers: a dot marks what continues a word, where SentencePiece marks what begins one.

    Punctuation usually continues: there, the space before it is marked.
    """
    if pretokenized or piece.startswith("<"):
        return piece
    word = any(letter.isalnum() for letter in piece)
    if piece.startswith("▁"):
        return piece[1:] if word else f"␣{piece[1:]}"
    return f"·{piece}" if word else piece


def _attention(found: passes.Attention) -> dict[str, Any]:
    heads = {"part": found.part, "layer": found.layer, "name": found.name, "heads": rounded(found.weights_HTS)}
    return heads if found.part == "cross" else heads | shares(found.part, found.weights_HTS)


def shares(part: str, weights_HTT: np.ndarray) -> dict[str, list[float]]:
    """Return each head's mean weight on the token itself and on the previous one, over the rows with more than one choice.

    The first row has no previous token. Under a causal mask it only sees itself, so it is left out of both means. If no row remains,
    there are no shares.
    """
    rows = np.arange(weights_HTT.shape[1])
    choosing = rows[1:] if part == "decoder" and not np.triu(weights_HTT, 1).any() else rows
    if not len(choosing):
        return {}
    itself_H = weights_HTT[:, choosing, choosing].mean(-1)
    return {"itself": rounded(itself_H), "previous": rounded(weights_HTT[:, rows[1:], rows[:-1]].mean(-1))}


def _alignment(found: dict[str, Any], attention: list[passes.Attention]) -> dict[str, Any] | None:
    """Return the mean over heads of the cross-attention layer that is closest to word alignment (Garg et al. 2019)."""
    cross = [each for each in attention if each.part == "cross"]
    if not cross:
        return None
    chosen = cross[-2 if len(cross) > 2 else -1]
    weights_TS = chosen.weights_HTS.mean(0)
    source, target = found["source"], found["target"]
    words = of_words(weights_TS[:-1, :-1], target["word_of"], source["word_of"], len(target["words"]), len(source["words"]))
    heads = f", mean of {len(chosen.weights_HTS)} heads" if len(chosen.weights_HTS) > 1 else ""
    name = f"layer {chosen.layer} of {len(cross)}{heads}" if len(cross) > 1 or heads else ""
    return {"name": name, "layer": chosen.layer, "weights": rounded(weights_TS), "words": rounded(words)}


def _steps(tokenizer: Tokenizer, target: list[int], log_p_TV: np.ndarray, recurrent: passes.Steps | None) -> list[dict[str, Any]]:
    found = []
    for t, token in enumerate(target):
        likely = [int(i) for i in np.argsort(-log_p_TV[t], kind="stable")[:LIKELY] if np.isfinite(log_p_TV[t, i])]
        step: dict[str, Any] = {
            "read": "‹begin›" if t == 0 else piece_of(tokenizer, target[t - 1]),
            "chosen": piece_of(tokenizer, token),
            "p": probability(log_p_TV[t, token]),
            "likely": [{"piece": piece_of(tokenizer, i), "id": i, "p": probability(log_p_TV[t, i])} for i in likely],
        }
        for name, x in (recurrent.each[t] if recurrent else {}).items():
            step[name] = rounded(x) if name in ("scores", "weights") else strip(x)
        found.append(step)
    return found


def rounded(x: Any, digits: int = 7) -> Any:
    """Return a float or nested lists; seven digits keep a weight to better than 1e-7."""
    return np.round(np.asarray(x, np.float64), digits).tolist()


def probability(log_p: Any) -> float:
    """Return a probability, to seven significant digits."""
    return float(f"{np.exp(np.float64(log_p)):.7g}")


def page(record: dict[str, Any]) -> str:
    """Return the page of a record of `of_run`: one HTML file with style, script and numbers inside, which loads nothing else."""
    return framed(record, "translation", record["sentence"], ("page.css",), SCRIPTS)


def framed(record: dict[str, Any], kind: str, title: str, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Return the page of a record.

    Args:
        record: what the scripts draw.
        kind: "translation" or "caption"; the template of this name has what is special to it.
        title: of the window.
        styles, scripts: templates.
    """
    read = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATE.iterdir()}
    source_lang, target_lang = map(lang, record["languages"])
    parts = {
        "kind": kind,
        "title": html.escape(title),
        "sentence": html.escape(record["sentence"]),
        "translation": html.escape(record["translation"]),
        "source_lang": source_lang,
        "target_lang": target_lang,
        "style": "".join(read[name] for name in styles),
        "main": read[f"{kind}.html"],
        "script": "".join(read[name] for name in scripts),
        "record": json.dumps(record, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),  # so that no text ends the element
    }
    return fill(read["frame.html"], parts)


def lang(code: str) -> str:
    """Return the HTML attribute of a language, "" if it is unknown."""
    return f' lang="{html.escape(code.replace("_", "-"))}"' if code else ""  # zh_Hans is zh-Hans in HTML
