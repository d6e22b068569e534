"""The settings of our own models: `Experiment.model` is a `Transformer`, a `Recurrent` or a dataclass of the user's own."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxnmt.config.fields import NonNegative, Positive, Rate


class Shipped:
    """What a model's dataclass says without importing JAX; a user's own has a method `build` and may have `packs`.

    Attributes:
        module: the linen module that it configures, as `package:Class`.
        packs: whether the module reads packed rows (segment ids and positions in the batch).
    """

    module: ClassVar[str]
    packs: ClassVar[bool] = False

    def build(self, source_size: int, target_size: int, target_vocab: int) -> Any:
        """Return the linen module; see `models.seq2seq.build_model`."""
        return pkgutil.resolve_name(self.module)(self, source_size, target_size, target_vocab)


@dataclass(frozen=True)
class Transformer(Shipped):
    """Vaswani et al. 2017, figure 1, with later variants."""

    module = "jaxnmt.models.transformer:TransformerModule"
    packs = True

    emb_dim: Positive[int] = 256
    """Width of embeddings and residual stream (the paper's d_model)."""
    num_heads: Positive[int] = 4
    """Attention heads."""
    head_dim: NonNegative[int] = 0
    """Width of one head; 0: emb_dim / num_heads."""
    mlp_dim: Positive[int] = 1024
    """Hidden width of the feed-forward blocks (the paper's d_ff)."""
    num_encoder_layers: Positive[int] = 3
    """Encoder layers."""
    num_decoder_layers: Positive[int] = 3
    """Decoder layers."""
    norm_order: Literal["pre", "post"] = "pre"
    """pre: normalise the input of each sublayer; post: normalise after the residual sum, as in the paper."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Kind of normalisation, with epsilon 1e-5."""
    activation: Literal["relu", "gelu", "gelu_exact", "silu", "swiglu"] = "relu"
    """Non-linearity of the feed-forward blocks. gelu: its approximation by tanh (Hendrycks and Gimpel 2016); gelu_exact: by the error
    function; silu: also called swish; swiglu: gated (Shazeer 2020)."""
    positions: Literal["sinusoidal", "fairseq", "learned", "rotary", "none"] = "sinusoidal"
    """Position encoding. fairseq: sinusoids as fairseq computes them, which M2M100 and NLLB have."""
    max_positions: NonNegative[int] = 512
    """learned: number of position embeddings. Later positions use the last one."""
    causal: bool = True
    """Mask later target tokens in the decoder. False is for demonstration: the decoder sees the answer and learns nothing useful."""
    tie_embeddings: Literal["all", "decoder", "none"] = "all"
    """all: source, target and output layer share one matrix (needs a joint vocabulary); decoder: target and output layer do; none."""
    scale_embeddings: bool = True
    """Multiply the embeddings by the square root of emb_dim (Vaswani et al. 2017, section 3.4)."""
    output_bias: bool = False
    """Add a bias to the logits, as Marian does."""
    dropout: Rate[float] = 0.1
    """Dropout on embeddings and on each sublayer's output (the paper's P_drop)."""
    attention_dropout: Rate[float] = 0.0
    """Dropout on attention weights."""
    activation_dropout: Rate[float] = 0.0
    """Dropout inside the feed-forward blocks."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the computation (mixed precision). Parameters and optimizer state stay float32."""
    scan_layers: bool = False
    """Loop over the layers in the compiled program (nn.scan) instead of unrolling them: compiles faster, runs slower on CPU."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes instead of storing: nothing; all but matrix products; whole layers."""

    @property
    def longest_input(self) -> float:
        """The number of source tokens that the model tells apart by their place."""
        return self.max_positions if self.positions == "learned" else math.inf

    def problems(self) -> Iterator[str]:
        if not self.head_dim and self.emb_dim % self.num_heads:
            yield f"model.emb_dim {self.emb_dim} is not divisible by model.num_heads {self.num_heads}; change one, or set model.head_dim"
        head_dim = self.head_dim or self.emb_dim // self.num_heads
        if self.positions == "rotary" and head_dim % 2:
            yield f"model.positions rotary rotates pairs of numbers, so the width of a head (model.head_dim) must be even, not {head_dim}"
        if self.positions in ("sinusoidal", "fairseq") and self.emb_dim % 2:
            yield f"model.positions {self.positions} needs an even model.emb_dim, not {self.emb_dim}"
        if self.positions == "learned" and self.max_positions < 1:
            yield f"model.max_positions is {self.max_positions}; it must be above 0"


@dataclass(frozen=True)
class Recurrent(Shipped):
    """An RNN encoder and decoder: Cho et al. 2014, Sutskever et al. 2014, Bahdanau et al. 2015, Luong et al. 2015.

    Batches must be in buckets (`Batching(layout="buckets")`).
    """

    module = "jaxnmt.models.recurrent:RecurrentModule"

    encoder: Literal["recurrent", "bag"] = "recurrent"
    """recurrent: an RNN; bag: the mean of the words after one feed-forward layer, without order or memory."""
    cell: Literal["rnn", "gru", "lstm", "layernorm_lstm"] = "lstm"
    """rnn: Elman 1990; gru: Cho et al. 2014, reset after the product; lstm: Hochreiter and Schmidhuber 1997 with forget gates;
    layernorm_lstm: Ba et al. 2016, equations 20-22."""
    activation: Literal["tanh", "relu"] = "tanh"
    """rnn: non-linearity."""
    emb_dim: Positive[int] = 256
    """Width of the word embeddings."""
    hidden_dim: Positive[int] = 512
    """Width of a decoder layer's state."""
    encoder_dim: NonNegative[int] = 0
    """Width of an encoder state, both directions together; 0: hidden_dim."""
    num_encoder_layers: Positive[int] = 1
    """Encoder layers."""
    num_decoder_layers: Positive[int] = 1
    """Decoder layers."""
    bidirectional: Literal["all", "first", "none"] = "all"
    """Which encoder layers read in both directions (half the width each)."""
    residual: bool = False
    """Add a layer's input to its output, from the second layer on."""
    reverse_source: bool = False
    """Read the source from the last word to the first (Sutskever et al. 2014)."""
    context: Literal["fixed", "bahdanau", "luong"] = "luong"
    """How the decoder reads the source. fixed: one vector, the encoder's last state. bahdanau: additive attention, queried by the bottom
    layer's previous state and read by every layer. luong: attention queried by the top layer's new state and read by the output layer."""
    score: Literal["dot", "general", "concat", "location"] = "general"
    """luong: the attention score (Luong et al. 2015, equations 7 and 8)."""
    window: NonNegative[int] = 0
    """luong: attend only to this many words on each side of a predicted position (local-p, equations 9 and 10); 0: to all words."""
    input_feeding: bool = True
    """luong: the next step reads the attentional vector (section 3.3). fixed: every step reads the context vector (Cho et al. 2014); False:
    only the first state depends on it (Sutskever et al. 2014). bahdanau always reads its context."""
    bridge: Literal["copy", "dense"] = "dense"
    """The decoder's first state. copy: the encoder's last state, layer by layer; dense: a dense layer on the top encoder layer's last
    state."""
    max_positions: NonNegative[int] = 128
    """score location: number of source positions that attention can reach."""
    copy: bool = False
    """Mix two ways to choose a word: from the vocabulary, or a word of the source, by its attention (pointer-generator, See et al. 2017,
    equations 8 and 9). Needs attention, and a joint vocabulary."""
    coverage: NonNegative[float] = 0.0
    """Weight of the coverage loss; above 0, additive attention (bahdanau, or luong with score concat) also reads the attention that each
    source word has had so far (See et al. 2017, equations 10 to 13). 0: neither."""
    tie_embeddings: Literal["all", "decoder", "none"] = "none"
    """all: source, target and output layer share one matrix (needs a joint vocabulary); decoder: target and output layer do; none."""
    dropout: Rate[float] = 0.2
    """Dropout on embeddings, between layers and before the output layer (Zaremba et al. 2014)."""
    variational: bool = False
    """Use the same dropout masks at every step, and on the recurrent state too (Gal and Ghahramani 2016)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the computation (mixed precision). Parameters and optimizer state stay float32."""

    def build(self, source_size: int, target_size: int, target_vocab: int) -> Any:
        module = "jaxnmt.models.copying:CopyingModule" if self.copy else self.module
        return pkgutil.resolve_name(module)(self, source_size, target_size, target_vocab)

    @property
    def reads_context(self) -> bool:
        """Whether every decoder layer and the output layer read the context: Bahdanau's, and the fixed one of Cho et al."""
        return self.context == "bahdanau" or (self.context == "fixed" and self.input_feeding)

    @property
    def feeds_back(self) -> bool:
        """Whether the next step reads the attentional vector."""
        return self.context == "luong" and self.input_feeding

    @property
    def longest_input(self) -> float:
        """The number of source tokens that attention can reach."""
        return self.max_positions if self.context == "luong" and self.score == "location" else math.inf

    def problems(self) -> Iterator[str]:
        states, named = (self.encoder_dim, "encoder_dim") if self.encoder_dim else (self.hidden_dim, "hidden_dim")
        if self.encoder == "recurrent" and self.bidirectional != "none" and states % 2:
            yield f"model.{named} {states} is odd; model.bidirectional {self.bidirectional} gives half of it to each direction"
        if self.bridge == "copy" and self.encoder == "bag":
            yield "model.bridge copy needs encoder states, and model.encoder bag has none; choose model.bridge dense"
        elif self.bridge == "copy" and self.num_encoder_layers != self.num_decoder_layers:
            layers = f"model.num_encoder_layers {self.num_encoder_layers} and model.num_decoder_layers {self.num_decoder_layers}"
            yield f"model.bridge copy needs as many encoder as decoder layers, not {layers}; choose model.bridge dense"
        same_width = {"model.bridge copy": self.bridge == "copy", "model.score dot": self.context == "luong" and self.score == "dot"}
        for setting in (name for name, chosen in same_width.items() if chosen and states != self.hidden_dim):
            yield f"{setting} needs model.encoder_dim {states} and model.hidden_dim {self.hidden_dim} to be equal"
        if self.context == "bahdanau" and not self.input_feeding:
            yield "model.context bahdanau always reads its context; model.input_feeding False is for fixed and luong"
        if self.window and self.context != "luong":
            yield f"model.window {self.window} is for model.context luong, not {self.context}"
        if self.copy and self.context == "fixed":
            yield "model.copy needs attention over the source, and model.context fixed has no attention: choose bahdanau or luong"
        if self.copy and self.window:
            yield f"model.copy needs attention that sums to 1, and that of model.window {self.window} does not: set it to 0"
        if self.coverage and not (self.context == "bahdanau" or (self.context == "luong" and self.score == "concat")):
            yield f"model.coverage {self.coverage:g} needs additive attention: model.context bahdanau, or luong with model.score concat"
        if self.tie_embeddings != "none" and not self.reads_context and self.emb_dim != self.hidden_dim:
            widths = f"model.emb_dim {self.emb_dim} and model.hidden_dim {self.hidden_dim}"
            yield f"model.tie_embeddings {self.tie_embeddings} needs {widths} to be equal with model.context {self.context}"
