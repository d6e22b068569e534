"""A user's own model, and ways for it to go wrong, each of which a law must notice."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from jaxnmt.config import Batching, Experiment


@dataclasses.dataclass(frozen=True)
class Average:
    """The means of the source's words and of the target's words so far, through one layer."""

    width: int = 16
    dropout: float = 0.2
    fault: str = ""

    def build(self, source_size, target_size, target_vocab):
        return AverageModule(self, source_size, target_size, target_vocab)


class AverageModule(nn.Module):
    config: Average
    source_size: int
    target_size: int
    target_vocab: int

    def setup(self):
        self.words = nn.Embed(self.source_size, self.config.width)
        self.positions = nn.Embed(16, self.config.width)  # or the order would not be seen
        self.outputs = nn.Embed(self.target_size, self.config.width)
        self.hidden = nn.Dense(64)
        self.logits = nn.Dense(self.target_size)

    def encode(self, batch, noise=None):
        tokens = batch["encoder_input_tokens"]
        seen = jnp.ones_like(tokens) if self.config.fault == "reads padding" else tokens > 0
        x = jnp.tanh(self.words(tokens) * (1 + self.positions(jnp.arange(tokens.shape[1]))))
        if noise is not None and self.config.dropout:
            keep = noise.fold_in("source").bits(x.shape) >= jnp.uint32(int(self.config.dropout * 2**32))
            rows = x.shape[0] if self.config.fault == "counts rows" else 1
            x = jnp.where(keep, x, 0) / (1 - self.config.dropout) / rows
        mean = (x * seen[..., None]).sum(1) / jnp.maximum(seen.sum(1), 1)[:, None]
        if self.config.fault == "mixes sentences":
            mean = mean + 0.1 * mean.mean(0)
        if self.config.fault == "divides by the width":
            mean = mean * 8 / tokens.shape[1]
        return mean

    def _out(self, memory, mean):
        logits = self.logits(nn.relu(self.hidden(jnp.concatenate([memory, mean], -1))))
        return jnp.where(jnp.arange(self.target_size) < self.target_vocab, logits, -jnp.inf)

    def decode(self, memory, batch, noise=None):
        tokens = batch["decoder_input_tokens"]
        x = self.outputs(tokens) * (1 + self.positions(jnp.arange(tokens.shape[1])))
        mean = x.cumsum(1) / (1 + jnp.arange(tokens.shape[1]))[:, None]
        if self.config.fault == "looks ahead":
            mean = mean + 0.1 * x.mean(1, keepdims=True)
        if self.config.fault == "knows the length":
            mean = mean + 0.1 * (tokens > 0).sum(1)[:, None, None]
        if self.config.fault == "copies the answer":
            mean = mean + 0.1 * self.outputs(batch.get("decoder_target_tokens", tokens))
        if self.config.fault == "forgets the source":
            memory = jnp.zeros_like(memory)
        return self._out(jnp.broadcast_to(memory[:, None], (*tokens.shape, memory.shape[-1])), mean)

    def start(self, memory, max_length):
        return {"sum": jnp.zeros_like(memory), "read": jnp.zeros(len(memory), jnp.int32), "word": jnp.zeros(len(memory), jnp.int32)}

    def step(self, memory, carry, token_B):
        if self.config.fault == "raises":
            raise NotImplementedError("no step yet")
        read = carry["read"] + (self.config.fault != "does not count")
        place = jnp.zeros_like(read) if self.config.fault == "does not count" else carry["read"]
        total = carry["sum"] + self.outputs(token_B) * (1 + self.positions(place))
        beams = len(token_B) // len(memory)
        mean = total / read[:, None] if self.config.fault != "does not count" else total
        if self.config.fault == "mixes beams":  # the k-th of each sentence reads the next sentence's vector
            memory = jnp.tile(memory, (beams, 1))
        else:
            memory = jnp.repeat(memory, beams, 0)
        return self._out(memory, mean), {"sum": total, "read": read, "word": token_B}


def config():
    return Experiment(model=Average(), batching=Batching(layout="buckets"))
