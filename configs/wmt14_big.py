"""WMT14 English to German, the Transformer big of Vaswani et al. 2017: for eight accelerators or more.

Command: jaxnmt train wmt14_big
Score: 28.4 BLEU on newstest2014, tokenised and compound-split (published, not run)
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
            emb_dim=1024,
            num_heads=16,
            mlp_dim=4096,
            num_encoder_layers=6,
            num_decoder_layers=6,
            norm_order="post",
            dropout=0.3,
            dtype="bfloat16",
        ),
        schedule=Schedule(learning_rate=5e-4, warmup_steps=4000),
        training=Training(steps=300_000),
        validation=Validation(every=5000),
        checkpoints=Checkpoints(every=5000, keep_latest=20),
    )
