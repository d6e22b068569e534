"""Translate with model.npz beside this file. It needs jax and numpy, and sentencepiece for text.

    python translate.py [greedy|beam] < LINES

Without SentencePiece models in this folder, lines are token ids between spaces.
"""

import pathlib
import sys

import jax
import jax.export
import numpy as np

HERE, PAD, EOS = pathlib.Path(__file__).parent, 0, 2


def load(search="beam"):
    """Return a function that translates a list of sentences; each is a list of token ids, without the end token."""
    model = np.load(HERE / "model.npz", allow_pickle=False)
    program = jax.jit(jax.export.deserialize(bytearray(model[f"program/{search}"].tobytes())).call)
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


def vocabulary():
    """Return a function that turns a line into token ids, and one that turns ids into a line."""
    if not (HERE / "source.spm").exists():
        return (lambda line: [int(number) for number in line.split()]), (lambda ids: " ".join(map(str, ids)))
    import sentencepiece

    source, target = (sentencepiece.SentencePieceProcessor(model_file=str(HERE / f"{side}.spm")) for side in ("source", "target"))
    return source.encode, target.decode


def main():
    """Translate the lines of stdin."""
    translate, lines = load(*sys.argv[1:]), [" ".join(line.split()) for line in sys.stdin]
    read, write = vocabulary()
    for start in range(0, len(lines), 64):
        some = lines[start : start + 64]
        for line, ids in zip(some, translate([read(line) for line in some]), strict=True):
            print(write(ids) if line else "")


if __name__ == "__main__":
    main()
