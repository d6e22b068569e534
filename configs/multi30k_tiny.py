"""The published Transformer-Tiny on Multi30k English to German, text already lowercased, tokenised and split with `@@ `.

Files: the publishers' tokenised text, split by a joint BPE of 10,000 merges; docs/benchmarks.md has the commands.
Command: jaxnmt train multi30k_tiny --data.train train.en train.de --data.validation val.en val.de --data.test test2016.en test2016.de
         jaxnmt evaluate runs/multi30k_tiny
Score: BLEU-4 41.02 on test2016 with fairseq (published, not run); ours 35.39, 40.34, 40.73 and 40.72 after 30, 60, 90 and 240
         minutes of training on two cores, stopped and resumed; one run, its minutes counted as docs/benchmarks.md says
"""

from jaxnmt.config import Batching, Checkpoints, Data, Experiment, Optimizer, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(source_language="en", target_language="de", max_length=64),
        tokenizer=Tokenizer(kind="words", vocab_size=0),
        batching=Batching(tokens=4096, row_length=64),
        model=Transformer(
            emb_dim=128, num_heads=4, mlp_dim=256, num_encoder_layers=4, num_decoder_layers=4, norm_order="post", dropout=0.3
        ),
        optimizer=Optimizer(beta2=0.98, epsilon=1e-8),
        schedule=Schedule(learning_rate=3.5e-3, warmup_steps=2000),
        training=Training(steps=40_000, ema_decay=0.999),
        validation=Validation(every=500),
        checkpoints=Checkpoints(every=500),
    )
