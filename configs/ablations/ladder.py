"""Five rungs at equal parameters (1.7 million, within a twentieth) and equal tokens, Multi30k English to German: what each step adds.

Command: jaxnmt ablate ladder
Time: 140 minutes of training and 28 of rates tried, each on one core of two
Score: BLEU on test2016, means of three seeds: bag 19.1, rnn_fixed 9.9, lstm_fixed 22.3, gru_bahdanau 33.0, transformer 32.8
"""

from jaxnmt import Batching, Budget, Recurrent, Schedule, Study, Tokenizer, Training, Transformer, Validation, load_config, replace


def study() -> Study:
    base = replace(
        load_config("gru_bahdanau"),
        data=load_config("multi30k").data,
        tokenizer=Tokenizer(kind="unigram", vocab_size=4000),
        batching=Batching(layout="buckets", tokens=2048),
        schedule=Schedule(name="cosine", learning_rate=2e-3, warmup_steps=200),
        training=Training(),
        validation=Validation(every=250),
    )
    one_vector = Recurrent(context="fixed", bidirectional="none", emb_dim=128, tie_embeddings="all")
    models = {
        "gru_bahdanau": Recurrent(cell="gru", context="bahdanau", emb_dim=128, hidden_dim=272, tie_embeddings="all"),
        "lstm_fixed": replace(one_vector, cell="lstm", hidden_dim=240, reverse_source=True),
        "rnn_fixed": replace(one_vector, cell="rnn", hidden_dim=448),
        "bag": replace(one_vector, encoder="bag", cell="rnn", hidden_dim=512),
        "transformer": Transformer(emb_dim=128, num_heads=4, mlp_dim=384, num_encoder_layers=3, num_decoder_layers=3),
    }
    variants = {name: replace(base, model=replace(model, dropout=0.1)) for name, model in models.items()}
    variants["transformer"] = replace(variants["transformer"], batching=Batching(tokens=2048, row_length=64))
    return Study(variants=variants, budget=Budget(5, "epochs"), learning_rates=(1e-3, 2e-3, 4e-3, 8e-3), tuning=Budget(1, "epochs"))
