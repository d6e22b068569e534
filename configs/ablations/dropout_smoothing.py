"""Dropout and label smoothing, with and without (Vaswani et al. 2017, table 3, rows D), on the embedded corpus.

Command: jaxnmt ablate dropout_smoothing
Time, score: not measured
"""

from jaxnmt import Budget, Study, load_config, replace


def study() -> Study:
    parent = load_config("quickstart")
    variants = {
        f"dropout {dropout}, smoothing {smoothing}": replace(parent, **{"model.dropout": dropout, "training.label_smoothing": smoothing})
        for dropout in (0.1, 0.0, 0.3)
        for smoothing in (0.1, 0.0)
    }
    return Study(variants=variants, budget=Budget(1000, "steps"))
