"""What every model offers: plain functions of explicit pytrees, so that one loss and one search serve all models."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxnmt import errors
from jaxnmt.config import Task, Translation
from jaxnmt.models.int8 import Int8, quantised
from jaxnmt.models.layers import DropoutKey, Embedding, at_least_float32
from jaxnmt.models.parameters import is_scanned, unstack_layers
from jaxnmt.models.pictures import Regions
from jaxnmt.parallel.axes import declare, declared, is_kernel, path_name
from jaxnmt.parallel.boxes import Multiplied
from jaxnmt.parallel.sharding import constrain

Batch = dict[str, jax.Array]
VOCABULARY_MULTIPLE = 128
FUNCTIONS = ("encode", "decode", "start", "step")


class Memory(NamedTuple):
    """What a decoder reads of the source: one row for each sentence (packed: each row of sentences), never repeated over beams.

    Attributes:
        states_BSD: encoder states.
        segments_BS: int32, 0 at padding.
        keys_values: each decoder layer's cross-attention (keys, values), (B, H, K, S) each; of scanned layers (keys, values) with those of
            all, (B, L, H, K, S) each; or None.
    """

    states_BSD: jax.Array
    segments_BS: jax.Array
    keys_values: Any


class SourceStates(NamedTuple):
    """What an encoder makes of the source, whatever is predicted from it.

    Attributes:
        states_BSD: its top layer's states.
        segments_BS: above 0 for tokens.
        vector_BD: the encoder's own summary of all, its last state; None if it has none.
    """

    states_BSD: jax.Array
    segments_BS: jax.Array
    vector_BD: jax.Array | None


class EncoderDecoder(nn.Module):
    """Embeddings, tied or not, and the output layer, for modules to derive from.

    Attributes:
        config: has `emb_dim`; `tie_embeddings`, `scale_embeddings`, `output_bias` and `dtype` are read if it has them (else "none", True,
            False and float32).
        source_size, target_size: rows of the embedding tables (padded vocabularies).
        target_vocab: how many target ids are tokens.
        mesh: that arrays lie on; None: one device.
        task: the task; `heads` implements it.
        reads_source: whether the decoder attends to an encoder.
        source_side: the submodules whose weights multiply source positions; all others multiply target positions. For counting FLOPs.
        attention_module: name of the submodules that sow their attention to the source as `attention` (B, H, T, S).
        uses_kernels_once: see `Seq2Seq.cast_kernels`.
    """

    config: Any
    source_size: int
    target_size: int
    target_vocab: int
    mesh: Mesh | None = dataclasses.field(default=None, kw_only=True)
    task: Any = dataclasses.field(default=Translation(), kw_only=True)

    reads_source: ClassVar[bool] = True
    source_side: ClassVar[tuple[str, ...]] = ("encoder", "regions", "cross_attention/kv")
    attention_module: ClassVar[str] = "cross_attention"
    uses_kernels_once: ClassVar[bool] = False

    def make_embeddings(self, features_width: int) -> None:
        """Make the embedding tables, in `setup`; `features_width` is the width that the output layer reads."""
        width, tie = self.config.emb_dim, getattr(self.config, "tie_embeddings", "none")
        table = functools.partial(Embedding, width=width, mesh=self.mesh, is_scaled=getattr(self.config, "scale_embeddings", True))
        if tie == "all":
            self.shared_embedding = table(self.target_size, is_output=True)
            self.embed_source = self.embed_target = self.shared_embedding
        else:
            self.source_embedding = table(self.source_size)
            self.target_embedding = table(self.target_size, is_output=tie != "none")
            self.embed_source, self.embed_target = self.source_embedding, self.target_embedding
        if tie == "none":
            self.output_embedding = Embedding(self.target_size, features_width, is_output=True, mesh=self.mesh)
        self.embed_output = self.output_embedding if tie == "none" else self.embed_target
        if _has_bias(self):
            self.output_bias_V = self.param("output_bias", declare(nn.initializers.zeros, "V"), (self.target_size,))
        self.dtype = jnp.dtype(getattr(self.config, "dtype", "float32"))
        if self.task.vectors:
            self.regions = Regions(self.task, self.states_width, self.dtype, self.mesh)

    @property
    def states_width(self) -> int:
        """Width of the encoder's states."""
        return self.config.emb_dim

    def read_regions(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return a vector for each region of each row's picture, (B, S, D), and int32 (B, S), 0 in rows without a picture."""
        x_BSD = self.regions(batch["encoder_input_vectors"])
        has_picture_B1 = (batch["encoder_input_tokens"][:, :1] > 0).astype(jnp.int32)
        return x_BSD, jnp.broadcast_to(has_picture_B1, x_BSD.shape[:2])

    def output_table(self) -> jax.Array:
        """Return the output layer's matrix (V, D)."""
        return self.embed_output.table

    def output_bias(self) -> jax.Array | None:
        """Return what is added to the logits, (V,); None: nothing is."""
        return self.output_bias_V if _has_bias(self) else None

    def logits(self, features: jax.Array) -> jax.Array:
        """Return float32 logits over the padded vocabulary; ids that are no tokens have minus infinity."""
        table_VD = self.output_table().astype(features.dtype)
        logits = constrain(project(features, table_VD), "BTV" if features.ndim == 3 else "BV", self.mesh)
        if (bias_V := self.output_bias()) is not None:
            logits += bias_V
        return jnp.where(jnp.arange(self.target_size) < self.target_vocab, logits, -jnp.inf)

    def decode(self, memory: Any, batch: Batch, noise: DropoutKey | None = None) -> jax.Array:
        """Return logits of every target position, (B, T, V); for modules that have `features`."""
        return self.logits(self.features(memory, batch, noise))


def project(features: jax.Array, table_VD: Any) -> jax.Array:
    """Return features (..., D) times the output layer's matrix, or its `Int8`: (..., V), at least float32."""
    dtype = at_least_float32(features.dtype)
    if isinstance(table_VD, Int8):
        return features.astype(dtype) @ table_VD.T
    return jnp.einsum("...D,VD->...V", features, table_VD, preferred_element_type=dtype)


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
        needed = ("features", "output_table", *("output_bias" for _ in range(_has_bias(module))))
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

    def with_target_vocabulary(self, size: int) -> Seq2Seq:
        """Return the same model for a target vocabulary of another size; the source vocabulary stays."""
        assert self._resize is not None  # `build_model` gives it
        return self._resize(size).on(self.mesh)

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
        box = lambda x: isinstance(x, nn.Partitioned)  # noqa: E731
        multiplied = jax.tree.map(lambda x: isinstance(x, Multiplied), self._boxed_shapes, is_leaf=box)
        if weights == "bfloat16":
            return jax.tree.map(lambda x, is_weight: x.astype(jnp.bfloat16) if is_weight else x, params, multiplied)
        return jax.jit(lambda params: quantised(params, self.axes, multiplied))(params)

    def cast_kernels(self, params: Any) -> Any:
        """Return parameters, or some of them, with the kernels of layers that multiply by each once in the type of that product.

        These are fewer bytes to send. Gradients are the same. Others would be sums in fewer bits: those of tables, and of kernels that
        recurrent layers use at each step.
        """
        if not (_is_ours(self.module) and self.module.uses_kernels_once):  # type: ignore[attr-defined]
            return params
        dtype = self.module.config.dtype  # type: ignore[attr-defined]
        kernels = {path_name(path) for path, axes in jax.tree_util.tree_leaves_with_path(self.axes) if is_kernel(path, axes)}

        def cast(path: Any, x: jax.Array) -> jax.Array:
            name = path_name(path)
            return x.astype(dtype) if name.startswith(("encoder/", "decoder/")) and name in kernels else x

        return jax.tree_util.tree_map_with_path(cast, params)

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
        """Return what is added to the logits, (V,); None: nothing is."""
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


def _has_bias(module: nn.Module) -> bool:
    return getattr(getattr(module, "config", None), "output_bias", False)


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
