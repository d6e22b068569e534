"""Law 10: a compiled program gives the numbers that its operations give one by one, and that float64 gives.

A compiler may fuse operations wrongly, and only in some programs: a gradient that is asked for alone is another program than
the same gradient among others, and a fusion may depend on the number of rows. So each parameter's gradient is asked for alone, and
the sizes lie just beyond those where jaxlib's fusions went wrong (docs/trust.md).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from jaxnmt.analysis.laws.subject import ROUNDING, Subject, Verdict, batch_of, distance, model_of, random_pairs
from jaxnmt.models.layers import Noise
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel import compiler
from jaxnmt.parallel.sharding import path_name
from jaxnmt.training.loss import batch_loss

POSITIONS = (4_096, 32_800)
LENGTH = 8  # positions in a row
THREADS = 2  # that compile
FLOAT32 = 1e-3
"""How far float32 may be from float64, as a share of the largest number: norms inside a recurrence reach 1e-4."""


def compiled(subject: Subject) -> Verdict:
    """Compare compiled losses and gradients with those computed operation by operation, and these with float64's.

    At the larger size: all gradients at once, with dropout, as training asks for them. At the smaller size: each parameter's gradient
    alone, without dropout, in a model with one layer of each kind. The gradients of the embeddings, which pass through every operation, are
    asked for alone at both.
    """
    if wrong := compiler.faults():
        return Verdict(False, f"this compiler is known to be wrong, and is: {'; '.join(wrong)}")
    small, large = _Case(Subject(_shallow(subject.config)), POSITIONS[0], dropout=False), _Case(subject, POSITIONS[1], dropout=True)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:  # that compiles while the references are computed here
        pending = [
            (f"{what} at {case.positions:,} positions", case, pool.submit(run)) for case in (large, small) for what, run in case.programs()
        ]
        worst = 0.0
        for what, case, program in pending:
            far, bound = case.distance(program.result()), FLOAT32 if "float64" in what else ROUNDING
            if not far <= bound:
                pool.shutdown(cancel_futures=True)
                return Verdict(False, f"{what}: off by {far:.1g} of the largest number, at most {bound:g} allowed")
            worst = max(worst, far / bound)
    return Verdict(True, f"{len(pending)} programs, off by at most {worst:.0%} of what is allowed")


def _shallow(config: Any) -> Any:
    """Return a model's configuration with one encoder layer and one decoder layer."""
    return dataclasses.replace(config, **{name: 1 for name in ("num_encoder_layers", "num_decoder_layers") if hasattr(config, name)})


class _Case:
    """A model's loss on a batch of `positions` positions, as a function of the parameters."""

    def __init__(self, subject: Subject, positions: int, dropout: bool):
        self.subject, self.positions, self.dropout = subject, positions, dropout
        self.params, self.loss_and_gradient = subject.params, self._of(subject.model)

    def _of(self, model: Seq2Seq) -> Callable[[Any], tuple[jax.Array, Any]]:
        rows = self.positions // LENGTH
        pairs = random_pairs(rows, 0, 2, LENGTH - 2)
        batch = jax.tree.map(jnp.asarray, batch_of(pairs, [[i] for i in range(rows)], LENGTH, LENGTH))
        noise = Noise.of(1, jnp.int32(1), jnp.arange(rows)) if self.dropout else None
        return jax.value_and_grad(lambda params: batch_loss(model, params, batch, noise, 0.1).loss)

    @functools.cached_property
    def reference(self) -> tuple[jax.Array, Any]:
        """The loss and all gradients, operation by operation."""
        with jax.disable_jit():
            return jax.device_get(self.loss_and_gradient(self.params))

    def distance(self, found: Any) -> float:
        """Return how far a result is from the reference: all gradients with the loss, or {name: gradient} of one parameter."""
        if isinstance(found, dict):
            replace = lambda path, x: found.get(path_name(path), x)  # noqa: E731
            found = self.reference[0], jax.tree_util.tree_map_with_path(replace, self.reference[1])
        return distance(found, self.reference)

    def programs(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield (what it computes, a function that compiles and runs it)."""
        yield "the loss and all gradients", lambda: jax.device_get(jax.jit(self.loss_and_gradient)(self.params))
        gradients = jax.make_jaxpr(lambda params: jax.tree.leaves(self.loss_and_gradient(params)[1]))(self.params)
        compute, flat = jax.extend.core.jaxpr_as_fun(gradients), jax.tree.leaves(self.params)
        for i, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(self.params)):
            name = path_name(path)
            if not self.dropout or name.endswith("embedding/table"):
                alone = functools.partial(lambda i, *params: compute(*params)[i], i)
                yield f"the gradient of {name} alone", functools.partial(lambda name, alone: {name: jax.jit(alone)(*flat)}, name, alone)
        if not self.dropout:
            yield "the loss and all gradients in float64", self._in_float64

    def _in_float64(self) -> Any:
        """The loss and all gradients, computed in float64; nothing where the model computes in another type than its parameters have."""
        config = self.subject.config
        config = dataclasses.replace(config, dtype="float64") if hasattr(config, "dtype") else config
        with jax.enable_x64(True):
            params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), jax.device_get(self.params))
            found = jax.device_get(jax.jit(self._of(model_of(config)))(params))
        return found if found[0].dtype == np.float64 else {}
