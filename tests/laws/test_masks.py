"""A later target token changes no earlier prediction, padding none, a packed neighbour none: by exact zeros of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

VARIANTS = tiny.VARIANTS | {"scanned": tiny.SCANNED}


def influence(config, batch):
    """-> (B, T, S) and (B, T, T): how much each prediction depends on each source and target input, a sum of absolute gradients.

    Embeddings are perturbed where tokens are read: the table's row of a token is shared, its place is not.
    """
    model = tiny.model_of(config)
    params = tiny.params_of(model)
    source, target = (np.asarray(batch[f"{side}_input_tokens"]) for side in ("encoder", "decoder"))
    shapes = [(*x.shape, config.emb_dim) for x in (source, target)]

    def logits(d_source, d_target):
        return with_nudges(model, params, tiny.as_arrays(batch), d_source, d_target)

    length = target.shape[1]
    direction = jax.random.normal(jax.random.key(1), (tiny.TARGET_VOCAB,))

    def one(t):
        def at(d_source, d_target):  # summed over the batch: rows never meet, which the test below shows of its own accord
            return (logits(d_source, d_target)[:, t, : tiny.TARGET_VOCAB] @ direction).sum()

        d_source, d_target = jax.grad(at, argnums=(0, 1))(*(jnp.zeros(shape) for shape in shapes))
        return jnp.abs(d_source).sum(-1), jnp.abs(d_target).sum(-1)

    by_source_TBS, by_target_TBT = jax.jit(jax.vmap(one))(jnp.arange(length))
    return np.moveaxis(by_source_TBS, 0, 1), np.moveaxis(by_target_TBT, 0, 1)


def with_nudges(model, params, batch, d_source, d_target):
    """Logits when the embedding of each place is moved a little: the embedding layers are called in order, source then target."""
    import flax.linen as nn

    nudges = [d_source, d_target]

    def nudge(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if type(context.module).__name__ == "Embedding" and context.method_name == "__call__":
            out = out + nudges.pop(0)
        return out

    with nn.intercept_methods(nudge):
        logits = model.decode(params, model.encode(params, batch), batch)
    assert not nudges
    return logits


@pytest.mark.parametrize("name", VARIANTS)
def test_no_prediction_depends_on_later_targets_or_on_padding(name):
    batch = tiny.batch_of(tiny.random_pairs(3), [[0], [1], [2], []], source=9, target=8)
    by_source, by_target = influence(VARIANTS[name], batch)
    real_BT, real_BS = batch["decoder_loss_weights"] > 0, batch["encoder_input_tokens"] > 0
    later = np.triu(np.ones((8, 8), bool), 1)
    assert (by_target[:, later] == 0).all()
    assert (by_source[np.broadcast_to(~real_BS[:, None], by_source.shape) & real_BT[:, :, None]] == 0).all()
    wanted_T = np.tril(np.ones((8, 8), bool)) & real_BT[:, :, None] & real_BT[:, None, :]
    assert (by_target[wanted_T] > 0).all()  # or the zeros would say nothing
    assert (by_source[real_BT[:, :, None] & real_BS[:, None, :]] > 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_pairs_that_share_a_row_do_not_meet(name):
    batch = tiny.batch_of(tiny.random_pairs(5), [[0, 3, 1], [4, 2]], source=24, target=24, packed=True)
    by_source, by_target = influence(VARIANTS[name], batch)
    target, source = batch["decoder_segment_ids"], batch["encoder_segment_ids"]
    real = target[:, :, None] > 0
    same_T, same_S = (real & (target[:, :, None] == other[:, None, :]) for other in (target, source))
    assert (by_target[real & ~same_T] == 0).all() and (by_source[real & ~same_S] == 0).all()
    assert (by_target[same_T & np.tril(np.ones((24, 24), bool))] > 0).all() and (by_source[same_S] > 0).all()
