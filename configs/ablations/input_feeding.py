"""Whether the next step reads what the attention gave (Luong et al. 2015, section 3.3 and table 1), on the embedded corpus.

Command: jaxnmt ablate input_feeding
Time, score: not measured
"""

from jaxnmt import Budget, Study, load_config, replace


def study() -> Study:
    fed = load_config("phrases/lstm_luong")
    variants = {"fed": fed, "not fed": replace(fed, **{"model.input_feeding": False})}
    return Study(variants=variants, budget=Budget(1000, "steps"), unequal_parameters=True)
