"""Every rung at equal parameters (5.1 million, within a twentieth) and equal tokens, Multi30k English to German: what each step adds.

Files: docs/benchmarks.md has the commands that make them; MULTI30K names their folder.
Command: MULTI30K=folder jaxnmt ablate ladder
Time, score: not yet measured
"""

import os

from jaxnmt.analysis.ablations.study import Budget, Study
from jaxnmt.config import Batching, Recurrent, Transformer, replace
from jaxnmt.config_files import load

EPOCHS = 8


def study() -> Study:
    folder = os.environ.get("MULTI30K", "multi30k")
    files = {part: tuple(f"{folder}/{name}.{side}" for side in ("en", "de")) for part, name in FILES.items()}
    base = replace(load("gru_bahdanau"), **{f"data.{part}": words for part, words in files.items()})
    one_vector = Recurrent(context="fixed", bidirectional="none", emb_dim=256, tie_embeddings="all")
    models = {
        "gru_bahdanau": Recurrent(cell="gru", context="bahdanau", emb_dim=256, hidden_dim=384, tie_embeddings="all"),
        "lstm_bahdanau": Recurrent(cell="lstm", context="bahdanau", emb_dim=256, hidden_dim=336, tie_embeddings="all"),
        "lstm_fixed": replace(one_vector, cell="lstm", hidden_dim=336, reverse_source=True),
        "rnn_fixed": replace(one_vector, cell="rnn", hidden_dim=640),
        "bag": replace(one_vector, encoder="bag", cell="rnn", hidden_dim=704),
        "transformer": Transformer(emb_dim=256, num_heads=4, mlp_dim=512, num_encoder_layers=2, num_decoder_layers=2),
    }
    variants = {name: replace(base, model=replace(model, dropout=0.3)) for name, model in models.items()}
    variants["transformer"] = replace(variants["transformer"], batching=Batching(tokens=4096, row_length=64))
    return Study(variants=variants, budget=Budget(EPOCHS, "epochs"), learning_rates=(5e-4, 1e-3, 2e-3, 4e-3), tuning=Budget(2, "epochs"))


FILES = {"train": "train", "validation": "val", "test": "test2016"}
