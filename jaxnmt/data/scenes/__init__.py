"""The embedded builder `scenes`: pictures of coloured shapes, with captions in any language of `phrases`.

A scene (meaning.py) has one or two things. A thing is one to three equal shapes of a size and colour. Of two things, the caption says where
one is relative to the other: "a small red circle above two blue squares". A scene is drawn (picture.py) and captioned (grammar.py,
words/CODE.toml); the index decides everything about it, and there is no last one.

A picture has exactly one caption in each language, so that exact match is a fair score. Four rules make it so: no size word means the
middle one of three sizes; a thing above another is not beside it, nor the other way round; two things differ in colour; the one whose
colour comes first in `meaning.COLOURS` (the rainbow's order, then black) is the one that the caption places, relative to the other. It is
never "two blue squares below a small red circle".

The test is more than memory: a picture of it has two things whose colours and shapes never occur together in training, where each occurs
with others (`meaning.split_of`). A further split, `novel`, is harder: one thing of each picture is of a size, colour and shape that are
together in no other split. There are six of them (small red circles, yellow squares, big green triangles, ...); training has all their
words, and all pairs of size and colour, of size and shape, and of colour and shape.
"""

from __future__ import annotations

import numpy as np

from jaxnmt.data.scenes.grammar import LANGUAGES as LANGUAGES
from jaxnmt.data.scenes.grammar import caption as caption
from jaxnmt.data.scenes.grammar import words as words
from jaxnmt.data.scenes.meaning import Scene as Scene
from jaxnmt.data.scenes.meaning import Thing as Thing
from jaxnmt.data.scenes.meaning import scene as scene
from jaxnmt.data.scenes.picture import draw as draw
from jaxnmt.data.scenes.picture import region as region


def example(language: str, split: str, index: int, seed: int = 0, size: int = 48) -> tuple[np.ndarray, str]:
    """Return picture `index` (any number from 0) of a split, uint8 (size, size, 3), and its caption in one of LANGUAGES."""
    found = scene(split, index, seed)
    return draw(found, size), caption(found, language)
