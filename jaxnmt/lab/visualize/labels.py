"""Why a text gets its label: what each word adds to the label's log-odds, and how much attention it gets, side by side.

Gradient × input is the derivative of the log-odds by the size of a word's vector: to first order, what they would lose without the word
(Shrikumar et al. 2016); a saturated unit shows little. Attention is that of the pooling, if it has any; else that which a word gets in
the encoder's last layer, the mean over heads and over the words that look. The two need not agree (Jain and Wallace 2019).
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnmt.lab import figures, pages
from jaxnmt.lab.visualize.record import source_ids
from jaxnmt.models.layers import Embedding
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel.axes import path_name
from jaxnmt.run import Run

END = "‹end›"
LIKELY = 5
_COLOURS = "0, 114, 178", "213, 94, 0"  # blue and vermilion of Okabe and Ito, for what is positive and negative


def of_run(run: Run, sentence: str, decoding: Any = None) -> dict[str, Any]:
    """Return the record of a text: sentence, prediction, likely {label: probability}, words, gradient_x_input and attention, one number for
    each word, and attention_of: what gives the attention; both are empty if nothing does.

    The last word is the end token.

    Args:
        decoding: means nothing for labels.

    Raises:
        UserError: the text is empty, or longer than the model reads.
    """
    tokenizer, prediction = run.tokenizer, run.predict(sentence)
    source = source_ids(tokenizer, run.config.data.max_length, sentence)
    words, word_of = tokenizer.source_words(sentence, source[:-1])
    places = np.array([*word_of, len(words)])
    index = int(np.argmax(prediction.values)) if len(prediction.values) else None
    attention, name = attention_to(run.model, run.params, source)
    per_word = [
        np.bincount(places, each, len(words) + 1).tolist() for each in (gradient_x_input(run.model, run.params, source, index), attention)
    ]
    return {
        "run": run.folder.absolute().name,
        "checkpoint": run.checkpoint,
        "sentence": sentence,
        "prediction": prediction.label,
        "explained": "" if index is None else prediction.labels[index],
        "likely": dict(itertools.islice(prediction.probabilities.items(), LIKELY)),
        "words": [*words, END],
        "gradient_x_input": per_word[0],
        "attention": per_word[1] if name else [],
        "attention_of": name,
    }


def gradient_x_input(model: Seq2Seq, params: Any, source: Sequence[int], label: int | None) -> np.ndarray:
    """Return each source token's gradient times input, float32 (S,).

    Args:
        source: ids, with EOS.
        label: the number of the label whose log-odds are differentiated; None: the run's number is.
    """
    batch = {"encoder_input_tokens": jnp.asarray([source], jnp.int32)}

    def output(scale_S):
        def scaled(call, args, kwargs, context):
            made = call(*args, **kwargs)
            if not isinstance(context.module, Embedding) or context.method_name != "__call__":
                return made
            is_reversed = getattr(model.module.config, "reverse_source", False)  # all but the end token
            read_S = jnp.concatenate([scale_S[:-1][::-1], scale_S[-1:]]) if is_reversed else scale_S
            return made * read_S.reshape(*made.shape[:2], 1).astype(made.dtype)  # recurrent models have positions first

        with nn.intercept_methods(scaled):
            if label is None:
                return model.apply(params, "predict", batch)[0, 0]
            return log_odds(model, model.apply(params, "label_logits", model.encode(params, batch))[0], label)

    return np.asarray(jax.jit(jax.grad(output))(jnp.ones(len(source))), np.float32)


def log_odds(model: Seq2Seq, logits_V: jax.Array, label: int) -> jax.Array:
    """Return log(p / (1 - p)) of a label: its logit, less what all others have together if only one applies."""
    if model.module.task.labels == "several":
        return logits_V[label]
    return logits_V[label] - jax.nn.logsumexp(jnp.where(jnp.arange(len(logits_V)) == label, -jnp.inf, logits_V))


def attention_to(model: Seq2Seq, params: Any, source: Sequence[int]) -> tuple[np.ndarray, str]:
    """Return the attention to each source token, float32 (S,), and what gives it; zeros and "" if nothing does."""
    tokens = jnp.asarray([source], jnp.int32)
    sown = jax.jit(model.attention)(params, {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens[:, :1]})
    found = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(sown)}
    layers = sorted((int(re.findall(r"\d+", name)[0]), name) for name in found if name.startswith("encoder/") and "self_attention" in name)
    if model.module.task.pooling == "attention":
        return np.asarray(found["pooling/attention/0"][0, 0, 0], np.float32), "the pooling"
    if layers:
        return np.asarray(found[layers[-1][1]][0].mean((0, 1)), np.float32), "the encoder's last layer"
    return np.zeros(len(source), np.float32), ""


def page(record: dict[str, Any]) -> str:
    """Return one self-contained HTML page with the words of the text, coloured twice, and all numbers as a table."""
    likely = ", ".join(f"{label} {probability:.1%}" for label, probability in record["likely"].items())
    parts = [
        pages.paragraph(f"{record['run']}, {record['checkpoint']}. {f'Most probable: {likely}.' if likely else ''}"),
        '<div style="display: flex; flex-wrap: wrap; gap: 1rem">',
        _panel(record, "gradient_x_input", f"Gradient × input{' of ' + record['explained'] if record['explained'] else ''}"),
    ]
    if record["attention_of"]:
        parts.append(_panel(record, "attention", f"Attention of {record['attention_of']}"))
    columns = ["gradient_x_input", *(["attention"] if record["attention_of"] else [])]
    rows = [(word, *(f"{record[name][i]:.3f}" for name in columns)) for i, word in enumerate(record["words"])]
    note = "Blue: for the label; orange: against it." + (
        "" if record["attention_of"] else " Nothing in this model gives attention to words."
    )
    header = ("word", *(name.replace("_x_", " × ") for name in columns))
    parts += ["</div>", pages.paragraph(note, "note"), pages.table(figures.Table("Each word", header, rows))]
    return pages.page(f"Why “{record['prediction'] or 'none'}”", "\n".join(parts))


def _panel(record: dict[str, Any], name: str, title: str) -> str:
    """Return the text, each word on a colour as strong as its number is beside the largest."""
    most = max(map(abs, record[name])) or 1.0
    shown = []
    for word, value in zip(record["words"], record[name], strict=True):
        colour = f"rgba({_COLOURS[value < 0]}, {0.5 * abs(value) / most:.3f})"  # at most half, so that the text stays readable
        shown.append(f'<span style="background: {colour}; border-radius: .15rem" title="{value:.3f}">{html.escape(word)}</span>')
    text = " ".join(shown)
    return f'<article style="flex: 1 1 20rem; margin: 0"><h3>{html.escape(title)}</h3><p dir="auto" style="margin: 0">{text}</p></article>'
