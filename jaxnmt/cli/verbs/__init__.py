"""The verbs of the `jaxnmt` command: a function each, which wires rooms together, and its options. JAX is imported by those that compute,
after the user's words are checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxnmt.cli.verbs import analysis, launching, pictures, planning, probes, studies, training, translation
from jaxnmt.cli.verbs.common import NoOptions, Settings
from jaxnmt.config import checks as config_checks
from jaxnmt.config import files as config_files
from jaxnmt.run import trainable
from jaxnmt.runs import directory as run_directory


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb of the command.

    Attributes:
        function: takes the names, then the options, then the other command if there is one.
        takes: the names ("[…]" may be missing; a last "[…...]" is a list).
        blank: the options with their defaults.
        given: the options with the defaults of the first name, a config or a run.
        commands: whether another command follows after `--`.
        check: what checks names and options before they are queued, if several processes can share the work.
        makes_runs: whether it makes or resumes runs though it takes no RUN.
    """

    function: Callable[..., int | None]
    takes: tuple[str, ...]
    blank: Any
    given: Callable[[str], Any] | None = None
    commands: bool = False
    check: Callable[..., object] | None = None
    makes_runs: bool = False

    @property
    def least(self) -> int:
        """Return how many names it needs."""
        return sum(not place.startswith("[") for place in self.takes)

    @property
    def most(self) -> float:
        """Return how many names it takes."""
        return math.inf if self.takes and self.takes[-1].endswith("...]") else len(self.takes)

    @property
    def opens_runs(self) -> bool:
        """Return whether `--trust` goes with it."""
        return self.makes_runs or any("RUN" in place for place in self.takes)


def _check_experiment(name: str, options: Any) -> None:
    if getattr(options, "explain_sharding", False):  # for which no data is read
        config_checks.validate(options.experiment)
    else:
        trainable(name, options.experiment)


VERBS = {
    "train": Verb(
        training.train,
        ("CONFIG",),
        training.Train(),
        lambda config: training.Train(experiment=config_files.load(config)),
        check=_check_experiment,
        makes_runs=True,
    ),
    "resume": Verb(training.resume, ("RUN",), Settings(), lambda run: Settings(run_directory.read(run)), check=_check_experiment),
    "translate": Verb(
        translation.translate,
        ("RUN",),
        translation.Translate(),
        lambda run: translation.Translate(decoding=run_directory.read(run).decoding),
        check=translation.checked,
    ),
    "evaluate": Verb(
        translation.evaluate,
        ("RUN",),
        translation.Evaluate(),
        lambda run: translation.Evaluate(decoding=run_directory.read(run).decoding),
        check=translation.checked,
    ),
    "compare": Verb(analysis.compare, ("RUN|FILE", "[RUN|FILE...]"), analysis.Compare()),
    "visualize": Verb(
        pictures.visualize,
        ("RUN", '"SENTENCE"'),
        pictures.Visualize(),
        lambda run: pictures.Visualize(decoding=run_directory.read(run).decoding),
    ),
    "probe length": Verb(pictures.probe_length, ("RUN|FILE", "[RUN|FILE...]"), pictures.Length()),
    "probe contrast": Verb(pictures.probe_contrast, ("RUN", "[RUN...]"), pictures.Contrast()),
    "probe embeddings": Verb(pictures.probe_embeddings, ("RUN",), pictures.Embeddings()),
    "probe gates": Verb(pictures.probe_gates, ("RUN", '"SENTENCE"'), pictures.Gates()),
    "data prepare": Verb(
        training.data_prepare,
        ("CONFIG",),
        training.Prepare(),
        lambda config: training.Prepare(experiment=config_files.load(config)),
        check=_check_experiment,
        makes_runs=True,
    ),
    "data check": Verb(training.data_check, ("SOURCE|CONFIG", "[TARGET]"), Settings(), training.settings_of),
    "runs curves": Verb(pictures.runs_curves, ("RUN", "[RUN...]"), pictures.Curves()),
    "runs show": Verb(training.runs_show, ("RUN|FOLDER",), NoOptions()),
    "runs average": Verb(training.runs_average, ("RUN",), training.Average()),
    "bench": Verb(analysis.bench, ("CONFIG",), analysis.Bench(), lambda config: analysis.Bench(experiment=config_files.load(config))),
    "laws": Verb(analysis.laws, ("CONFIG",), analysis.Laws(), lambda config: analysis.Laws(model=config_files.load(config).model)),
    "plan": Verb(planning.plan, ("CONFIG",), planning.Plan(), lambda config: planning.Plan(experiment=config_files.load(config))),
    "probe gradients": Verb(probes.gradients, ("CONFIG|RUN", "[CONFIG|RUN...]"), probes.Gradients()),
    "probe recall": Verb(probes.recall, ("CONFIG", "[CONFIG...]"), probes.Recall()),
    "probe steptime": Verb(probes.steptime, ("CONFIG", "[CONFIG...]"), probes.Steptime()),
    "ablate": Verb(studies.ablate, ("STUDY",), studies.Ablate(), makes_runs=True),
    "launch local": Verb(launching.local, (), launching.Local(), commands=True),
    "launch slurm": Verb(launching.slurm, (), launching.Slurm(), commands=True),
    "launch jobset": Verb(launching.jobset, (), launching.Jobset(), commands=True),
    "launch tpu_vm": Verb(launching.tpu_vm, (), launching.TpuVm(), commands=True),
}
