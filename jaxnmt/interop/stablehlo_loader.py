"""Translate with model.npz beside this file. It needs jax and numpy."""

import pathlib

import jax
import jax.export
import numpy as np

HERE, PAD, EOS = pathlib.Path(__file__).parent, 0, 2


def load(beam_size=5):
    """Return a function that translates a list of sentences; each is a list of token ids, without the end token.

    `beam_size` is 1, for greedy search, or 5.
    """
    model = np.load(HERE / "model.npz", allow_pickle=False)
    if (name := f"program/{beam_size}") not in model.files:
        raise ValueError(f"model.npz has programs for a beam of 1 and of 5, not of {beam_size}")
    program = jax.jit(jax.export.deserialize(bytearray(model[name].tobytes())).call)
    params = {name.removeprefix("params/"): jax.device_put(model[name]) for name in model.files if name.startswith("params/")}

    def translate(sentences):
        width = max(map(len, sentences)) + 1  # padded to few sizes, since each is compiled
        if width > (longest := int(model["longest"])):
            raise ValueError(f"a sentence has {width - 1} tokens, and the model reads {longest - 1}: split it")
        shape = 1 << (len(sentences) - 1).bit_length(), min(1 << (width - 1).bit_length(), longest)
        tokens: np.ndarray = np.full(shape, PAD, np.int32)
        tokens[:, 0] = EOS
        for row, ids in zip(tokens, sentences, strict=False):
            row[: len(ids) + 1] = [*ids, EOS]
        found, _ = program(params, tokens)
        return [ids[: ids.index(EOS)] for ids in np.asarray(found)[: len(sentences)].tolist()]

    return translate
