"""Captions of pictures: a line names a picture, and the search writes its caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnmt.config import Captioning
from jaxnmt.data import pictures
from jaxnmt.data.special_tokens import UNK
from jaxnmt.decoding.translator import Translator
from jaxnmt.errors import UserError


class Picture(list[int]):
    """A picture, or a vector, in place of a sentence's tokens: one unknown token, which stands for it."""

    def __init__(self, vector: np.ndarray) -> None:
        super().__init__([UNK])
        self.vector = vector


class Captioner(Translator):
    """Captions what the lines name.

    Attributes:
        read: returns the picture of a name; see `data.pictures`.
    """

    read = staticmethod(pictures.read)

    @property
    def task(self) -> Captioning:
        """The task, which says how pictures are read."""
        return self.model.task

    @property
    def aligner(self) -> Any:
        """Raise a UserError."""
        raise UserError("a picture has no words that those of a caption could be aligned with: `jaxnmt visualize` shows the attention")

    def _parts(self, number: int, line: str) -> list[list[int]]:
        return [Picture(self.read(line, self.task))] if line else []

    def _as_source(self, ids: list[int]) -> Picture:
        return Picture(np.zeros(self.task.vector_shape, self.task.vector_dtype))

    def _batch(self, sentences: Sequence[Any], rows: int) -> dict[str, np.ndarray]:
        vectors: np.ndarray = np.zeros((rows, *self.task.vector_shape), self.task.vector_dtype)
        vectors[: len(sentences)] = [picture.vector for picture in sentences]
        return super()._batch(sentences, rows) | {"encoder_input_vectors": vectors}
