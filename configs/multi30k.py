"""Multi30k (image captions) English to German from raw text, SentencePiece pieces.

Command: jaxnmt train multi30k
         jaxnmt train multi30k --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/multi30k
Time, score: BLEU 38.35 on test2016 (sacreBLEU 13a, cased, beam 5; 37.3 on validation, greedy) with the checkpoint of step 4,000,
44 minutes after the start on two cores that did other work too; one run, settings not tuned. The config stops after 90 minutes.
"""

from jaxnmt.config import Batching, Checkpoints, Data, Experiment, Optimizer, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(train=("multi30k/en-de:train",), validation=("multi30k/en-de:validation",), test=("multi30k/en-de:test",), max_length=64),
        tokenizer=Tokenizer(kind="unigram", vocab_size=6000),
        batching=Batching(tokens=4096, row_length=64),
        model=Transformer(
            emb_dim=128, num_heads=4, mlp_dim=256, num_encoder_layers=4, num_decoder_layers=4, norm_order="post", dropout=0.3
        ),
        optimizer=Optimizer(beta2=0.98, epsilon=1e-8),
        schedule=Schedule(learning_rate=3.5e-3, warmup_steps=2000),
        training=Training(steps=20_000, ema_decay=0.999, max_minutes=90),
        validation=Validation(every=500),
        checkpoints=Checkpoints(every=500),
    )
