"""A language model: an LSTM (Sundermeyer et al. 2012) that predicts each word from those before it.

Command: jaxnmt train lm_lstm --data.train mono.txt
Time, score: depend on the files
"""

from jaxnmt.config import Batching, Data, Decoding, Experiment, Language, Recurrent, Schedule, Tokenizer, Training, Validation


def config() -> Experiment:
    return Experiment(
        task=Language(),
        data=Data(max_length=128),
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(layout="buckets", tokens=4096, max_shapes=4),
        model=Recurrent(cell="lstm", context="fixed", input_feeding=False, tie_embeddings="all", emb_dim=256, hidden_dim=256),
        schedule=Schedule(learning_rate=3e-3, warmup_steps=1000),
        training=Training(steps=10_000, label_smoothing=0.0),
        validation=Validation(metric="loss"),
        decoding=Decoding(max_length_extra=60),
    )
