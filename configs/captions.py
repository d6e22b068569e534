"""Captions of your own pictures, `pictures.tsv` with picture TAB caption on each line, by a Transformer that attends to regions.

Command: jaxnmt train captions --data.train pictures.tsv
"""

from jaxnmt.config import Batching, Captioning, Data, Decoding, Experiment, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        task=Captioning(size=96, patch=16),
        data=Data(max_length=40),
        tokenizer=Tokenizer(vocab_size=4000),
        batching=Batching(layout="buckets", tokens=2048, max_shapes=2),
        model=Transformer(emb_dim=192, mlp_dim=384, num_heads=4, num_encoder_layers=3, num_decoder_layers=3, dropout=0.1),
        schedule=Schedule(learning_rate=1e-3, warmup_steps=400),
        training=Training(steps=10_000),
        validation=Validation(every=1000),
        decoding=Decoding(beam_size=4, max_length_extra=40),
    )
