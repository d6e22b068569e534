"""The models that jaxnmt brings, as settings: `Transformer | Recurrent` of `Experiment.model`."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


class Shipped:
    """What a model's dataclass tells without importing JAX; a user's own has a method `build` and may have `packs`.

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
    """Vaswani et al. 2017, figure 1, and later variants."""

    module = "jaxnmt.models.transformer:TransformerModule"
    packs = True

    emb_dim: int = 256
    """Width of embeddings and residual stream (the paper's d_model)."""
    num_heads: int = 4
    """Attention heads."""
    head_dim: int = 0
    """Width of one head; 0: emb_dim / num_heads."""
    mlp_dim: int = 1024
    """Hidden width of the feed-forward blocks (the paper's d_ff)."""
    num_encoder_layers: int = 3
    """Encoder blocks."""
    num_decoder_layers: int = 3
    """Decoder blocks."""
    norm_order: Literal["pre", "post"] = "pre"
    """pre: normalise the input of each sublayer; post: normalise after the residual sum, as in the paper."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Kind of normalisation, epsilon 1e-5."""
    activation: Literal["relu", "gelu", "silu", "swiglu"] = "relu"
    """Non-linearity of the feed-forward blocks."""
    positions: Literal["sinusoidal", "learned", "rotary", "none"] = "sinusoidal"
    """How a token's place is told to the model."""
    max_positions: int = 512
    """learned: how many positions have a vector; later ones share the last."""
    causal: bool = True
    """Hide later target words from the decoder. False shows why: it reads the answer, and learns nothing that helps to translate."""
    tie_embeddings: Literal["all", "decoder", "none"] = "all"
    """all: source, target and output share one matrix (joint vocabulary); decoder: target and output; none."""
    dropout: float = 0.1
    """Dropout on embeddings and on each sublayer's output (the paper's P_drop)."""
    attention_dropout: float = 0.0
    """Dropout on attention weights."""
    activation_dropout: float = 0.0
    """Dropout inside the feed-forward blocks."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and optimizer stay float32."""
    scan_layers: bool = False
    """Loop over the layers in the compiled program instead of unrolling them: compiles faster, runs slower on CPU."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again instead of keeping: nothing; all but matrix products; whole layers."""


@dataclass(frozen=True)
class Recurrent(Shipped):
    """An encoder and a decoder that read word after word: Cho et al. 2014, Sutskever et al. 2014, Bahdanau et al. 2015, Luong et al. 2015.

    Batches must be in buckets (`Batching(layout="buckets")`).
    """

    module = "jaxnmt.models.recurrent:RecurrentModule"

    encoder: Literal["recurrent", "bag"] = "recurrent"
    """bag: each word through one feed-forward layer, their mean as the vector: no order, no memory."""
    cell: Literal["rnn", "gru", "lstm", "layernorm_lstm"] = "lstm"
    """rnn: Elman 1990; gru: Cho et al. 2014, reset after the product; lstm: Hochreiter and Schmidhuber 1997 with forget gates;
    layernorm_lstm: Ba et al. 2016, equations 20-22."""
    activation: Literal["tanh", "relu"] = "tanh"
    """rnn: its non-linearity."""
    emb_dim: int = 256
    """Width of the word vectors."""
    hidden_dim: int = 512
    """Width of a decoder layer's state."""
    encoder_dim: int = 0
    """Width of an encoder state, both directions together; 0: hidden_dim."""
    num_encoder_layers: int = 1
    """Encoder layers."""
    num_decoder_layers: int = 1
    """Decoder layers."""
    bidirectional: Literal["all", "first", "none"] = "all"
    """Which encoder layers read in both directions (half the width each)."""
    residual: bool = False
    """Add a layer's input to its output, from the second layer on."""
    reverse_source: bool = False
    """Read the source's words last to first (Sutskever et al. 2014)."""
    context: Literal["fixed", "bahdanau", "luong"] = "luong"
    """What the decoder knows of the source. fixed: one vector, the encoder's last state. bahdanau: additive attention with the bottom
    layer's last state, read by every layer. luong: attention with the top layer's new state, joined to it for the output."""
    score: Literal["dot", "general", "concat", "location"] = "general"
    """luong: how a state is compared with the source's (Luong et al. 2015, equations 7 and 8)."""
    window: int = 0
    """luong: look only so many words to each side of a predicted position (local-p, equations 9 and 10); 0: everywhere."""
    input_feeding: bool = True
    """luong: the next step reads what the attention gave (section 3.3). fixed: every step reads the one vector (Cho et al. 2014) instead of
    starting from it alone (Sutskever et al. 2014). bahdanau always reads its context."""
    bridge: Literal["copy", "dense"] = "dense"
    """The decoder's first state. copy: the encoder's last, layer by layer; dense: a learnt layer from the top encoder layer's last."""
    max_positions: int = 128
    """score location: source positions that can be looked at."""
    tie_embeddings: Literal["all", "decoder", "none"] = "none"
    """all: source, target and output share one matrix (joint vocabulary); decoder: target and output; none."""
    dropout: float = 0.2
    """Dropout on embeddings, between layers and before the output layer (Zaremba et al. 2014)."""
    variational: bool = False
    """Dropout masks that stay the same from word to word, and on the recurrent state too (Gal and Ghahramani 2016)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and optimizer stay float32."""

    @property
    def reads_context(self) -> bool:
        """Whether every decoder layer, and the output, reads the context: Bahdanau's, and the fixed one of Cho et al."""
        return self.context == "bahdanau" or (self.context == "fixed" and self.input_feeding)

    @property
    def feeds_back(self) -> bool:
        """Whether the next step reads what the attention gave."""
        return self.context == "luong" and self.input_feeding
