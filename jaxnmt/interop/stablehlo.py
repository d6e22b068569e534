"""Greedy and beam search as StableHLO programs (`jax.export`), with the parameters in one file: JAX and NumPy alone run it.

Batch and source length are symbolic dimensions, so that one program serves all; JAX compiles it for each shape that it is called with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fractions
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnmt import config as cfg
from jaxnmt.config import model_code
from jaxnmt.errors import UserError, first_line
from jaxnmt.interop.check import BEAMS
from jaxnmt.interop.formats import save_tokenizer
from jaxnmt.interop.loaders import LoadedExport, save_programs
from jaxnmt.io import files
from jaxnmt.parallel import compiler

if TYPE_CHECKING:
    from jaxnmt.run import Run

NEEDS = ""
PLATFORMS = ("cpu", "cuda", "tpu")
MODEL = "model.npz"
TASKS = (cfg.Translation, cfg.Denoising)
SEARCH: dict[str, Any] = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "epsilon": 0.0, "seed": 0, "mbr": "none", "shortlist": 0}
"""What the programs leave out: draws, and what depends on other sentences or on files."""


def refusal(run: Run) -> str | None:
    """Return why the programs cannot hold a run, and which format can; None if they can."""
    task = run.config.task
    if type(task) not in TASKS:
        return f"its programs read tokens and search for a text, and it was trained for the task {type(task).__name__}: use safetensors"
    if run.weights != "trained":
        return f"its programs compute in float32: leave out --weights {run.weights}"
    if run.config.decoding.unk == "replace":
        return "its programs return tokens, and decoding.unk replace writes source words: change config.json, or use safetensors"
    if run.tokenizer.imported:
        return (
            "its loader reads text with SentencePiece's own ids, and the run's tokenizer, which came in from other software, has others: "
            "use ctranslate2 or safetensors"
        )
    if (most := _longest(run)) and _target_length(most, settings(run)) > (limit := _positions()):
        return f"its programs have {limit:,} positions, and translations of data.max_length {most:,} tokens may need more: use safetensors"
    return None


def settings(run: Run) -> cfg.Decoding:
    """Return how the programs search: as the run, with one translation of each sentence, and nothing drawn."""
    return run.decoding(SEARCH | {"n_best": 1})


def _positions() -> int:
    return 2048  # `models.layers.SYMBOLIC_POSITIONS`, which imports flax


def _longest(run: Run) -> int:
    """Return the largest padded source length."""
    from jaxnmt.decoding.batches import bucket

    return bucket(run.config.data.max_length)


def _target_length(source_length: Any, decoding: cfg.Decoding) -> Any:
    """Return positions for the longest translation of this many source tokens, a number or a symbolic dimension."""
    ratio = fractions.Fraction(decoding.max_length_ratio).limit_denominator(1000)
    return (ratio.numerator * source_length) // ratio.denominator + decoding.max_length_extra + 2  # at least `output_limit`


def write(run: Run, folder: Path) -> None:
    """Write model.npz, which has the programs and the parameters and no Python objects; the programs that read it; and the tokenizer.

    Raises:
        UserError: JAX has an accelerator, for which other layers are traced; or a user's own model needs sizes that are numbers.
    """
    start_on_cpu()
    import jax

    from jaxnmt.parallel.axes import path_name

    params = {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(run.params)}
    arrays = {f"program/{beam_size}": np.frombuffer(program(run, beam_size), np.uint8) for beam_size in BEAMS}
    with files.open_atomic(folder / MODEL) as file:
        np.savez(file, longest=np.int32(_longest(run)), **arrays, **{f"params/{name}": x for name, x in params.items()})
    save_programs(folder, "stablehlo_loader.py")
    save_tokenizer(run, folder)


def start_on_cpu() -> None:
    """Start JAX.

    Raises:
        UserError: it has an accelerator.
    """
    compiler.check()  # first, because it starts JAX with the right flags
    import jax

    if jax.default_backend() != "cpu":
        raise UserError("programs for every platform are written on a CPU: set the environment variable JAX_PLATFORMS=cpu")


def program(run: Run, beam_size: int) -> bytes:
    """Return a search as a serialised program of (parameters by path, source tokens int32 (B, S), each ended by EOS and padded with PAD).

    It returns the best translation of each sentence, int32 (B, T), ended by EOS and padded with PAD, and its score, float32 (B,).
    """
    import jax
    import jax.export
    import jax.numpy as jnp

    from jaxnmt.parallel.axes import path_name

    leaves, tree = jax.tree_util.tree_flatten_with_path(run.params)
    shapes = {path_name(path): jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in leaves}
    search = searching(run, beam_size)

    def translate(params: dict[str, jax.Array], tokens_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = search(tree.unflatten([params[path_name(path)] for path, _ in leaves]), tokens_BS)
        return found.tokens_BWT[:, 0], found.scores_BW[:, 0]

    dimensions = jax.export.symbolic_shape("b, s", constraints=[f"s <= {_longest(run)}"])
    tokens = jax.ShapeDtypeStruct(dimensions, jnp.int32)
    with tracing(run):
        return bytes(jax.export.export(jax.jit(translate), platforms=PLATFORMS)(shapes, tokens).serialize())


@contextlib.contextmanager
def tracing(run: Run) -> Iterator[None]:
    """Trace a model with symbolic sizes.

    Raises:
        UserError: a user's own model needs sizes that are numbers.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not model_code.executed(run.config):
            raise
        raise UserError(
            f"the model's own code cannot be traced for any number of sentences and tokens ({first_line(error)}): "
            "use x.shape[0] instead of len(x), and do not compare sizes with numbers; or use safetensors"
        ) from error


def searching(run: Run, beam_size: int) -> Callable[[Any, Any], Any]:
    """Return a function of the parameters and of source tokens (B, S), both of which may have symbolic sizes, that searches."""
    import jax.numpy as jnp

    from jaxnmt.data.special_tokens import PAD
    from jaxnmt.decoding.batches import output_limit
    from jaxnmt.decoding.options import search_options
    from jaxnmt.decoding.search import search

    decoding, model = dataclasses.replace(settings(run), beam_size=beam_size), run.model
    limits: np.ndarray = np.array([output_limit(length, decoding) for length in range(_longest(run))], np.int32)

    def find(params: Any, tokens_BS: Any) -> Any:
        options = search_options(decoding, 1)
        options = dataclasses.replace(options, max_length=_target_length(tokens_BS.shape[1], decoding))
        limits_B = jnp.asarray(limits)[(tokens_BS != PAD).sum(1) - 1]  # of the tokens without EOS
        return search(model, options, params, {"encoder_input_tokens": tokens_BS}, limits_B)

    return find


def runtime(run: Run, folder: Path) -> LoadedExport:
    """Open a folder with its own loader."""
    import jax

    return LoadedExport(run, folder, f"jax {jax.__version__}", SEARCH, is_float32=False)


def usage(run: Run) -> str:
    """Return how the folder is used, and how long JAX reads it."""
    import jax

    return f"""```
pip install jax sentencepiece
python translate.py < lines.txt          # a beam of 5; `python translate.py 1` is greedy and faster
```

`loader.py` reads `model.npz` with JAX and NumPy alone. From Python, its `load(5)` returns a function of lists of token ids.
The programs run on CPUs, CUDA GPUs and TPUs, for any number of sentences of up to {_longest(run) - 1} tokens. JAX compiles them for each
shape of a batch. They were written by jax {jax.__version__}. `jax.export` promises that a JAX of up to six months later reads them, and one
of up to three weeks earlier; export the run again for others."""
