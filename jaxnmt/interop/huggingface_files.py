"""Read the settings and the tokenizer of a Marian, Pegasus, M2M100 or NLLB folder of Hugging Face's transformers, which others made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxnmt.config import Data, Decoding, Experiment, Transformer
from jaxnmt.config import Tokenizer as TokenizerSettings
from jaxnmt.data.pieces import Numbering, Pieces
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.errors import UserError
from jaxnmt.interop.huggingface import ACTIVATIONS
from jaxnmt.interop.untrusted import VOCABULARY_SIZE, read_bytes, read_json

KINDS = {"marian": "post", "pegasus": "pre", "m2m_100": "pre"}
"""The order of norms of each `model_type` that is read; NLLB's is m2m_100 too."""
_SIZES = {
    "d_model": 2**16,
    "encoder_layers": 2**8,
    "decoder_layers": 2**8,
    "encoder_attention_heads": 2**10,
    "decoder_attention_heads": 2**10,
    "encoder_ffn_dim": 2**18,
    "decoder_ffn_dim": 2**18,
    "vocab_size": 2**22,
    "max_position_embeddings": 2**20,
}
"""The largest value of each size, far above any model's."""
_PEGASUS_OFFSET = 103
"""Ids that Pegasus has before those of its SentencePiece model, for masks."""
_FAIRSEQ_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
"""The first tokens of M2M100 and NLLB."""
_MOST_UNUSED = 64
"""Rows that their tables may have beyond the tokens: M2M100's have 8, NLLB's have 3 with its mask token."""


class Foreign(NamedTuple):
    """What a folder says of its model besides the numbers.

    Attributes:
        experiment: the settings of the run that it becomes.
        tokenizer: its tokenizer, in our ids.
        numberings: of the "source" and the "target" vocabulary there.
    """

    experiment: Experiment
    tokenizer: Tokenizer
    numberings: dict[str, Numbering]


def read(folder: Path) -> Foreign:
    """Read config.json, the tokenizer's files and, if there is one, generation_config.json.

    Raises:
        UserError: a file is missing, damaged or too large, or our models cannot represent it.
    """
    where, found = folder / "config.json", read_json(folder / "config.json")
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{where}: model_type is {str(kind)[:50]}; {', '.join(KINDS)} are read")
    sizes = {name: _size(where, found, name, most) for name, most in _SIZES.items()}
    for problem in _problems(found, sizes):
        raise UserError(f"{where}: {problem}")
    described = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    source, target = (Pieces(model, numbering, name) for name, model, numbering in _vocabularies(folder, found, described))
    own = found.get("decoder_vocab_size") is not None
    of_target = _size(where, found, "decoder_vocab_size", _SIZES["vocab_size"]) if own else sizes["vocab_size"]
    for vocabulary, size in ((source, sizes["vocab_size"]), (target, of_target)):
        if len(vocabulary.numbering.tokens) != size:
            raise UserError(f"{folder}: the vocabulary has {len(vocabulary.numbering.tokens):,} tokens, and config.json says {size:,}")
    tokenizer, model, decoding = Tokenizer(source, target), _model(found, sizes), _decoding(folder)
    if model.tie_embeddings == "all" and not tokenizer.joint:
        raise UserError(f"{where}: source and target share one table, and the tokenizer has a vocabulary for each")
    # So that no translation needs a position that the model has not.
    longest = int((model.max_positions - decoding.max_length_extra) / decoding.max_length_ratio)
    known = {} if source.numbering.languages else described  # or it has many
    languages = {f"{side}_language": str(known.get(f"{side}_lang") or "")[:20] for side in ("source", "target")}
    experiment = Experiment(
        data=Data(max_length=max(2, longest), **languages),  # type: ignore[arg-type]
        tokenizer=TokenizerSettings(kind="unigram", joint=tokenizer.joint, normalization="none"),
        model=model,
        decoding=decoding,
    )
    return Foreign(experiment, tokenizer, {"source": source.numbering, "target": target.numbering})


def _model(found: Mapping[str, Any], sizes: Mapping[str, int]) -> Transformer:
    """Return the settings of the model, which `_problems` has checked."""
    settings: dict[str, Any] = {
        "norm_order": KINDS[found["model_type"]],
        "activation": _activation(found),
        "tie_embeddings": _tied(found),
        "scale_embeddings": found.get("scale_embedding", found["model_type"] == "m2m_100"),
        "output_bias": found["model_type"] != "m2m_100",
        "positions": "fairseq" if found["model_type"] == "m2m_100" else "sinusoidal",
    }
    return Transformer(
        emb_dim=sizes["d_model"],
        num_heads=sizes["encoder_attention_heads"],
        mlp_dim=sizes["encoder_ffn_dim"],
        num_encoder_layers=sizes["encoder_layers"],
        num_decoder_layers=sizes["decoder_layers"],
        max_positions=sizes["max_position_embeddings"],
        dropout=_rate(found, "dropout", 0.1),
        attention_dropout=_rate(found, "attention_dropout", 0.0),
        activation_dropout=_rate(found, "activation_dropout", 0.0),
        **settings,
    )


def _size(where: Path, values: Mapping[str, Any], name: str, most: int) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 < value <= most:
        raise UserError(f"{where}: {name} is {str(value)[:50]}; it must be a whole number from 1 to {most:,}")
    return value


def _rate(values: Mapping[str, Any], name: str, default: float) -> float:
    value = values.get(name, default)
    return float(value) if isinstance(value, int | float) and 0 <= value < 1 else default  # which only training reads


def _problems(found: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[str]:
    for name in ("attention_heads", "ffn_dim"):
        if sizes[f"encoder_{name}"] != sizes[f"decoder_{name}"]:
            yield f"encoder_{name} and decoder_{name} differ, and ours are equal"
    if sizes["d_model"] % sizes["encoder_attention_heads"]:
        yield f"d_model {sizes['d_model']} is not divisible by encoder_attention_heads {sizes['encoder_attention_heads']}"
    if sizes["d_model"] % 2:
        yield f"d_model {sizes['d_model']} is odd"
    if not isinstance(found.get("scale_embedding", False), bool):
        yield f"scale_embedding is {str(found['scale_embedding'])[:50]}; it must be true or false"
    if not _activation(found):
        yield f"activation_function is {str(found.get('activation_function'))[:50]}; {', '.join(_THEIRS)} are read"
    if found["model_type"] != "marian" and _tied(found) != "all":
        yield "tie_word_embeddings is not true, and source, target and output share one table otherwise"
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        if type(found.get(name)) is not int or not 0 <= found[name] < sizes["vocab_size"]:
            yield f"{name} is {str(found.get(name))[:50]}; it must be the id of a token"
    if found["model_type"] == "m2m_100":
        wanted = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
        for name in (name for name, index in wanted.items() if found[name] != index):
            yield f"{name} is {found[name]}, and of M2M100 and NLLB it is {wanted[name]}"
    elif found["decoder_start_token_id"] != found["pad_token_id"]:
        yield f"decoder_start_token_id {found['decoder_start_token_id']} is not pad_token_id {found['pad_token_id']}"


_THEIRS = {**{theirs: ours for ours, theirs in ACTIVATIONS.items()}, "silu": "silu", "gelu_pytorch_tanh": "gelu"}


def _activation(found: Mapping[str, Any]) -> str:
    name = found.get("activation_function")
    return _THEIRS.get(name, "") if isinstance(name, str) else ""


def _tied(found: Mapping[str, Any]) -> str:
    if found.get("tie_word_embeddings", True) is not True:
        return "none"
    return "all" if found["model_type"] != "marian" or found.get("share_encoder_decoder_embeddings", True) is True else "decoder"


def _decoding(folder: Path) -> Decoding:
    """Return the search that generation_config.json names; its length penalty divides by length ** penalty."""
    path = folder / "generation_config.json"
    found = read_json(path) if path.exists() else {}
    beams, penalty = found.get("num_beams"), found.get("length_penalty")
    settings: dict[str, Any] = {"length_normalization": "average"}
    if type(beams) is int and 0 < beams <= 100:
        settings["beam_size"] = beams
    if isinstance(penalty, int | float) and 0 <= penalty <= 10:
        settings["length_penalty"] = float(penalty)
    return Decoding(**settings)


# ---- tokenizers


def _vocabularies(folder: Path, found: Mapping[str, Any], described: Mapping[str, Any]) -> list[tuple[str, bytes, Numbering]]:
    """Return file name, SentencePiece model and numbering of source and target."""
    if found["model_type"] == "m2m_100":
        return [_fairseq(folder, found["vocab_size"], described)] * 2
    ids = found["pad_token_id"], found["eos_token_id"]
    if (folder / "vocab.json").exists():
        source = _numbering(folder / "vocab.json", *ids, described)
        separate = described.get("separate_vocabs") is True
        target = _numbering(folder / "target_vocab.json", *ids, described) if separate else source
        special = [[side.tokens[index] for index in side[1:4]] for side in (source, target)]
        if special[0] != special[1]:
            raise UserError(
                f"{folder}: padding, end and unknown are the tokens {special[0]} in vocab.json and {special[1]} in target_vocab.json, and "
                "config.json has one id for both: use transformers itself for it"
            )
        names = folder / "source.spm", folder / "target.spm"
        return [(str(name), read_bytes(name, VOCABULARY_SIZE), numbering) for name, numbering in zip(names, (source, target), strict=True)]
    if (folder / "spiece.model").exists():
        name = folder / "spiece.model"
        return [(str(name), data := read_bytes(name, VOCABULARY_SIZE), _pegasus(name, data, found))] * 2
    raise UserError(f"{folder} has neither vocab.json with source.spm and target.spm, nor spiece.model: fetch the tokenizer's files too")


def _numbering(path: Path, pad: int, eos: int, described: Mapping[str, Any]) -> Numbering:
    """Return the numbering that a vocab.json has: {token: id}, each id once."""
    table = read_json(path, VOCABULARY_SIZE)
    tokens: list[str | None] = [None] * len(table)
    for token, index in table.items():
        if type(index) is not int or not 0 <= index < len(tokens) or tokens[index] is not None:
            raise UserError(f"{path}: the token {token[:50]!r} has the id {str(index)[:50]}; ids are 0 to {len(tokens) - 1:,}, each once")
        tokens[index] = token
    unknown = described.get("unk_token", "<unk>")
    unknown = unknown.get("content") if isinstance(unknown, dict) else unknown
    if not isinstance(unknown, str) or unknown not in table:
        raise UserError(f"{path} has no token {str(unknown)[:50]!r} for unknown pieces")
    return _checked(path, tokens, pad, eos, table[unknown])


def _checked(path: Path, tokens: list[Any], pad: int, eos: int, unk: int) -> Numbering:
    if len({pad, eos, unk}) < 3 or max(pad, eos, unk) >= len(tokens):
        raise UserError(
            f"{path}: padding, end and unknown have the ids {pad}, {eos} and {unk}, and must be three of its {len(tokens):,} tokens"
        )
    return Numbering(tuple(tokens), pad, eos, unk)


def _pegasus(path: Path, model: bytes, found: Mapping[str, Any]) -> Numbering:
    """Return the numbering of Pegasus: padding, end, masks, and then the pieces after padding and end, of which the first is unknown."""
    processor = _processor(path, model)
    masks = ["<mask_1>", "<mask_2>", *(f"<unk_{index}>" for index in range(2, _PEGASUS_OFFSET))]
    tokens = ["<pad>", "</s>", *masks, *map(processor.id_to_piece, range(2, processor.vocab_size()))]
    unk = processor.unk_id() + _PEGASUS_OFFSET
    if (found["pad_token_id"], found["eos_token_id"]) != (0, 1) or processor.unk_id() < 2:
        raise UserError(f"{path} does not number its tokens as Pegasus does: padding 0, end 1, unknown {2 + _PEGASUS_OFFSET}")
    return _checked(path, tokens, 0, 1, unk)


def _fairseq(folder: Path, size: int, described: Mapping[str, Any]) -> tuple[str, bytes, Numbering]:
    """Return the vocabulary of M2M100 or NLLB: special tokens, pieces, language tokens, and rows of the table that are no tokens.

    M2M100 numbers its pieces by vocab.json, NLLB in the order of its SentencePiece model.
    """
    path, table = folder / "sentencepiece.bpe.model", folder / "vocab.json"
    model = read_bytes(path, VOCABULARY_SIZE)
    processor = _processor(path, model)
    if table.exists():
        tokens = [str(token) for token in _numbering(table, 1, 2, described).tokens]
        if tuple(tokens[:4]) != _FAIRSEQ_TOKENS:
            raise UserError(f"{table} begins with {tokens[:4]}, and of M2M100 it begins with {', '.join(_FAIRSEQ_TOKENS)}")
    elif (found := (processor.unk_id(), processor.bos_id(), processor.eos_id())) != (0, 1, 2):
        raise UserError(f"{path} has unknown, begin and end at {found}, and NLLB's has them at (0, 1, 2): fetch M2M100's vocab.json too")
    else:
        tokens = [*_FAIRSEQ_TOKENS, *map(processor.id_to_piece, range(3, processor.vocab_size()))]
    languages = _languages(folder, described)
    known = set(tokens)
    tokens += [language for language in languages if language not in known]
    _check_added(folder, described, tokens)
    if not 0 <= size - len(tokens) <= _MOST_UNUSED:
        raise UserError(f"{folder}: the vocabulary has {len(tokens):,} tokens with its languages, and config.json says {size:,}")
    tokens += [f"<unused_{index}>" for index in range(len(tokens), size)]
    return str(path), model, Numbering(tuple(tokens), 1, 2, 3, 0, tuple(languages))


def _languages(folder: Path, described: Mapping[str, Any]) -> list[str]:
    """Return the language tokens in the order of their ids, as tokenizer_config.json or special_tokens_map.json lists them."""
    path = folder / "special_tokens_map.json"
    for each in (described, read_json(path) if path.exists() else {}):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            listed = each.get(name)
            texts: list[Any] = [x.get("content") if isinstance(x, dict) else x for x in listed] if isinstance(listed, list) else []
            found = [text for text in texts if text not in (*_FAIRSEQ_TOKENS, "<mask>")]
            if any(not isinstance(text, str) or len(text.split()) != 1 for text in found) or len(set(found)) < len(found):
                raise UserError(f"{folder}: {name} does not list language tokens, each a word and once")
            if found:
                return found
    raise UserError(f"{folder} does not list its language tokens: fetch special_tokens_map.json, which has them, too")


def _check_added(folder: Path, described: Mapping[str, Any], tokens: list[str]) -> None:
    """Check that the tokens that tokenizer_config.json adds, if it does, have the ids that it says."""
    added, places = described.get("added_tokens_decoder"), {token: str(index) for index, token in enumerate(tokens)}
    for index, token in added.items() if isinstance(added, dict) else ():
        text = token.get("content") if isinstance(token, dict) else None
        if isinstance(text, str) and places.get(text, index) != index:
            where = f"{folder / 'tokenizer_config.json'}: {text[:50]} has the id {index[:20]}"
            raise UserError(f"{where}, and in the order of vocabulary and languages it has {places[text]}")


def _processor(path: Path, model: bytes) -> Any:
    """Return a SentencePiece model."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError:
        raise UserError(f"{path} is not a SentencePiece model, or is damaged: fetch it again") from None
    return processor
