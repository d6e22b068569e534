"""What a caption's decoder reads of the picture: all regions, one mean of them for each word, or one vector; on the embedded scenes.

Command: jaxnmt ablate caption_decoders
Time, score: not measured (docs/captions.md has them on other pictures)
"""

from jaxnmt import Budget, Study, load_config


def study() -> Study:
    names = {"transformer": "scenes", "lstm, attention": "scenes_attention", "lstm, one vector": "scenes_fixed"}
    variants = {name: load_config(config) for name, config in names.items()}
    return Study(variants=variants, budget=Budget(2500, "steps"), unequal_parameters=True)
