"""Whether the next step reads what the attention gave (Luong et al. 2015, section 3.3 and table 1), on the embedded corpus.

Command: jaxnmt ablate input_feeding
Time, score: not measured
"""

from jaxnmt.analysis.ablations.study import Budget, Study
from jaxnmt.config import replace
from jaxnmt.config_files import load


def study() -> Study:
    fed = load("phrases/lstm_luong")
    variants = {"fed": fed, "not fed": replace(fed, **{"model.input_feeding": False})}
    return Study(variants=variants, budget=Budget(1000, "steps"), unequal_parameters=True)
