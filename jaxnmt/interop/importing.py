"""Make a run of a model that other software has trained: `jaxnmt import`."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnmt.config import Experiment, Transformer, checks
from jaxnmt.config.files import save_config
from jaxnmt.errors import UserError
from jaxnmt.interop import ctranslate2_import, huggingface_files
from jaxnmt.interop import huggingface as layout
from jaxnmt.interop.folders import check_new, new_folder
from jaxnmt.interop.tensors import INDEX, WEIGHTS, Tensors, opened
from jaxnmt.parallel import compiler
from jaxnmt.parallel.log import say
from jaxnmt.run import Run
from jaxnmt.runs import directory

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.npz", "*.h5", "*.msgpack")


def import_model(folder: str | pathlib.Path, run: str | pathlib.Path) -> Run:
    """Make a run of a folder of Hugging Face's transformers (Marian, Pegasus, M2M100, NLLB) or of CTranslate2. Nothing of it is executed.

    Args:
        folder: has config.json, model.safetensors or the files of its index, and the tokenizer's files: vocab.json, source.spm and
            target.spm, or spiece.model, or sentencepiece.bpe.model with a list of language tokens; or what `export_model` writes for
            CTranslate2.
        run: the run's folder, which is made.

    Returns:
        The run. It translates and evaluates, and training begins with it by `init.from`.

    Raises:
        UserError: a file is missing, damaged, of another format or of another model than those; or the run's folder exists or cannot be
            written. Nothing is left behind.
    """
    folder, place = pathlib.Path(folder).expanduser(), directory.folder(run)
    check_new(place)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the one that has config.json and {WEIGHTS}")
    experiment, tokenizer, params = ctranslate2_import.read(folder) if ctranslate2_import.is_folder(folder) else _transformers(folder)
    with new_folder(place) as temporary:
        save_config(experiment, temporary / directory.CONFIG)
        tokenizer.save(temporary / "tokenizer")
        _write_checkpoint(temporary, experiment, params)
    say(f"{place} is a run of {sum(x.size for x in params.values()):,} parameters from {folder}")
    return Run(place)


def _transformers(folder: pathlib.Path) -> ctranslate2_import.Imported:
    """Read a folder of Hugging Face's transformers."""
    _check_weights(folder)
    foreign = huggingface_files.read(folder)
    checks.validate(foreign.experiment)
    return ctranslate2_import.Imported(foreign.experiment, foreign.tokenizer, _parameters(folder, foreign))


def _check_weights(folder: pathlib.Path) -> None:
    """Refuse a folder whose numbers are not in safetensors files, and say how they are converted."""
    if (folder / WEIGHTS).exists() or (folder / INDEX).exists():
        return
    others = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if not others:
        raise UserError(f"{folder} has no {WEIGHTS}")
    raise UserError(
        f"{folder} has no {WEIGHTS}: {others[0]} is not safetensors, and reading such a file may execute code. If you trust it, convert it "
        f"by transformers: python -c 'from transformers import *; "
        f'AutoModelForSeq2SeqLM.from_pretrained({str(folder)!r}).save_pretrained("NEW")\''
    )


def _parameters(folder: pathlib.Path, foreign: huggingface_files.Foreign) -> dict[str, np.ndarray]:
    """Return our parameters by path, from files of theirs. Names, shapes and types are compared before numbers are read or JAX starts."""
    experiment, numberings = foreign.experiment, foreign.numberings
    assert isinstance(experiment.model, Transformer)
    sizes = (len(numberings[side].tokens) for side in ("source", "target"))
    expected = {tensor.name: tensor for tensor in layout.tensors(experiment.model, *sizes)}
    if not experiment.model.output_bias:
        del expected["final_logits_bias"]
    with opened(folder) as file:
        copies = _check_header(file, {name: tensor.shape for name, tensor in expected.items()}, experiment.model)
        params: dict[str, np.ndarray] = {name: np.zeros(shape, np.float32) for name, shape in _shapes(foreign).items()}
        for name, tensor in expected.items():
            if name in file.shapes:
                layout.put(tensor, file.read(name), params, numberings)
        for name, origin in copies.items():
            x = file.read(name)
            same = np.array_equal(x, file.read(origin)) if origin else np.allclose(x, layout.positions(*x.shape), atol=1e-4)
            if not same:
                other = f"{origin}, with which it is shared" if origin else "sinusoids, as those of such a model are"
                raise UserError(f"{file.places[name]}: the tensor {name} differs from {other}")
    return params


def _shapes(foreign: huggingface_files.Foreign) -> dict[str, tuple[int, ...]]:
    """Return the shapes of our parameters by path."""
    compiler.check()
    import jax

    from jaxnmt.models.seq2seq import build_model
    from jaxnmt.parallel.axes import path_name

    tokenizer = foreign.tokenizer
    model = build_model(foreign.experiment.model, tokenizer.source_vocab_size, tokenizer.target_vocab_size)
    return {path_name(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(model.shapes)}


def _check_header(file: Tensors, expected: Mapping[str, tuple[int, ...]], model: Transformer) -> dict[str, str]:
    """Check names and shapes of a file's tensors. Returns {copy: the tensor that it must equal; "" for positions}, if it has copies."""
    table = "model.shared.weight" if model.tie_embeddings == "all" else "model.decoder.embed_tokens.weight"
    stacks = ("encoder", "decoder")
    shared = [f"model.{stack}.embed_tokens.weight" for stack in stacks] if model.tie_embeddings == "all" else []
    copies = dict.fromkeys([*shared, *(["lm_head.weight"] if model.tie_embeddings != "none" else [])], table)
    positions = dict.fromkeys((f"model.{stack}.embed_positions.weight" for stack in stacks), "")
    shapes = dict(expected) | {name: expected[table] for name in copies}
    if model.positions == "sinusoidal":  # of the others, no file has a table
        shapes |= dict.fromkeys(positions, (model.max_positions, model.emb_dim))
    for name, shape in file.shapes.items():
        if name not in shapes:
            raise UserError(f"{file.path} has a tensor {name[:100]}, which such a model has not")
        if shape != shapes[name]:
            raise UserError(f"{file.path}: the tensor {name} has the shape {shape}, and by config.json it has {shapes[name]}")
    if missing := [name for name in expected if name not in file.shapes and name != "final_logits_bias"]:
        raise UserError(f"{file.path} has no tensor {missing[0]}, which such a model has")
    return {name: origin for name, origin in (copies | positions).items() if name in file.shapes}


def _write_checkpoint(run: pathlib.Path, experiment: Experiment, params: Mapping[str, np.ndarray]) -> None:
    """Write the parameters as the checkpoint of step 0."""
    import jax
    import jax.numpy as jnp

    from jaxnmt.training.checkpoints import Checkpoints
    from jaxnmt.training.progress import Progress
    from jaxnmt.training.state import TrainState

    nested: dict[str, Any] = {}
    for path, x in params.items():
        *modules, name = path.split("/")
        part = nested
        for module in modules:
            part = part.setdefault(module, {})
        part[name] = jax.device_put(x)
    state = TrainState(jnp.int32(0), nested, {}, None, lr_scale=jnp.float32(1), bad_steps=jnp.int32(0))
    with Checkpoints(run, experiment.checkpoints) as checkpoints:
        checkpoints.save(state, Progress(), None)
