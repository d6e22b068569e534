"""ONNX: the encoder and the decoder's step as models, and a loader that searches with NumPy and onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnmt.errors import UserError
from jaxnmt.interop import stablehlo
from jaxnmt.interop.check import in_float32
from jaxnmt.interop.formats import plain_search, save_tokenizer
from jaxnmt.interop.loaders import LoadedExport, save_programs
from jaxnmt.io import files

if TYPE_CHECKING:
    from jaxnmt.run import Run

NEEDS = "pip install 'jaxnmt[onnx]'"
SEARCH = "search.json"
KEPT = ("length_normalization", "length_penalty", "patience", "min_length")
"""Settings of a run's search that the loader has. Limits too: `formats.plain_search` leaves them alone."""


def refusal(run: Run) -> str | None:
    """Return why the models cannot hold a run, and which format can; None if they can."""
    return stablehlo.refusal(run)


def write(run: Run, folder: Path) -> None:
    """Write encoder.onnx, step.onnx and their weights in float32; search.json and the programs that search; and the tokenizer.

    Raises:
        UserError: the library onnx is not installed; JAX has an accelerator, for which other layers are traced; an operation of the model
            has no rule; or a user's own model needs sizes that are numbers.
    """
    try:
        from jaxnmt.interop import onnx_models
    except ImportError as error:
        raise UserError(f"--to onnx needs the library onnx ({error}): {NEEDS}") from error
    stablehlo.start_on_cpu()
    run = in_float32(run)
    with stablehlo.tracing(run):
        onnx_models.write(run.model, run.params, folder)
    files.write(folder / SEARCH, json.dumps(settings(run), indent=2) + "\n")
    save_programs(folder, "onnx_loader.py")
    save_tokenizer(run, folder)


def settings(run: Run) -> dict[str, Any]:
    """Return what search.json says: settings of the run's search, and the largest number of source tokens, EOS included."""
    decoding = run.config.decoding
    names = "beam_size", *KEPT, "max_length_ratio", "max_length_extra"
    return {name: getattr(decoding, name) for name in names} | {"longest": run.config.data.max_length}


def runtime(run: Run, folder: Path) -> LoadedExport | None:
    """Open a folder with its own loader, if onnxruntime is installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    decoding = plain_search(**{name: getattr(run.config.decoding, name) for name in KEPT})
    return LoadedExport(run, folder, f"onnxruntime {onnxruntime.__version__}", decoding, is_float32=True)


def usage(run: Run) -> str:
    """Return how the folder is used, and which settings of the run's search it leaves out."""
    decoding, others = run.config.decoding, {name: value for name, value in plain_search().items() if name not in (*KEPT, "batch_tokens")}
    left_out = [f"{name} {getattr(decoding, name)}" for name, default in others.items() if getattr(decoding, name) != default]
    search = f"It leaves out settings of the run: {', '.join(left_out)}." if left_out else "It searches as the run does."
    return f"""```
pip install onnxruntime numpy sentencepiece
python translate.py < lines.txt          # the run's beam; `python translate.py 1` is greedy and faster
```

They need no other package. From Python, `load(beam_size)` of loader.py returns a function of lists of token ids. {search}

- `encoder.onnx` reads `tokens`, int32 (batch, source): each row a sentence, ended by 2 and padded with 0. It returns `memory/...`, what the
  decoder reads of the source, and `carry/...`, its state before the first token.
- `step.onnx` reads `token`, int32 (batch, beams), 1 at first, the memory, and the state of each hypothesis (batch, beams, ...). It returns
  `logits` (batch, beams, vocabulary) and the new state, `next/...`. Axes named `length` hold earlier tokens: pad them before they are full.
- `weights.bin` has the numbers of both, in float32; keep it beside them."""
