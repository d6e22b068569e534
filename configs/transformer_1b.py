"""A Transformer of a billion parameters for a pod slice: many encoder layers, few decoder layers (Kasai et al. 2021), scanned.

Command: jaxnmt train transformer_1b, on 16 accelerators or a multiple (mesh.fsdp)
Score: none; compiled, not run (`jaxnmt plan transformer_1b --on v5p:4x4x8`; docs/scaling.md)
"""

from jaxnmt.config import Batching, Checkpoints, Data, Experiment, Mesh, Optimizer, Schedule, Tokenizer, Training, Transformer, Validation


def config() -> Experiment:
    return Experiment(
        data=Data(
            train=("wmt19_translate/en-de:train",),
            validation=("wmt19_translate/en-de:validation",),
            test=("wmt14_translate/en-de:test",),
            max_length=256,
        ),
        tokenizer=Tokenizer(kind="unigram", vocab_size=32_000),
        batching=Batching(tokens=524_288, row_length=512),
        model=Transformer(
            emb_dim=2048,
            num_heads=16,
            mlp_dim=8192,
            num_encoder_layers=12,
            num_decoder_layers=6,
            norm="rmsnorm",
            positions="rotary",
            dropout=0.1,
            dtype="bfloat16",
            scan_layers=True,
            remat="dots",
        ),
        optimizer=Optimizer(name="adamw", weight_decay=0.01, clip_norm=1.0),
        schedule=Schedule(name="cosine", learning_rate=5e-4, warmup_steps=4000, final_ratio=0.1),
        training=Training(steps=100_000),
        validation=Validation(every=5000),
        checkpoints=Checkpoints(every=2500, keep_latest=5),
        mesh=Mesh(fsdp=16),
    )
