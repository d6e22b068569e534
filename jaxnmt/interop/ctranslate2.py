"""CTranslate2's model folder: model.bin, config.json, vocabularies, and our tokenizer. Only the check needs CTranslate2 itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.data.special_tokens import BOS, EOS, UNK
from jaxnmt.interop import ctranslate2_binary, stablehlo
from jaxnmt.interop import ctranslate2_layout as layout
from jaxnmt.interop.formats import Source, plain_search, save_tokenizer
from jaxnmt.io import files

if TYPE_CHECKING:
    from jaxnmt.data.tokenizer import Tokenizer
    from jaxnmt.run import Run

Params = Mapping[str, Mapping[str, np.ndarray]]

NEEDS = "pip install 'jaxnmt[ctranslate2]'"
SEARCH: dict[str, Any] = {"length_normalization": "average", "patience": 1.0, "min_length": 1}
"""How CTranslate2 searches, in fields of `config.Decoding`: its own length normalization and patience, and no empty translation."""
MODEL, CONFIG = "model.bin", "config.json"


def refusal(run: Run) -> str | None:
    """Return why CTranslate2 cannot hold a run, and which format can; None if it can."""
    model, task = run.config.model, run.config.task
    if task.head or task.vectors:
        return f"CTranslate2 translates text, and it was trained for the task {type(task).__name__}: use safetensors"
    if type(model) is not cfg.Transformer:
        others = "stablehlo or safetensors" if type(task) in stablehlo.TASKS else "safetensors"
        return f"CTranslate2 has Transformers only, and its model is a {type(model).__name__}: use {others}"
    if not model.causal:
        return "CTranslate2's decoder sees no later words, and its model does (model.causal False): use safetensors"
    if run.weights == "bfloat16":
        return "it is written in float32 or int8: leave out --weights bfloat16"
    for side in ("source", "target"):
        pieces = pieces_of(run.tokenizer, side)
        if len(set(pieces)) < len(pieces):
            twice = next(piece for piece in pieces if pieces.count(piece) > 1)
            others = "safetensors" if run.tokenizer.imported else "stablehlo or safetensors"
            return f"CTranslate2 knows tokens by their text, and the {side} vocabulary has {twice!r} twice: use {others}"
    return None


def pieces_of(tokenizer: Tokenizer, side: str) -> list[str]:
    """Return the tokens of a vocabulary, in the order of their ids."""
    if side == "source":
        return tokenizer.source_pieces(range(tokenizer.source_vocab_size))
    return tokenizer.target_pieces(range(tokenizer.target_vocab_size))


def write(run: Run, folder: Path) -> None:
    """Write model.bin, config.json, the vocabularies as JSON, and the tokenizer. Weights are int8 if the run's are."""
    assert isinstance(run.config.model, cfg.Transformer)  # or it was refused
    found = variables(run.config.model, _float32(run.params), run.tokenizer, run.weights == "int8", _longest(run))
    ctranslate2_binary.write(folder / MODEL, *found)
    for name, content in {CONFIG: settings(run.tokenizer), **vocabularies(run.tokenizer)}.items():
        files.write(folder / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    save_tokenizer(run, folder)


def settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what config.json says. CTranslate2 adds the end token to a source, and begins a translation with the begin token."""
    target = pieces_of(tokenizer, "target")
    return {
        **{"add_source_bos": False, "add_source_eos": True, "multi_query_attention": False, "layer_norm_epsilon": layout.NORM_EPSILON},
        **{"bos_token": target[BOS], "decoder_start_token": target[BOS], "eos_token": target[EOS], "unk_token": target[UNK]},
    }


def vocabularies(tokenizer: Tokenizer) -> dict[str, list[str]]:
    """Return the tokens that each vocabulary file has, by its name."""
    source, target = (pieces_of(tokenizer, side) for side in ("source", "target"))
    both = {"shared": source} if source == target else {"source": source, "target": target}
    return {f"{side}_vocabulary.json": pieces for side, pieces in both.items()}


def variables(model: cfg.Transformer, params: Params, tokenizer: Tokenizer, is_int8: bool, longest: int) -> ctranslate2_binary.Variables:
    """Return everything that model.bin has.

    Args:
        model: the architecture.
        params: the parameters of each module by its path, float32.
        tokenizer: has the sizes of the vocabularies: tables have further rows.
        is_int8: whether weights are written in int8.
        longest: the number of positions that sentences and translations have at most.
    """
    arrays, aliases = layout.architecture(model), dict[str, str]()
    known: dict[str, str] = {}
    sizes = {"encoder/embeddings_0": tokenizer.source_vocab_size}

    def put(scope: str, ours: str, found: Mapping[str, np.ndarray]) -> None:
        first = known.setdefault(ours, scope)  # scopes come in alphabetical order: CTranslate2 knows the first, and the others by it
        for name, array in found.items():
            if first == scope:
                arrays[f"{scope}/{name}"] = array
            else:
                aliases[f"{scope}/{name}"] = f"{first}/{name}"

    for ours, theirs, kind in sorted(layout.pairs(model), key=lambda pair: pair.theirs):
        found = layout.to_theirs(kind, params[ours], sizes.get(theirs, tokenizer.target_vocab_size))
        if is_int8 and "weight" in found:
            found = found | dict(zip(("weight", "weight_scale"), layout.quantised(found["weight"]), strict=True))
        put(theirs, ours, found)
    for side in ("decoder", "encoder") if model.positions != "rotary" else ():
        learned = f"{side}_positions" if model.positions == "learned" else ""
        table = params[learned]["table"] if learned else None
        put(f"{side}/position_encodings", learned, {"encodings": layout.positions(model, table, longest)})
    own = params[""]["output_bias"] if model.output_bias else None
    arrays["decoder/projection/bias"] = layout.output_bias(tokenizer.target_vocab_size, own)
    return ctranslate2_binary.Variables(arrays, aliases)


def _longest(run: Run) -> int:
    """Return the number of positions that a run's sentences and translations have at most."""
    from jaxnmt.decoding.batches import output_limit

    return max(run.config.data.max_length, output_limit(run.config.data.max_length, cfg.Decoding()))


def _float32(params: Any) -> Params:
    """Return the parameters of each module by its path; int8 weights as the numbers that they stand for."""
    import jax

    from jaxnmt.models.int8 import as_float32
    from jaxnmt.parallel.axes import path_name

    found: dict[str, dict[str, np.ndarray]] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(as_float32(params)):
        module, _, name = path_name(path).rpartition("/")
        found.setdefault(module, {})[name] = np.asarray(x, np.float32)
    return found


class CTranslate2:
    """A model folder in CTranslate2, as `formats.Runtime`."""

    least = 0.99

    def __init__(self, folder: Path, is_int8: bool):
        """Open a model folder. It uses the cores that this process may use.

        Args:
            folder: the folder, with weights in float32 or int8.
            is_int8: whether products are computed in int8 too, of rounded activations; else in float32.
        """
        import ctranslate2

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        kind = "int8" if is_int8 else "float32"
        self.name = f"CTranslate2 {ctranslate2.__version__}"
        self.decoding, self.is_float32 = plain_search(**SEARCH), True
        self._translator = ctranslate2.Translator(str(folder), compute_type=kind, inter_threads=1, intra_threads=cores)

    def translate(self, sources: Sequence[Source], beam_size: int) -> list[list[str]]:
        """Return the tokens of each best translation."""
        return [hypotheses[0] for hypotheses, _ in self.search([(source.pieces, source.limit) for source in sources], beam_size=beam_size)]

    def search(self, sources: Sequence[tuple[Sequence[str], int]], **options: Any) -> list[tuple[list[list[str]], list[float]]]:
        """Return the hypotheses of each sentence, best first, and their scores.

        Args:
            sources: the tokens of each sentence, and the largest number of tokens of its translation, the end token included.
            options: of `ctranslate2.Translator.translate_batch`.
        """
        of_limit: dict[int, list[int]] = {}  # a call has one limit, and a sentence's must not depend on its batch
        for number, (_, limit) in enumerate(sources):
            of_limit.setdefault(max(1, limit - 1), []).append(number)
        found: list[Any] = [None] * len(sources)
        for limit, numbers in sorted(of_limit.items()):
            begun = self._translator.translate_batch(
                [sources[number][0] for number in numbers],
                **{"max_batch_size": 64} | options,
                max_decoding_length=limit,
                max_input_length=0,
                return_scores=True,
                asynchronous=True,
            )
            for number, result in zip(numbers, begun, strict=True):
                found[number] = result
        results = [each.result() for each in found]
        return [(each.hypotheses, each.scores) for each in results]


def runtime(run: Run, folder: Path) -> CTranslate2 | None:
    """Open a model folder with CTranslate2, computing in float32 with weights of any type.

    Products in int8 cannot be compared: another order of additions rounds some activations differently, and the differences spread.
    """
    try:
        return CTranslate2(folder, is_int8=False)
    except ImportError:
        return None


def usage(run: Run) -> str:
    """Return how the folder is used."""
    if run.tokenizer.subwords:
        models = "".join(f'{side} = sentencepiece.SentencePieceProcessor(model_file="{side}.spm")\n' for side in ("source", "target"))
        setup = f"import sentencepiece\n\n{models}"
        pieces, text = "source.encode(line.strip(), out_type=str)", "target.decode(found.hypotheses[0])"
    else:
        setup, pieces, text = "\n", "line.split()", '" ".join(found.hypotheses[0])'
    return f"""```python
import ctranslate2  # pip install ctranslate2 sentencepiece
{setup}translator = ctranslate2.Translator(".")
for line in open("lines.txt", encoding="utf-8"):
    [found] = translator.translate_batch([{pieces}], beam_size=5)
    print({text})
```

CTranslate2 adds the end token. jaxnmt searches as it does with `--length-normalization average --patience 1 --min-length 1`."""
