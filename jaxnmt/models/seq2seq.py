"""What every model offers: plain functions of explicit pytrees, so that one loss and one search serve all models."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt import errors
from jaxnmt.config import Task, Translation
from jaxnmt.models.encoder_decoder import Batch, EncoderDecoder, has_output_bias
from jaxnmt.models.int8 import quantised
from jaxnmt.models.layers import DropoutKey
from jaxnmt.models.parameters import is_scanned, unstack_layers
from jaxnmt.parallel.axes import declared, is_kernel, path_name
from jaxnmt.parallel.boxes import Multiplied

VOCABULARY_MULTIPLE = 128
FUNCTIONS = ("encode", "decode", "start", "step")


class Seq2Seq:
    """A linen module with methods `encode`, `decode`, `start` and `step`, as functions of its parameters.

    A module may also offer `features` and `output_table`, whose product is its logits, and `output_bias`, which is added to them. The loss
    then never holds all logits at once. One that offers `loss` has its own.

    Attributes:
        mesh: that the module constrains its activations to; None: it computes for one device.
        task: what it predicts.
    """

    mesh: Mesh | None = None

    def __init__(self, module: nn.Module, target_vocab: int, resize: Callable[[int], Seq2Seq] | None = None):
        self.module, self.target_vocab, self._resize = module, target_vocab, resize
        self.has_loss = hasattr(module, "loss")
        needed = ("features", "output_table", *("output_bias" for _ in range(has_output_bias(module))))
        self.has_features = all(hasattr(module, name) for name in needed)
        self.source_side: tuple[str, ...] = getattr(module, "source_side", EncoderDecoder.source_side)
        self.task: Any = getattr(module, "task", Translation())
        self.attention_module: str = getattr(module, "attention_module", EncoderDecoder.attention_module)

    def on(self, mesh: Mesh | None) -> Seq2Seq:
        """Return the same model for arrays that lie on a mesh. A module without the field `mesh` leaves layouts to the compiler."""
        spread = self.with_module(mesh=mesh) if hasattr(self.module, "mesh") else copy.copy(self)
        spread.mesh = mesh
        return spread

    def with_module(self, **fields: Any) -> Seq2Seq:
        """Return the same model with other values in some of its module's fields."""
        changed = copy.copy(self)
        changed.module = self.module.clone(**fields)
        return changed

    @property
    def can_gather(self) -> bool:
        """Whether the layers can all-gather their own sharded parameters (`models.gathering`): our scanned ones can."""
        return _is_ours(self.module) and hasattr(self.module, "gather") and is_scanned(self.module.config)

    @property
    def can_refill(self) -> bool:
        """Whether the rows of a carry may be at different positions, so that a sentence can begin while others go on."""
        return _is_ours(self.module)

    @property
    def adds_rows(self) -> bool:
        """Whether the loss is a sum over rows of a batch, so that each device can compute the gradient of its own."""
        return _is_ours(self.module)

    def with_target_vocabulary(self, size: int) -> Seq2Seq:
        """Return the same model for a target vocabulary of another size; the source vocabulary stays."""
        assert self._resize is not None  # `build_model` gives it
        return self._resize(size).on(self.mesh)

    def is_source_side(self, name: str) -> bool:
        """Return whether a parameter is of the parts that read the source, by its path."""
        return any(f"/{part}/" in f"/{name}" for part in self.source_side)

    def _init(self, key: jax.Array) -> Any:
        tokens = jnp.ones((1, 4), jnp.int32)
        batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}
        if self.task.vectors:
            batch["encoder_input_vectors"] = jnp.zeros((1, *self.task.vector_shape), self.task.vector_dtype)
        return self.module.init(key, batch, method=_teacher_forced)["params"]

    def init(self, key: jax.Array) -> Any:
        """Return fresh parameters."""
        return nn.unbox(self._init(key))

    @functools.cached_property
    def _boxed_shapes(self) -> Any:
        return jax.eval_shape(self._init, jax.random.key(0))

    @property
    def shapes(self) -> Any:
        """The parameters as ShapeDtypeStructs."""
        return nn.unbox(self._boxed_shapes)

    @property
    def axes(self) -> Any:
        """The letters of each parameter's axes, as `parallel.axes.declared` returns them."""
        return declared(self._boxed_shapes)

    def rounded(self, params: Any, weights: Literal["bfloat16", "int8"]) -> Any:
        """Return parameters of which the weights that the model only multiplies by are bfloat16, or `Int8`."""
        if weights == "bfloat16":
            return jax.tree.map(lambda x, is_weight: x.astype(jnp.bfloat16) if is_weight else x, params, self._multiplied)
        return jax.jit(lambda params: quantised(params, self.axes, self._multiplied))(params)

    @property
    def _multiplied(self) -> Any:
        """Whether each parameter is a weight that the model only multiplies by."""
        box = lambda x: isinstance(x, nn.Partitioned)  # noqa: E731
        return jax.tree.map(lambda x: isinstance(x, Multiplied), self._boxed_shapes, is_leaf=box)

    @property
    def step_weights(self) -> Any:
        """The letters of each float32 weight that the decoder's side uses only in products and look-ups.

        It is "" for other parameters, and for all of a user's model.
        """
        in_float32 = _is_ours(self.module) and getattr(self.module.config, "dtype", "float32") == "float32"  # type: ignore[attr-defined]

        def letters(path: Any, axes: str, is_multiplied: bool) -> str:
            return axes if in_float32 and is_multiplied and not self.is_source_side(path_name(path)) else ""

        return jax.tree_util.tree_map_with_path(letters, self.axes, self._multiplied)

    def cast_kernels(self, params: Any) -> Any:
        """Return parameters, or some of them, with the kernels of layers that multiply by each once in the type of that product.

        These are fewer bytes to send. Gradients are the same. Others would be sums in fewer bits: those of tables, and of kernels that
        recurrent layers use at each step.
        """
        return self._cast(params, lambda name: name.startswith(("encoder/", "decoder/")) and name in self._kernels)

    @functools.cached_property
    def _kernels(self) -> set[str]:
        """The paths of all kernels."""
        return {path_name(path) for path, axes in jax.tree_util.tree_leaves_with_path(self.axes) if is_kernel(path, axes)}

    def cast_tables(self, params: Any) -> Any:
        """Return parameters, or some of them, with the embedding tables in the dtype to which the model casts the vectors that it looks up.

        Predictions are the same. The gradient of such a table would be a sum in fewer bits.
        """
        return self._cast(params, lambda name: name.endswith("embedding/table"))

    def _cast(self, params: Any, is_cast: Callable[[str], bool]) -> Any:
        """Return parameters of which these are in the computation's dtype; the same parameters if the model uses kernels more than once."""
        if not (_is_ours(self.module) and self.module.uses_kernels_once):  # type: ignore[attr-defined]
            return params
        dtype = self.module.config.dtype  # type: ignore[attr-defined]
        return jax.tree_util.tree_map_with_path(lambda path, x: x.astype(dtype) if is_cast(path_name(path)) else x, params)

    def apply(self, params, method: str, *args, **options):
        """Call one of the module's methods."""
        return self.module.apply({"params": params}, *args, method=method, **options)

    def with_losses(self, method: str, params, *args) -> tuple[jax.Array, list[jax.Array]]:
        """Call `features` or `decode`. Return what it does, and what its modules sow as `losses`: (B, T) each, in nats per position."""
        made, found = self.apply(params, method, *args, mutable=["losses"])
        return made, jax.tree.leaves(found)

    def encode(self, params, batch: Batch, noise: DropoutKey | None = None):
        """Return the memory of `encoder_input_tokens` (B, S)."""
        return self.apply(params, "encode", batch, noise)

    def decode(self, params, memory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return float32 logits (B, T, V) of the token after each of `decoder_input_tokens` (B, T)."""
        return self.apply(params, "decode", memory, batch, noise)

    def features(self, params, memory, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return what the output layer reads, (B, T, D)."""
        return self.apply(params, "features", memory, batch, noise)

    def output_table(self, params) -> jax.Array:
        """Return the output layer's matrix (V, D)."""
        return self.apply(params, "output_table")

    def output_bias(self, params) -> jax.Array | None:
        """Return the bias of the logits, (V,), or None."""
        return self.apply(params, "output_bias") if hasattr(self.module, "output_bias") else None

    def start(self, params, memory, max_length: int):
        """Return the carry before the first token; every leaf leads with one row for each sentence."""
        return self.apply(params, "start", memory, max_length)

    def step(self, params, memory, carry, token_B: jax.Array):
        """Return logits (B, V) of the next token, and the carry."""
        return self.apply(params, "step", memory, carry, token_B)

    def step_with_attention(self, params, memory, carry, token_B: jax.Array):
        """Return what `step` does, and the attention of its prediction on each source position: `source_attention`, (B, S).

        Raises:
            UserError: the model's `attention_module` sows nothing.
        """
        made, found = self.module.apply({"params": params}, memory, carry, token_B, method="step", mutable=["intermediates"])
        return *made, source_attention(self._unstacked(found), self.attention_module).reshape(token_B.shape[0], -1)

    def attention(self, params, batch: Batch):
        """Return every attention weight of a teacher-forced pass, as a tree of (B, H, T, S) by module."""
        return self.intermediates(params, batch)[1]

    def intermediates(self, params, batch: Batch, capture: Callable[[nn.Module, str], bool] | bool = False) -> tuple[jax.Array, Any]:
        """Return logits (B, T, V) of a teacher-forced pass, and what its modules sow, with layers unstacked.

        Args:
            capture: of which modules the outputs are sown too, as flax's `capture_intermediates`.
        """
        options = {"method": _teacher_forced, "mutable": ["intermediates"], "capture_intermediates": capture}
        logits_BTV, found = self.module.apply({"params": params}, batch, **options)
        return logits_BTV, self._unstacked(found)

    def _unstacked(self, variables: Any) -> Any:
        """Return sown intermediates; those of scanned layers are split into layers, named as in an unrolled model."""
        sown = variables.get("intermediates", {})
        return unstack_layers(nn.meta.unbox(sown)) if is_scanned(getattr(self.module, "config", None)) else sown


def _is_ours(module: nn.Module) -> bool:
    """Return whether a module and its bases are ours: a user's subclass need not keep what our classes promise."""
    return all(base.__module__.partition(".")[0] in ("jaxnmt", "flax", "builtins") for base in type(module).__mro__)


def _teacher_forced(module: nn.Module, batch: Batch) -> jax.Array:
    return module.decode(module.encode(batch), batch)


def source_attention(sown: Any, attention_module: str) -> jax.Array:
    """Return the attention on source positions that stands for all of a model's: float32 (B, T, S).

    The mean over the heads of one layer: the last but one, which in Transformers comes closest to a word alignment (Garg et al. 2019); of
    two layers, or one, the last.

    Args:
        sown: attention weights, as a tree of (B, H, T, S) by module.
        attention_module: see `EncoderDecoder`.

    Raises:
        UserError: there are none of that module.
    """
    leaves = {f"/{path_name(path)}": x for path, x in jax.tree_util.tree_leaves_with_path(sown)}
    layers = {name: x for name, x in leaves.items() if name.endswith(f"/{attention_module}/attention/0")}  # what is sown comes in a tuple
    if not layers:
        raise errors.UserError(
            "word alignments, decoding.coverage_penalty and decoding.unk replace need attention over the source, and this model has none "
            f"(model.context fixed, or one of your own whose {attention_module} sows no weights)"
        )
    order = sorted(layers, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    return layers[order[-2 if len(order) > 2 else -1]].astype(jnp.float32).mean(1)


def padded(vocab_size: int) -> int:
    """Return the size of a vocabulary's tables: a multiple of 128, which every sensible mesh divides."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def build_model(config: Any, source_vocab: int, target_vocab: int, task: Task = Translation()) -> Seq2Seq:  # noqa: B008  it is frozen
    """Return the model that a configuration describes, for vocabularies of these sizes.

    Args:
        config: its method `build(source_size, target_size, target_vocab)` returns the module. The first two are the sizes of its tables;
            ids from `target_vocab` on are no tokens.
        task: what the model predicts.

    Raises:
        UserError: the module lacks one of the four functions, or cannot predict what the task is about.
    """
    from jaxnmt.models.heads import with_head  # which reads this module

    module = config.build(padded(source_vocab), padded(target_vocab), target_vocab)
    if missing := [name for name in FUNCTIONS if not callable(getattr(module, name, None))]:
        raise errors.UserError(
            f"{type(config).__name__}.build returns a {type(module).__name__} without {' and '.join(missing)}; "
            f"a model has the methods {', '.join(FUNCTIONS)}"
        )
    return Seq2Seq(with_head(module, task), target_vocab, functools.partial(build_model, config, source_vocab, task=task))
