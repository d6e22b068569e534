"""Topics of texts: a Transformer encoder, the mean of its states, and one label.

Command: jaxnmt train topics --data.train texts.tsv (text TAB label)
Time, score: depend on the files

Another pooling or other targets: --task.pooling attention, --task.labels several. Another encoder, in a file of your own:
`replace(load_config("topics"), model=Recurrent(cell="lstm", context="fixed"))`, or `Recurrent(encoder="bag", context="fixed", cell="rnn")`
(docs/classification.md).
"""

from jaxnmt.config import Batching, Classification, Data, Experiment, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        task=Classification(),
        data=Data(max_length=256),
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(layout="buckets", tokens=8192, max_shapes=4),
        model=Transformer(emb_dim=128, mlp_dim=512, num_encoder_layers=2, dropout=0.2),
        schedule=Schedule(learning_rate=1e-3, warmup_steps=200),
        training=Training(steps=2000),
        validation=Validation(every=200, metric="accuracy"),
    )
