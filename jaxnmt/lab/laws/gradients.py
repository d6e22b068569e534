"""Laws 8 and 10: gradients do not depend on a model's layout, nor on the compiler.

A compiler may fuse operations wrongly, and only in some programs: a gradient that is asked for alone is another program than
the same gradient among others, and a fusion may depend on the number of rows. So each parameter's gradient is asked for alone, and
the sizes lie just beyond those where jaxlib's fusions went wrong (docs/trust.md).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from jaxnmt import config as cfg
from jaxnmt.lab.laws.subject import Subject, Verdict, close, distance, model_of, random_pairs
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.parameters import stack_layers, unscanned, unstack_layers
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.parallel import compiler
from jaxnmt.parallel.axes import path_name
from jaxnmt.training.loss import LossSums, batch_loss
from jaxnmt.training.state import TrainState
from jaxnmt.training.step import accumulate_gradient

PAIRS = random_pairs(7)
SINGLE = [*([i] for i in range(7)), []], 9, 8
PACKED = [[3, 0, 5], [], [6, 1], [2, 4]], 24, 24, True
"""The pairs of each row, and the row lengths, of two batches."""
ROWS, LENGTH = 512, 8  # 4,096 positions
COPIES = 9  # of these rows: 36,864 positions
BOUND = 1e-3
"""How far float32 may be off, as a share of the largest number. Rounding takes a ReLU past zero, which moves a gradient by up to 3e-4."""
QUICKLY = {"xla_backend_optimization_level": 0}
"""What LLVM does with each fusion, in half the time; XLA fuses the same operations."""


@functools.partial(jax.jit, static_argnums=(0, 3))
def gradient_of(model: Seq2Seq, params: Any, batch: dict[str, jax.Array], noisy: bool):
    """Return the gradient of a batch's loss, and its sums."""
    noise = DropoutKey.of(3, jnp.int32(5), jnp.arange(batch["decoder_target_tokens"].shape[0])) if noisy else None

    def loss(params):
        sums = batch_loss(model, params, batch, noise, 0.1)
        return sums.loss, _defined(model, sums)

    return jax.grad(loss, has_aux=True)(params)


def _defined(model: Seq2Seq, sums: LossSums) -> Sequence[jax.Array]:
    """Return the sums that the task defines. Regression has neither a likelihood nor correct tokens: those are NaN."""
    return sums if "accuracy" in model.task.metrics else (sums.loss, sums.tokens)


def scanned(subject: Subject) -> Verdict:
    """Compare scanned with unrolled layers, with dropout."""
    if not hasattr(subject.config, "scan_layers"):
        return Verdict(None, f"the layers of a {subject.name} are not scanned")
    loop, batch = model_of(cfg.replace(subject.config, scan_layers=True), task=subject.task), subject.batch(PAIRS, *SINGLE)
    found, sums = gradient_of(loop, jax.jit(stack_layers)(subject.flat_params), batch, True)
    expected = gradient_of(model_of(unscanned(subject.config), task=subject.task), subject.flat_params, batch, True)
    return close(distance((jax.jit(unstack_layers)(found), sums), expected))


def packed(subject: Subject) -> Verdict:
    """Compare several pairs in a row with one pair in a row."""
    if not subject.packs:
        return Verdict(None, f"a {subject.name} reads one pair a row")
    found, expected = (gradient_of(subject.model, subject.params, subject.batch(PAIRS, *rows), False) for rows in (PACKED, SINGLE))
    return close(distance(found, expected))


def accumulated(subject: Subject) -> Verdict:
    """Compare a batch in two parts with the whole batch, with dropout."""
    state = TrainState(np.int32(2), subject.params, (), None, np.float32(1), np.int32(0))

    def gradient(parts: int) -> Any:
        accumulate = functools.partial(accumulate_gradient, subject.model, cfg.Training(accumulation=parts))
        found, sums = jax.jit(accumulate)(state, jax.tree.map(jnp.asarray, subject.batch(PAIRS, *SINGLE)))
        return found, _defined(subject.model, sums)

    return close(distance(gradient(2), gradient(1)))


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
    one_each = {name: 1 for name in ("num_encoder_layers", "num_decoder_layers") if hasattr(subject.config, name)}
    loss = _Loss(Subject(dataclasses.replace(subject.config, **one_each), subject.task))
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
        self.config, self.task, self.model, self.params = subject.config, subject.task, subject.model, subject.params
        self.batch = subject.batch(random_pairs(ROWS, 0, 2, LENGTH - 2), [[i] for i in range(ROWS)], LENGTH, LENGTH)
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

    def one_by_one(self, function: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        """Return a function that computes another on the batch, operation by operation, when it is first called."""

        @functools.cache
        def compute():
            with jax.disable_jit():
                return jax.device_get(function(self.params, self.copies(1)))

        return compute

    def programs(self, every: bool) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
        """Yield (what it computes, a function that compiles and runs it, a function that returns what is expected)."""
        few, many = f"at {ROWS * LENGTH:,} positions", f"at {ROWS * LENGTH * COPIES:,} positions"
        all_gradients, trained, plain = "the loss and all gradients", self.function(dropout=True), self.one_by_one(self.function())
        yield f"{all_gradients} {many}", lambda: jax.jit(trained)(self.params, self.copies(COPIES)), self.one_by_one(trained)
        yield f"{all_gradients} {few}", lambda: self._compiled_quickly(self.function(), 1), plain
        yield f"{all_gradients} in float64 {few}", self._in_float64, plain
        yield f"the logits {many}", lambda: self._compiled_quickly(self.logits, COPIES), self.one_by_one(self.logits)
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
            program = jax.jit(self.function(model=model_of(config, task=self.task))).lower(params, self.copies(1)).compile(QUICKLY)
            found = jax.device_get(program(params, self.copies(1)))
        return found if found[0].dtype == np.float64 else {}
