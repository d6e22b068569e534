"""Law 10: a compiled program gives the numbers that its operations give one by one, and that float64 gives.

A compiler may fuse operations wrongly, and only in some programs: a gradient that is asked for alone is another program than
the same gradient among others, and a fusion may depend on the number of rows. So each parameter's gradient is asked for alone, and
the sizes lie just beyond those where jaxlib's fusions went wrong (docs/trust.md).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from jaxnmt.lab.laws.subject import Subject, Verdict, batch_of, distance, model_of, random_pairs
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel import compiler
from jaxnmt.parallel.axes import path_name
from jaxnmt.training.loss import batch_loss

ROWS, LENGTH = 512, 8  # 4,096 positions
COPIES = 9  # of these rows: 36,864 positions
BOUND = 1e-3
"""How far float32 may be off, as a share of the largest number. Rounding takes a ReLU past zero, which moves a gradient by up to 3e-4."""
QUICKLY = {"xla_backend_optimization_level": 0}
"""What LLVM does with each fusion, in half the time; XLA fuses the same operations."""


def compiled(subject: Subject, every: bool = False) -> Verdict:
    """Compare compiled losses and gradients with those computed operation by operation, and these with float64's.

    The model has one layer of each kind. Logits are compared position by position. All gradients are asked for at once, with dropout at the
    larger size, as training does. A parameter's gradient is asked for alone at the smaller size; those of the embeddings, which pass
    through every operation, at the larger one.

    Args:
        every: ask for every parameter's gradient alone, not only that of each kind of layer's kernel, one bias, one scale and so on.
    """
    if wrong := compiler.miscompilations():
        return Verdict(False, f"this compiler is known to be wrong, and is: {'; '.join(wrong)}")
    loss = _Loss(Subject(_shallow(subject.config)))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # that compiles while the references are computed here
        pending = [(what, pool.submit(run), expected) for what, run, expected in loss.programs(every)]
        worst = 0.0
        for what, program, expected in pending:
            far = _distance(program.result(), expected())
            if not far <= BOUND:
                pool.shutdown(cancel_futures=True)
                return Verdict(False, f"{what}: off by {far:.1g} of the largest number, at most {BOUND:g} allowed")
            worst = max(worst, far)
    return Verdict(True, f"{len(pending)} programs, off by at most {worst:.1g} of the largest number, at most {BOUND:g} allowed")


def _shallow(config: Any) -> Any:
    """Return a model's configuration with one encoder layer and one decoder layer."""
    return dataclasses.replace(config, **{name: 1 for name in ("num_encoder_layers", "num_decoder_layers") if hasattr(config, name)})


def _kind(name: str) -> str:
    """Return what parameters share: "wi/kernel" of "encoder/layer_0/mlp/wi/kernel", "scale" of "encoder/layer_0/mlp_norm/scale"."""
    *_, module, parameter = ("", *name.split("/"))
    module = "qkv" if module in ("q", "kv") else module  # one product in self-attention, two in cross-attention
    return f"{module}/kernel" if parameter == "kernel" else parameter


def _distance(found: Any, expected: Any) -> float:
    """Return how far a result is from the expected one; {name: gradient} of one parameter, from the loss and all gradients."""
    if isinstance(found, dict):
        found = expected[0], jax.tree_util.tree_map_with_path(lambda path, x: found.get(path_name(path), x), expected[1])
    return distance(found, expected)


class _Loss:
    """A model's loss on a batch, its gradients, and the programs that compute them."""

    def __init__(self, subject: Subject):
        self.config, self.model, self.params = subject.config, subject.model, subject.params
        self.batch = batch_of(random_pairs(ROWS, 0, 2, LENGTH - 2), [[i] for i in range(ROWS)], LENGTH, LENGTH)
        self.names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(self.params)]

    def copies(self, count: int) -> dict[str, jax.Array]:
        """Return the batch, repeated."""
        return {name: jnp.asarray(np.concatenate([x] * count)) for name, x in self.batch.items()}

    def function(self, dropout: bool = False, model: Seq2Seq | None = None) -> Callable[[Any, Any], tuple[jax.Array, Any]]:
        """Return `(params, batch) -> (loss, gradients)`, whose result is the same for any number of copies of the batch."""

        def loss(params, batch):
            rows = jnp.arange(len(batch["decoder_target_tokens"])) % ROWS
            sums = batch_loss(model or self.model, params, batch, DropoutKey.of(1, jnp.int32(1), rows) if dropout else None, 0.1)
            return sums.loss * (ROWS / len(rows))

        return jax.value_and_grad(loss)

    def logits(self, params: Any, batch: Any) -> jax.Array:
        """Return the logits of each copy of the batch, (copies, B, T, V)."""
        logits_BTV = self.model.decode(params, self.model.encode(params, batch), batch)[..., : self.model.target_vocab]
        return logits_BTV.reshape(-1, ROWS, *logits_BTV.shape[1:])

    @functools.cache  # noqa: B019
    def gradients_one_by_one(self, dropout: bool = False) -> tuple[jax.Array, Any]:
        """Return the loss and all gradients, computed operation by operation."""
        with jax.disable_jit():
            return jax.device_get(self.function(dropout)(self.params, self.copies(1)))

    def logits_one_by_one(self) -> jax.Array:
        """Return the logits, computed operation by operation."""
        with jax.disable_jit():
            return self.logits(self.params, self.copies(1))

    def programs(self, every: bool) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
        """Yield (what it computes, a function that compiles and runs it, a function that returns what is expected)."""
        few, many = f"at {ROWS * LENGTH:,} positions", f"at {ROWS * LENGTH * COPIES:,} positions"
        all_gradients, plain, run = "the loss and all gradients", self.gradients_one_by_one, self._compiled_quickly
        trained = jax.jit(self.function(dropout=True))
        yield f"{all_gradients} {many}", lambda: trained(self.params, self.copies(COPIES)), lambda: self.gradients_one_by_one(dropout=True)
        yield f"{all_gradients} {few}", lambda: run(self.function(), 1), plain
        yield f"{all_gradients} in float64 {few}", self._in_float64, plain
        yield f"the logits {many}", lambda: run(self.logits, COPIES), self.logits_one_by_one
        for name in self.names if every else {_kind(name): name for name in self.names}.values():
            copies, positions = (COPIES, many) if name.endswith("embedding/table") else (1, few)
            yield f"the gradient of {name} alone {positions}", functools.partial(self._alone, name, copies), plain

    def _alone(self, name: str, copies: int) -> dict[str, jax.Array]:
        """Return one parameter's gradient, {name: gradient}."""
        compute, index = jax.extend.core.jaxpr_as_fun(self._gradients(copies)), self.names.index(name)
        return {name: self._compiled_quickly(lambda *arguments: compute(*jax.tree.leaves(arguments))[index], copies)}

    @functools.cache  # noqa: B019
    def _gradients(self, copies: int) -> Any:
        """Return the jaxpr of all gradients: traced once, instead of once for each program."""
        return jax.make_jaxpr(lambda *arguments: jax.tree.leaves(self.function()(*arguments)[1]))(self.params, self.copies(copies))

    def _compiled_quickly(self, function: Callable[[Any, Any], Any], copies: int) -> Any:
        arguments = self.params, self.copies(copies)
        return jax.jit(function).lower(*arguments).compile(QUICKLY)(*arguments)

    def _in_float64(self) -> Any:
        """Return the loss and all gradients, computed in float64; {} where the model computes in another type than its parameters have."""
        config = dataclasses.replace(self.config, dtype="float64") if hasattr(self.config, "dtype") else self.config
        with jax.enable_x64(True):
            params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), jax.device_get(self.params))
            program = jax.jit(self.function(model=model_of(config))).lower(params, self.copies(1)).compile(QUICKLY)
            found = jax.device_get(program(params, self.copies(1)))
        return found if found[0].dtype == np.float64 else {}
