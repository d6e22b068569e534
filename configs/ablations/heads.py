"""How many attention heads, at equal width (Vaswani et al. 2017, table 3, rows A), on the embedded corpus.

Command: jaxnmt ablate heads
Time: 24 minutes of training, on one core
Score (the corpus of version 0.1.0): BLEU on test, means of three seeds: 4 heads 95.8, 1 head 95.1, 2 heads 96.1, 8 heads 95.3
"""

from jaxnmt import Budget, Study, load_config, replace


def study() -> Study:
    parent = load_config("quickstart")
    heads = {f"{n} heads" if n > 1 else "1 head": replace(parent, **{"model.num_heads": n}) for n in (4, 1, 2, 8)}
    return Study(variants=heads, budget=Budget(400, "steps"), seeds=(1, 2, 3))
