"""What the formats `marian` and `pegasus` have in common: the files of Hugging Face's transformers, and that software as their runtime."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.config.files import write_json
from jaxnmt.data import identity
from jaxnmt.data.special_tokens import BOS
from jaxnmt.interop import huggingface as layout
from jaxnmt.interop.formats import Source, plain_search
from jaxnmt.interop.tensors import library, save

if TYPE_CHECKING:
    from jaxnmt.data.pieces import Numbering
    from jaxnmt.run import Run

NEEDS = "pip install transformers sentencepiece torch"
OTHERWISE = "--to safetensors holds every model"
BATCH = 64
"""Sentences that the runtime translates together."""


def model_of(run: Run) -> cfg.Transformer:
    """Return the settings of a run's model, which `problems` has found to be a Transformer."""
    assert isinstance(run.config.model, cfg.Transformer)
    return run.config.model


def problems(run: Run) -> Iterator[str]:
    """Yield what neither format can hold."""
    library()
    model, task = run.config.model, run.config.task
    if type(task) is not cfg.Translation:
        yield f"it translates, and the task is {type(task).__name__}: {OTHERWISE}"
    if type(model) is not cfg.Transformer:
        yield f"it is a Transformer, and the model is a {type(model).__name__}: {OTHERWISE}"
    model = model_of(run)
    needed: dict[str, tuple[str, ...]] = {
        "norm": ("layernorm",),
        "positions": ("sinusoidal",),
        "activation": tuple(layout.ACTIVATIONS),
    }
    for field, values in needed.items():
        if (value := getattr(model, field)) not in values:
            yield f"model.{field} must be {' or '.join(values)}, and it is {value}: {OTHERWISE}"
    if model.head_dim and model.head_dim * model.num_heads != model.emb_dim:
        yield f"all heads together are as wide as model.emb_dim {model.emb_dim}, and model.head_dim is {model.head_dim}: {OTHERWISE}"
    if not model.causal:
        yield f"model.causal must be True: {OTHERWISE}"
    if not run.tokenizer.subwords:
        yield f"its tokenizer is a SentencePiece model, and the run's text is split into words: {OTHERWISE}"
    else:
        source, target = (numbering for _, numbering in run.tokenizer.subwords.values())
        if source[1:4] != target[1:4]:
            sizes = f"{len(source.tokens):,} and {len(target.tokens):,}"
            ids = f"{source[1:4]} and {target[1:4]}"
            yield f"it has one id each for padding, end and unknown, and in vocabularies of {sizes} tokens they are {ids}: {OTHERWISE}"
        if target.begin != target.pad:
            yield f"its decoder begins with padding, and one with the run's vocabulary begins with the end token: {OTHERWISE}"
    if run.weights != "trained":
        yield f"it holds weights as they were trained: leave out --weights {run.weights}"
    if type(run.config.decoding) is not cfg.Decoding:
        yield "its search is transformers' own, and the run has a Decoding class of its own: set decoding to jaxnmt's"


def write(run: Run, folder: Path, kind: str) -> None:
    """Write a folder that `AutoModelForSeq2SeqLM` and `AutoTokenizer` open.

    Args:
        run: the run.
        folder: an empty folder.
        kind: "marian" or "pegasus".
    """
    import jax

    from jaxnmt.parallel.axes import path_name

    model, subwords = model_of(run), run.tokenizer.subwords
    numberings = {side: numbering for side, (_, numbering) in subwords.items()}
    sizes = (len(numberings[side].tokens) for side in ("source", "target"))
    params = {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(run.params)}
    if "output_bias" in params and not run.tokenizer.imported:  # an imported model keeps its own
        params["output_bias"] = params["output_bias"].copy()
        params["output_bias"][BOS] = layout.NO_TOKEN  # our search leaves padding out, whose bias is that of BOS
    found = {tensor.name: layout.theirs(tensor, params, numberings) for tensor in layout.tensors(model, *sizes)}
    if kind == "pegasus":  # which reads them from the file; Marian computes them
        found |= dict.fromkeys(
            (f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")), layout.positions(positions(run), model.emb_dim)
        )
    save(folder / "model.safetensors", found, {"format": "pt"})
    write_json(layout.settings(model, kind, numberings, positions(run)), folder / "config.json")
    write_json(_generation(run, numberings["target"]), folder / "generation_config.json")
    _write_tokenizer(run, folder, {side: spm for side, (spm, _) in subwords.items()}, numberings)


def positions(run: Run) -> int:
    """Return how many positions source and translation may have."""
    from jaxnmt.decoding.batches import output_limit

    longest = run.config.data.max_length
    return max(model_of(run).max_positions, longest, output_limit(longest, run.config.decoding))


def _generation(run: Run, target: Numbering) -> dict[str, Any]:
    """Return generation_config.json: the run's search, as far as transformers has it. It divides by length ** length_penalty."""
    decoding = run.config.decoding
    return {
        "num_beams": decoding.beam_size,
        "length_penalty": _length_penalty(run),
        "early_stopping": "never",
        "max_length": positions(run),
        "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
        "bad_words_ids": [[target.pad]],
        **{name: value for name, value in layout.special_ids(target).items() if value is not None},
    }


def _length_penalty(run: Run) -> float:
    """Return the exponent of the length by which transformers divides a log-probability."""
    decoding = run.config.decoding
    return 0.0 if decoding.length_normalization == "reward" else decoding.length_penalty


def _write_tokenizer(run: Run, folder: Path, models: Mapping[str, bytes], numberings: Mapping[str, Numbering]) -> None:
    """Write the files of a MarianTokenizer, which numbers the pieces of SentencePiece models by a table."""
    source, target = numberings["source"], numberings["target"]
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(models[side])
    names = {"source": "vocab.json"} if run.tokenizer.joint else {"source": "vocab.json", "target": "target_vocab.json"}
    for side, name in names.items():
        write_json({token: index for index, token in enumerate(numberings[side].tokens)}, folder / name)
    languages = identity.languages(run.folder, run.config.data)
    special = {f"{name}_token": target.tokens[index] for name, index in (("pad", target.pad), ("eos", target.eos), ("unk", target.unk))}
    described = {
        "tokenizer_class": "MarianTokenizer",
        "separate_vocabs": not run.tokenizer.joint,
        "model_max_length": run.config.data.max_length,
        **special,
        **{name: code for name, code in zip(("source_lang", "target_lang"), languages, strict=True) if code},
    }
    assert {source.tokens[index] for index in (source.pad, source.eos, source.unk)} == set(special.values())
    write_json(described, folder / "tokenizer_config.json")


def usage(run: Run) -> str:
    """Return how transformers translates with the files."""
    return """```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer, model = (kind.from_pretrained(".") for kind in (AutoTokenizer, AutoModelForSeq2SeqLM))
batch = tokenizer(["A sentence."], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```"""


def runtime(run: Run, folder: Path) -> TransformersRuntime | None:
    """Open a folder by transformers; None if it, torch or sentencepiece is not installed."""
    if not all(map(importlib.util.find_spec, ("transformers", "torch"))):
        return None
    return TransformersRuntime(run, folder)


@contextlib.contextmanager
def _without_progress_bars(transformers: Any) -> Iterator[None]:
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


class TransformersRuntime:
    """Translates by the generate method of transformers. It reads text, so that the tokenizer's files are checked too.

    Attributes:
        name, decoding, least, is_float32: see `formats.Runtime`.
    """

    name: str
    decoding: Mapping[str, Any]
    least, is_float32 = 0.99, True

    def __init__(self, run: Run, folder: Path):
        """Open a folder."""
        import transformers

        self.name = f"transformers {transformers.__version__}"
        self.decoding = plain_search(length_normalization="average", length_penalty=_length_penalty(run))
        with _without_progress_bars(transformers):
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True)

    def translate(self, sources: Sequence[Source], beam_size: int) -> list[list[str]]:
        """Return the target tokens of each translation, without the end token."""
        found: dict[int, list[str]] = {}
        order = sorted(range(len(sources)), key=lambda index: sources[index].limit)
        for limit, same in itertools.groupby(order, key=lambda index: sources[index].limit):
            for group in iter(lambda: list(itertools.islice(same, BATCH)), []):  # noqa: B023  used at once
                found |= zip(group, self._translate([sources[index].text for index in group], beam_size, limit), strict=True)
        return [found[index] for index in range(len(sources))]

    def _translate(self, texts: Sequence[str], beam_size: int, limit: int) -> list[list[str]]:
        import torch

        batch, tokenizer = self._tokenizer(list(texts), return_tensors="pt", padding=True), self._tokenizer

        def as_ours(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            """Take padding out of the softmax, and at the limit leave the end token alone, as our search does.

            transformers itself forbids padding after the softmax, and forced_eos_token_id gives the end token the probability 1.
            """
            scores[:, tokenizer.pad_token_id] = -torch.inf
            scores = scores.log_softmax(-1)
            if ids.shape[1] == limit:
                at_end = scores[:, tokenizer.eos_token_id].clone()
                scores[:] = -torch.inf
                scores[:, tokenizer.eos_token_id] = at_end
            return scores

        options: dict[str, Any] = {"num_beams": beam_size, "max_new_tokens": limit, "max_length": None, "no_repeat_ngram_size": 0}
        options |= {"forced_eos_token_id": None, "logits_processor": [as_ours]}
        if beam_size == 1:
            options |= {"early_stopping": False, "length_penalty": 1.0}
        with torch.inference_mode():
            made = self._model.generate(**batch, **options)
        return [self._pieces(ids.tolist()[1:]) for ids in made]

    def _pieces(self, ids: list[int]) -> list[str]:
        end = ids.index(self._tokenizer.eos_token_id) if self._tokenizer.eos_token_id in ids else len(ids)
        return list(self._tokenizer.convert_ids_to_tokens(ids[:end]))
