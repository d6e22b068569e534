"""Deep and narrow, or shallow and wide, at about equal parameters (Vaswani et al. 2017, table 3, rows C), on the embedded corpus.

Command: jaxnmt ablate depth_width
Time, score: not measured
"""

from jaxnmt import Budget, Study, load_config, replace


def study() -> Study:
    parent = load_config("quickstart")

    def shaped(layers: int, mlp_dim: int):
        changes = {"num_encoder_layers": layers, "num_decoder_layers": layers, "mlp_dim": mlp_dim}
        return replace(parent, **{f"model.{name}": value for name, value in changes.items()})

    variants = {"2 layers, MLP 512": parent, "1 layer, MLP 1408": shaped(1, 1408), "3 layers, MLP 224": shaped(3, 224)}
    return Study(variants=variants, budget=Budget(1000, "steps"))
