"""Training compiles once a shape, validation and decoding too, and never again."""

import collections

import tiny

from jaxnmt.evaluation.validation import ValidationTranslator
from jaxnmt.training.hooks import Hook
from jaxnmt.training.loop import Trainer, default_hooks


def test_a_run_compiles_each_shape_once_and_nothing_after_its_first_validation(compiled, tmp_path):
    changes = {"batching.layout": "buckets", "batching.tokens": 64, "batching.max_shapes": 2, "validation.every": 4, "training.steps": 16}
    (tmp_path / "run").mkdir()
    after_first = []

    class AfterFirst(Hook):
        def is_due(self, trainer, step):
            return step == 4

        def run(self, trainer, step):
            after_first.append(len(compiled))

    experiment = tiny.experiment(tmp_path, **changes, **{"checkpoints.every": 2})
    trainer = Trainer(experiment, tmp_path / "run", [*default_hooks(ValidationTranslator()), AfterFirst()])
    trainer.run()
    shapes = {trainer.plan.batch(step).shape for step in range(16)}
    assert len(trainer.plan.shapes) == len(shapes) > 1
    count = collections.Counter(compiled)
    steps = {name: n for name, n in count.items() if "train_step" in name}
    assert sum(steps.values()) == len(shapes), steps
    assert compiled[after_first[0] :] == []
