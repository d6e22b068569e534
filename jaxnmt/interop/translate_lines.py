"""Translate lines by loader.py beside this file. It needs sentencepiece for text.

    python translate.py [BEAM_SIZE] < LINES

A beam of 1 is greedy search. Without SentencePiece models in this folder, lines are token ids between spaces.
"""

import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).parent


def vocabulary():
    """Return a function that turns a line into token ids, and one that turns ids into a line."""
    if not (HERE / "source.spm").exists():
        return (lambda line: [int(number) for number in line.split()]), (lambda ids: " ".join(map(str, ids)))
    import sentencepiece

    source, target = (sentencepiece.SentencePieceProcessor(model_file=str(HERE / f"{side}.spm")) for side in ("source", "target"))
    return source.encode, target.decode


def main():
    """Translate the lines of stdin."""
    load = runpy.run_path(str(HERE / "loader.py"))["load"]
    try:
        translate, (read, write) = load(*map(int, sys.argv[1:2])), vocabulary()
        lines = [" ".join(line.split()) for line in sys.stdin]
        for start in range(0, len(lines), 64):
            some = lines[start : start + 64]
            for line, ids in zip(some, translate([read(line) for line in some]), strict=True):
                print(write(ids) if line else "")
    except ValueError as error:
        sys.exit(f"translate.py: {error}")


if __name__ == "__main__":
    main()
