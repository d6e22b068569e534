"""One line for a text of up to 120 words: a small Transformer that summarises, for your own file of `text TAB summary`.

Command: jaxnmt train summary_transformer --data.train train.tsv --data.validation val.tsv --data.test test.tsv
         jaxnmt compare runs/summary_transformer --baselines lead extractive --metrics rouge1 rouge2 rougeL bleu
Time, score: depend on the file
"""

from jaxnmt.config import Batching, Cleaning, Data, Decoding, Experiment, Optimizer, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(max_length=224, cleaning=Cleaning(max_ratio=200.0)),  # a text is often twenty times as long as its summary
        tokenizer=Tokenizer(vocab_size=8000),
        batching=Batching(layout="buckets", tokens=1024),  # packed rows are as long on both sides, and summaries would fill a tenth
        model=Transformer(mlp_dim=512, dropout=0.2),
        optimizer=Optimizer(clip_norm=1.0),
        schedule=Schedule(name="cosine", learning_rate=1e-3, warmup_steps=500),
        training=Training(steps=6000),
        validation=Validation(every=500),
        decoding=Decoding(max_length_ratio=0.0, max_length_extra=32),  # the length of a summary does not grow with the text's
    )
