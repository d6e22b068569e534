"""Values that cannot be, or do not go together. Each rule is one sentence naming the fields and their values."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from typing import Any

from jaxnmt.config import Experiment, Recurrent, Transformer
from jaxnmt.config.files import leaves
from jaxnmt.config.overrides import type_in_words
from jaxnmt.errors import UserError

POSITIVE = frozenset(
    """data.max_length data.cleaning.max_characters data.cleaning.max_ratio tokenizer.max_sentences
    batching.tokens batching.row_length batching.max_shapes
    model.emb_dim model.num_heads model.mlp_dim model.hidden_dim model.num_encoder_layers model.num_decoder_layers
    schedule.learning_rate schedule.plateau_patience training.steps training.accumulation training.max_bad_steps
    optimizer.epsilon validation.beam_size checkpoints.every checkpoints.keep_latest logging.every
    decoding.beam_size decoding.n_best decoding.batch_size mesh.fsdp mesh.tensor mesh.slices""".split()
)
"""Fields that must be above 0. Every other number must be at least 0."""

SHARES = frozenset(
    """model.dropout model.attention_dropout model.activation_dropout optimizer.beta1 optimizer.beta2
    training.label_smoothing training.ema_decay""".split()
)
"""Fields that must be below 1."""

UP_TO_ONE = frozenset({"schedule.final_ratio", "schedule.plateau_factor", "tokenizer.character_coverage"})
"""Fields that must be at most 1."""

MINUS_ONE = frozenset({"mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.slices"})
"""Fields where -1 means all that are left."""


USED_BY = {
    "optimizer.beta1": ("adam", "adamw", "lion", "muon"),
    "optimizer.beta2": ("adam", "adamw", "lion", "muon"),
    "optimizer.epsilon": ("adam", "adamw"),
    "optimizer.weight_decay": ("adamw", "adafactor", "lion", "muon"),
    "schedule.final_ratio": ("cosine", "linear"),
    "schedule.plateau_factor": ("plateau",),
    "schedule.plateau_patience": ("plateau",),
}
"""The optimizers and schedules that read a field; for the others it must keep its default."""


def validate(experiment: Experiment) -> None:
    """Look for values that cannot be.

    Raises:
        UserError: the first one found, naming the field(s) and value(s).
    """
    for rule in (_types, _ranges, _unused, _data, _model, _training):  # each may count on those before it
        for problem in rule(experiment):
            raise UserError(problem)


def _known(experiment: Experiment) -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, declared type, value) of the fields that we know: what those of a user's own model may be, only that model knows."""
    shipped = next((kind for kind in (Transformer, Recurrent) if isinstance(experiment.model, kind)), None)
    ours = {f"model.{field.name}" for field in dataclasses.fields(shipped)} if shipped else set()
    return (leaf for leaf in leaves(experiment) if not leaf[0].startswith("model.") or leaf[0] in ours)


def _types(experiment: Experiment) -> Iterator[str]:
    for name, hint, value in _known(experiment):
        if not _is(hint, value):
            sequence = typing.get_origin(hint) is tuple and isinstance(value, str | list)
            instead = f": write {(value,) if isinstance(value, str) else tuple(value)!r}" if sequence else ""
            yield f"{name} is {value!r}; it must be {type_in_words(hint)}{instead}"


def _is(hint: Any, value: Any) -> bool:
    """Whether a value is of a field's declared type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(_is(parts[0], part) for part in value)
    if origin in (typing.Union, types.UnionType):
        return any(_is(part, value) for part in parts)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _ranges(experiment: Experiment) -> Iterator[str]:
    for name, _, value in _known(experiment):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if value == -1 and name in MINUS_ONE:
            continue
        if not math.isfinite(value):
            yield f"{name} is {value}; it must be a finite number"
        elif name in POSITIVE and value <= 0:
            yield f"{name} is {value}; it must be above 0"
        elif value < 0:
            yield f"{name} is {value}; it must not be negative"
        elif name in SHARES and value >= 1:
            yield f"{name} is {value}; it must be below 1"
        elif name in UP_TO_ONE and value > 1:
            yield f"{name} is {value}; it must be at most 1"


def _unused(experiment: Experiment) -> Iterator[str]:
    defaults = Experiment()
    for name, readers in USED_BY.items():
        part, field = name.split(".")
        chosen, value, default = (getattr(getattr(e, part), n) for e, n in ((experiment, "name"), (experiment, field), (defaults, field)))
        if chosen not in readers and value != default:
            yield f"{name} {value:g} has no effect with {part}.name {chosen}: leave it at {default:g}, or choose {' or '.join(readers)}"


def _data(experiment: Experiment) -> Iterator[str]:
    tokenizer, data = experiment.tokenizer, experiment.data
    if data.max_length < 2:
        yield f"data.max_length is {data.max_length}; it must be at least 2, a token and the end"
    if not data.validation and data.held_out == 0:
        yield "data.held_out is 0 and data.validation is empty: there is nothing to validate on; set one of them"
    if tokenizer.model and tokenizer.kind == "words":
        yield f"tokenizer.model {' '.join(tokenizer.model)} is a SentencePiece model; tokenizer.kind words has no use for it"
    if tokenizer.model and len(tokenizer.model) != (1 if tokenizer.joint else 2):
        needed = "one file with tokenizer.joint True" if tokenizer.joint else "two files, source and target, with tokenizer.joint False"
        yield f"tokenizer.model names {len(tokenizer.model)} file(s); it takes {needed}"
    if tokenizer.kind != "words" and not tokenizer.model and tokenizer.character_coverage < 0.98:
        yield f"tokenizer.character_coverage is {tokenizer.character_coverage:g}; SentencePiece takes 0.98 to 1"
    smallest = 4 + 256 * tokenizer.byte_fallback
    if tokenizer.kind != "words" and not tokenizer.model and tokenizer.vocab_size <= smallest:
        bytes_too = " and 256 bytes (tokenizer.byte_fallback)" if tokenizer.byte_fallback else ""
        yield f"tokenizer.vocab_size is {tokenizer.vocab_size}; it must be above {smallest}: 4 special tokens{bytes_too} come first"
    if tokenizer.kind == "words" and 0 < tokenizer.vocab_size <= 4:
        yield f"tokenizer.vocab_size is {tokenizer.vocab_size}; it must be above 4, the special tokens, or 0 for all words"


def _model(experiment: Experiment) -> Iterator[str]:
    model = experiment.model
    if getattr(model, "tie_embeddings", "") == "all" and not experiment.tokenizer.joint:
        yield "model.tie_embeddings all needs tokenizer.joint True: with two vocabularies, tie decoder or none"
    if not callable(getattr(model, "build", None)):
        yield f"the model {type(model).__name__} has no method build(source_size, target_size, target_vocab) that returns its linen module"
    if experiment.batching.layout == "packed" and not getattr(model, "packs", False):
        yield f"batching.layout packed is for models that read packed rows; a {type(model).__name__} needs batching.layout buckets"
    if isinstance(model, Transformer):
        yield from _transformer(model)
    if isinstance(model, Recurrent):
        yield from _recurrent(model)


def _recurrent(model: Recurrent) -> Iterator[str]:
    states, named = (model.encoder_dim, "encoder_dim") if model.encoder_dim else (model.hidden_dim, "hidden_dim")
    if model.encoder == "recurrent" and model.bidirectional != "none" and states % 2:
        yield f"model.{named} {states} is odd; model.bidirectional {model.bidirectional} gives half of it to each direction"
    if model.bridge == "copy" and model.encoder == "bag":
        yield "model.bridge copy has no states to copy from model.encoder bag; choose model.bridge dense"
    elif model.bridge == "copy" and model.num_encoder_layers != model.num_decoder_layers:
        yield (
            f"model.bridge copy needs as many encoder as decoder layers, not model.num_encoder_layers {model.num_encoder_layers} and "
            f"model.num_decoder_layers {model.num_decoder_layers}; choose model.bridge dense, or make them equal"
        )
    same_width = {"model.bridge copy": model.bridge == "copy", "model.score dot": model.context == "luong" and model.score == "dot"}
    for setting in (name for name, chosen in same_width.items() if chosen and states != model.hidden_dim):
        yield f"{setting} needs model.encoder_dim {states} and model.hidden_dim {model.hidden_dim} to be equal"
    if model.context == "bahdanau" and not model.input_feeding:
        yield "model.context bahdanau always reads its context; model.input_feeding False is for fixed and luong"
    if model.window and model.context != "luong":
        yield f"model.window {model.window} is for model.context luong, not {model.context}"
    if model.tie_embeddings != "none" and not model.reads_context and model.emb_dim != model.hidden_dim:
        yield (
            f"model.tie_embeddings {model.tie_embeddings} needs model.emb_dim {model.emb_dim} and model.hidden_dim {model.hidden_dim} "
            f"to be equal: with model.context {model.context} the output layer reads a state of that width"
        )


def _transformer(model: Transformer) -> Iterator[str]:
    if not model.head_dim and model.emb_dim % model.num_heads:
        yield f"model.emb_dim {model.emb_dim} is not divisible by model.num_heads {model.num_heads}; change one, or set model.head_dim"
    head_dim = model.head_dim or model.emb_dim // model.num_heads
    if model.positions == "rotary" and head_dim % 2:
        yield f"model.positions rotary turns pairs of numbers and needs an even width of a head, not {head_dim} (model.head_dim)"
    if model.positions == "sinusoidal" and model.emb_dim % 2:
        yield f"model.positions sinusoidal needs an even model.emb_dim, not {model.emb_dim}"
    if model.positions == "learned" and model.max_positions < 1:
        yield f"model.max_positions is {model.max_positions}; it must be above 0"


def _training(experiment: Experiment) -> Iterator[str]:
    if experiment.training.seed >= 2**32:
        yield f"training.seed is {experiment.training.seed}; it must be below 4,294,967,296 (32 bits)"
    batching, training, schedule, mesh = experiment.batching, experiment.training, experiment.schedule, experiment.mesh
    width = max(batching.row_length, experiment.data.max_length) if batching.layout == "packed" else experiment.data.max_length
    if batching.tokens < width * training.accumulation:
        longest = "data.max_length" if width == experiment.data.max_length else "batching.row_length"
        parts = f" in each of training.accumulation {training.accumulation} parts" if training.accumulation > 1 else ""
        yield f"batching.tokens {batching.tokens} is too few for one row of {longest} {width}{parts}"
    if experiment.optimizer.name == "adafactor" and getattr(experiment.model, "scan_layers", False):
        yield "optimizer.name adafactor keeps a factored state for each layer; set model.scan_layers False, or choose another optimizer"
    if schedule.name == "noam" and schedule.warmup_steps == 0:
        yield "schedule.name noam needs schedule.warmup_steps above 0, not 0: its rate is counted from the end of the warm-up"
    if schedule.name in ("cosine", "linear") and schedule.warmup_steps >= training.steps:
        yield (
            f"schedule.warmup_steps {schedule.warmup_steps} leaves no step for schedule.name {schedule.name}: "
            f"training.steps is {training.steps}"
        )
    if schedule.name == "plateau" and experiment.validation.every == 0:
        yield "schedule.name plateau needs validations: validation.every is 0"
    if experiment.validation.patience and experiment.validation.every == 0:
        yield (
            f"validation.patience {experiment.validation.patience} needs validations, and validation.every is 0: "
            "set validation.every, or validation.patience 0"
        )
    left = [name for name in ("data", "fsdp", "tensor") if getattr(mesh, name) == -1]
    if len(left) > 1:
        yield f"mesh.{left[0]} and mesh.{left[1]} are both -1; only one axis can take all devices that are left"
    if mesh.data == 0:
        yield "mesh.data is 0; it must be above 0, or -1 for all devices that are left"
    if experiment.decoding.n_best > experiment.decoding.beam_size:
        yield f"decoding.n_best {experiment.decoding.n_best} is more than decoding.beam_size {experiment.decoding.beam_size} can give"
