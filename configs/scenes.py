"""Captions of the embedded scenes, by a Transformer that attends to regions of the picture.

Command: jaxnmt train scenes
Time, score: 6 minutes on two cores; 98.9 % of the test's captions exact (docs/captions.md)
"""

from jaxnmt.config import Batching, Captioning, Data, Decoding, Experiment, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        task=Captioning(),
        data=Data(train=("scenes/en:train",), validation=("scenes/en:validation",), test=("scenes/en:test",), max_length=24),
        tokenizer=Tokenizer(kind="words", vocab_size=0, joiner=""),
        batching=Batching(layout="buckets", tokens=1024, max_shapes=1),
        model=Transformer(emb_dim=96, mlp_dim=192, num_heads=4, num_encoder_layers=2, num_decoder_layers=2, dropout=0.0),
        schedule=Schedule(name="cosine", learning_rate=2e-3, warmup_steps=200),
        training=Training(steps=2500, label_smoothing=0.0),
        validation=Validation(every=500),
        decoding=Decoding(beam_size=4),
    )
