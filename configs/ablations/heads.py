"""How many attention heads, at equal width (Vaswani et al. 2017, table 3, rows A), on the embedded corpus.

Command: jaxnmt ablate heads
Time, score: not yet measured
"""

from jaxnmt.analysis.ablations.study import Budget, Study
from jaxnmt.config import replace
from jaxnmt.config_files import load


def study() -> Study:
    parent = load("quickstart")
    heads = {f"{n} heads" if n > 1 else "1 head": replace(parent, **{"model.num_heads": n}) for n in (4, 1, 2, 8)}
    return Study(variants=heads, budget=Budget(400, "steps"), seeds=(1, 2, 3))
