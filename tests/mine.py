"""A small model of a user's own, as the text of a config file."""

from pathlib import Path

CONFIG = '''"""The means of the words, through one layer, with parameters of one dtype."""
import dataclasses
import flax.linen as nn
import jax.numpy as jnp
from jaxnmt.config import *

@dataclasses.dataclass(frozen=True)
class Mine:
    width: int = 16

    def build(self, source_size, target_size, target_vocab):
        return Module(self.width, source_size, target_size, target_vocab)

class Module(nn.Module):
    width: int
    source_size: int
    target_size: int
    target_vocab: int

    def setup(self):
        of = {"param_dtype": jnp.DTYPE}
        self.words, self.outputs = nn.Embed(self.source_size, self.width, **of), nn.Embed(self.target_size, self.width, **of)
        self.last = nn.Dense(self.target_size, **of)

    def encode(self, batch, noise=None):
        tokens = batch["encoder_input_tokens"]
        return (self.words(tokens) * (tokens > 0)[..., None]).sum(1)

    def decode(self, memory, batch, noise=None):
        return self.scores(memory[:, None] + self.outputs(batch["decoder_input_tokens"]))

    def scores(self, x):
        logits = self.last(x).astype(jnp.float32)
        return jnp.where(jnp.arange(self.target_size) < self.target_vocab, logits, -jnp.inf)

    def start(self, memory, max_length):
        return memory

    def step(self, memory, carry, token):
        return self.scores(jnp.repeat(memory, len(token) // len(memory), 0) + self.outputs(token)), carry

def config():
    return Experiment(
        data=Data(max_length=8, held_out=10, workers=1), tokenizer=Tokenizer(kind="words", vocab_size=0), model=Mine(),
        batching=Batching(layout="buckets", tokens=128, max_shapes=1),
        schedule=Schedule(name="constant", learning_rate=1e-2, warmup_steps=1),
        training=Training(steps=12, ema_decay=0.5), optimizer=Optimizer(clip_norm=1.0), validation=Validation(every=6, metric="loss"),
        decoding=Decoding(beam_size=2, max_length_extra=2), logging=Logging(every=2, tensorboard=False),
    )
'''


def write(folder: Path, dtype: str = "float32") -> Path:
    """The config file `mine.py`, whose parameters have a dtype; its command names the text."""
    path = folder / "mine.py"
    path.write_text(CONFIG.replace("DTYPE", dtype))
    return path
