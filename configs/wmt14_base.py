"""WMT14 English to German, the Transformer base of Vaswani et al. 2017: for eight accelerators.

Command: jaxnmt train wmt14_base
Score: 27.3 BLEU on newstest2014, tokenised and compound-split (published, not run)
"""

from jaxnmt.config import Batching, Checkpoints, Data, Experiment, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(
            train=("wmt14_translate/en-de:train",),
            validation=("wmt14_translate/en-de:validation",),
            test=("wmt14_translate/en-de:test",),
            max_length=256,
        ),
        tokenizer=Tokenizer(kind="bpe", vocab_size=37_000),
        batching=Batching(tokens=32_768, row_length=256),
        model=Transformer(
            emb_dim=512, num_heads=8, mlp_dim=2048, num_encoder_layers=6, num_decoder_layers=6, norm_order="post", dtype="bfloat16"
        ),
        schedule=Schedule(learning_rate=7e-4, warmup_steps=4000),
        training=Training(steps=100_000),
        validation=Validation(every=2500),
        checkpoints=Checkpoints(every=2500, keep_latest=5),
    )
