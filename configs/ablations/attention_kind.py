"""One vector, or attention and its kinds (Bahdanau et al. 2015; Luong et al. 2015, tables 1 and 4), on the embedded corpus.

Command: jaxnmt ablate attention_kind
Time, score: not measured
"""

from jaxnmt import Budget, Study, load_config, replace


def study() -> Study:
    luong = load_config("phrases/lstm_luong")
    score = {f"luong, {score}": replace(luong, **{"model.score": score}) for score in ("general", "dot", "concat", "location")}
    others = {
        "luong, general, local": replace(luong, **{"model.window": 5}),
        "bahdanau": replace(luong, **{"model.context": "bahdanau"}),
        "one vector": replace(luong, **{"model.context": "fixed"}),
    }
    return Study(variants=score | others, budget=Budget(1000, "steps"), unequal_parameters=True)
