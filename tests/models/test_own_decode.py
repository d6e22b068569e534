"""A module that takes embeddings and output layer from us and decodes in its own way needs no `features`."""

import jax.numpy as jnp
import tiny

from jaxnmt.models.encoder_decoder import EncoderDecoder
from jaxnmt.models.recurrent import RecurrentModule
from jaxnmt.models.seq2seq import Seq2Seq
from jaxnmt.training.loss import batch_loss


class Even(EncoderDecoder):
    """Finds every token equally likely."""

    def encode(self, batch, noise=None):
        return batch["encoder_input_tokens"]

    def decode(self, memory, batch, noise=None):
        return jnp.zeros((*batch["decoder_input_tokens"].shape, self.target_vocab))


def test_its_loss_is_that_of_its_logits():
    model = Seq2Seq(Even(None, 8, 8, 5), 5)
    batch = tiny.as_arrays(tiny.batch_of([([4], [4, 4])], [[0]], 4, 4))
    sums = batch_loss(model, {}, batch, None, 0.0)
    assert float(sums.loss) == float(sums.nll) and abs(float(sums.loss) - 3 * jnp.log(5.0)) < 1e-5
    assert not model.has_features and Seq2Seq(RecurrentModule(None, 8, 8, 5), 5).has_features
