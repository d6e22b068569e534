"""Text in, labels out: one forward pass for each batch."""

from __future__ import annotations

import collections
import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxnmt.data.special_tokens import EOS
from jaxnmt.data.tokenizer import Tokenizer
from jaxnmt.decoding.batches import ahead, bucket, pad, padded_rows
from jaxnmt.decoding.kept_programs import KeptFunction
from jaxnmt.parallel import log
from jaxnmt.parallel.sharding import mesh_of, num_shards, per_device, replicated, to_mesh

if TYPE_CHECKING:
    from jaxnmt.models.seq2seq import Seq2Seq

Warn = Callable[[str], None]
APPLIES = 0.5
"""Of several labels, those that are more probable than this apply."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run predicts of a text.

    Attributes:
        label: the label; of several the ones that apply, the most probable first, with commas between; or the number.
        probability: of the label; of several, that these apply and no others, if they are independent; of a number NaN.
        count: how many labels are predicted.
        labels: every label of the run; empty for a number.
        values: their probabilities, float32.
    """

    label: str
    probability: float
    count: int = dataclasses.field(default=0, repr=False)
    labels: Sequence[str] = dataclasses.field(default=(), repr=False)
    values: Sequence[float] | np.ndarray = dataclasses.field(default=(), repr=False)

    @property
    def chosen(self) -> dict[str, float]:
        """The labels that are predicted, and the probability of each."""
        return dict(itertools.islice(self.probabilities.items(), self.count))

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each label, the most probable first."""
        order = np.argsort(-np.asarray(self.values), kind="stable")
        return {self.labels[i]: float(self.values[i]) for i in order}


class Predictor:
    """Predicts with given parameters.

    A program is compiled for each (rows, source length). Texts are padded to lengths of their own, so that no prediction depends on others.
    """

    def __init__(
        self, model: Seq2Seq, params: Any, tokenizer: Tokenizer, kind: str, max_length: int, warn: Warn = log.warn, cache_key: tuple = ()
    ) -> None:
        """Make a predictor; texts are spread over the devices that the parameters lie on.

        Args:
            model: as it decodes (`models.parameters.for_decoding`).
            params: the parameters, which may lie on several devices; sharded ones are gathered for each batch.
            tokenizer: of texts and labels.
            kind: as `config.Classification.labels`.
            max_length: tokens of a text, EOS included, that are read.
            warn: is called with a line for people about an empty text, and about the first that is too long.
            cache_key: identifies the model in the cache of traced programs, see `StagedSearch`.
        """
        self.params, self.tokenizer, self.kind, self.max_length, self.warn = params, tokenizer, kind, max_length, warn
        self.mesh = mesh_of(params)
        self._labels = tokenizer.label_names if kind != "number" else []
        self._has_cut = False

        def compute(params, batch) -> list[jax.Array]:
            return [model.apply(params, "predict", batch)]

        if self.mesh is not None:
            self._compute: Callable[..., Any] = jax.jit(per_device(compute, self.mesh), out_shardings=replicated(self.mesh))
        else:
            self._compute = KeptFunction(compute, ("predict", *cache_key)) if cache_key else jax.jit(compute)

    def with_params(self, params: Any) -> Predictor:
        """Return a predictor with other parameters of the same model and layout. Both share their compiled programs."""
        other = copy.copy(self)
        other.params = params
        return other

    def predict(self, texts: Sequence[str], batch_size: int, first: int = 1) -> list[Prediction]:
        """Return a prediction for each text. A text that is too long is cut, with a warning about the first one.

        Args:
            texts: the texts.
            batch_size: texts that are read together.
            first: number of the first text, for warnings.
        """
        ids = [self._read(number, own) for number, own in enumerate(self.tokenizer.encode_source([text.strip() for text in texts]), first)]
        found: list[Any] = [None] * len(ids)
        for group, made in ahead(self._started(ids, batch_size), 1):
            for i, values_V in zip(group, np.asarray(jax.device_get(made)[0]), strict=False):  # further rows are padding
                found[i] = self._prediction(values_V)
        return found

    def _read(self, number: int, ids: list[int]) -> list[int]:
        limit = self.max_length - 1
        if not ids:
            self.warn(f"text {number} is empty: ignore its prediction")
        if len(ids) > limit and not self._has_cut:
            self._has_cut = True
            self.warn(f"text {number} has {len(ids)} tokens; the model reads {limit} (data.max_length): it is cut, as are later ones")
        return [*ids[:limit], EOS]

    def _started(self, ids: Sequence[list[int]], batch_size: int) -> Iterator[tuple[list[int], Any]]:
        """Start the pass over each batch. Yields the texts' numbers and the arrays that it computes."""
        of_length: dict[int, list[int]] = collections.defaultdict(list)
        for i, own in enumerate(ids):
            of_length[bucket(len(own))].append(i)
        for _, same in sorted(of_length.items()):
            for start in range(0, len(same), batch_size):
                group = same[start : start + batch_size]
                rows = padded_rows(len(group), batch_size, num_shards("B", self.mesh))
                batch = {"encoder_input_tokens": pad([ids[i] for i in group], rows, EOS)}
                yield group, self._compute(self.params, batch if self.mesh is None else to_mesh(batch, self.mesh))

    def _prediction(self, values_V: np.ndarray) -> Prediction:
        if self.kind == "number":
            return Prediction(self.tokenizer.number(float(values_V[0])), math.nan)
        count = 1 if self.kind == "one" else int((values_V > APPLIES).sum())
        label = ",".join(self._labels[i] for i in np.argsort(-values_V, kind="stable")[:count])
        likely = values_V.max() if self.kind == "one" else np.prod(np.maximum(values_V, 1 - values_V))
        return Prediction(label, float(likely), count, self._labels, values_V)
