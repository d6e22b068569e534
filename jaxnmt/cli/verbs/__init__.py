"""The verbs of the `jaxnmt` command. Each is a function of names and options; those that compute import JAX after the words are checked."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any

from jaxnmt.cli.verbs import (
    analysis,
    drawing,
    evaluating,
    exchanging,
    launching,
    members,
    planning,
    predicting,
    runs,
    scoring,
    studies,
    translating,
)
from jaxnmt.config import replace
from jaxnmt.config.files import load_config
from jaxnmt.runs import directory as run_directory


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb of the command.

    Attributes:
        function: takes the names, then `options`, a dataclass; verbs that take no names take another command after `--`, as words.
        usage: the names ("[...]" is optional; "...]" ends a list).
        summary: what it does, as the overview says it.
        check: checks names and options before a job is queued. None: several processes cannot share the work.
        makes_runs: whether it may open a run although it takes no RUN.
    """

    function: Callable[..., int | None]
    usage: str
    summary: str
    check: Callable[..., object] | None = None
    makes_runs: bool = False

    @property
    def takes(self) -> list[str]:
        """Return the names that it takes."""
        return self.usage.split()

    @property
    def most(self) -> float:
        """Return how many names it takes at most."""
        return math.inf if self.usage.endswith("...]") else len(self.takes)

    @property
    def opens_runs(self) -> bool:
        """Return whether `--trust` goes with it."""
        return self.makes_runs or "RUN" in self.usage

    def options(self, name: str = "") -> Any:
        """Return the options with their defaults; those that are settings have the values of the config or run `name`.

        Raises:
            UserError: there is no such config or run.
        """
        options = typing.get_type_hints(self.function)["options"]()
        settings = [field.name for field in dataclasses.fields(options) if dataclasses.is_dataclass(getattr(options, field.name))]
        if not name or not settings or (self.usage.startswith("SOURCE") and runs.is_text(name)):
            return options
        opens = self.usage.startswith("RUN") or (self.usage == "CONFIG|RUN" and run_directory.is_run(name))
        experiment = run_directory.read(name) if opens else load_config(name)
        return replace(options, **{part: experiment if part == "experiment" else getattr(experiment, part) for part in settings})


VERBS = {
    "train": Verb(runs.train, "CONFIG", "train a model; resume it if the run exists", runs.check_training, makes_runs=True),
    "resume": Verb(runs.resume, "RUN", "resume a run from its latest checkpoint", runs.check_training),
    "translate": Verb(translating.translate, "RUN", "translate lines from stdin to stdout", members.check),
    "predict": Verb(predicting.predict, "RUN", "predict the labels of lines from stdin", predicting.checked),
    "evaluate": Verb(evaluating.evaluate, "RUN", "score a run on its test sentences: BLEU, chrF++ and TER", members.check),
    "score": Verb(scoring.score, "RUN SOURCE [TARGET]", "write log-probabilities of given translations; filter by them"),
    "compare": Verb(analysis.compare, "RUN|FILE [RUN|FILE...]", "compare scores, with confidence intervals and paired tests"),
    "visualize": Verb(analysis.visualize, 'RUN "SENTENCE|PICTURE"', "draw step by step how a translation or caption is made: HTML"),
    "export": Verb(exchanging.export, "RUN OUT", "write a run in a format of other software, and check it there"),
    "import": Verb(exchanging.import_, "FOLDER RUN", "make a run of a model that other software has trained"),
    "data prepare": Verb(runs.data_prepare, "CONFIG", "clean and tokenise now, train later", runs.check_training, makes_runs=True),
    "data check": Verb(runs.data_check, "SOURCE|CONFIG [TARGET]", "report what cleaning would drop, with file and line"),
    "runs show": Verb(runs.runs_show, "RUN|FOLDER", "show settings, progress and scores"),
    "runs curves": Verb(drawing.runs_curves, "RUN [RUN...]", "draw learning curves"),
    "runs average": Verb(runs.runs_average, "RUN", "average the latest checkpoints into one"),
    "probe length": Verb(drawing.probe_length, "RUN|FILE [RUN|FILE...]", "draw BLEU against source length"),
    "probe contrast": Verb(drawing.probe_contrast, "RUN [RUN...]", "measure agreement over a distance with contrastive pairs"),
    "probe cloze": Verb(drawing.probe_cloze, "RUN [RUN...]", "measure how language models fill a gap, by distance"),
    "probe pointing": Verb(predicting.probe_pointing, "RUN [RUN...]", "measure whether captioners look at what they say"),
    "probe text": Verb(drawing.probe_text, "KIND LANGUAGE [TARGET]", "write text to train on for probe cloze or contrast"),
    "probe confusion": Verb(predicting.probe_confusion, "RUN", "draw the confusion matrix of predicted labels"),
    "probe embeddings": Verb(drawing.probe_embeddings, "RUN", "draw embeddings: neighbours, a map, one word in two sentences"),
    "probe gates": Verb(drawing.probe_gates, 'RUN "SENTENCE"', "draw the gates of an LSTM or GRU over a sentence"),
    "probe gradients": Verb(drawing.gradients, "CONFIG|RUN [CONFIG|RUN...]", "draw how far back a gradient reaches"),
    "probe recall": Verb(drawing.recall, "CONFIG [CONFIG...]", "draw how well a word seen n steps ago is recalled"),
    "probe steptime": Verb(drawing.steptime, "CONFIG [CONFIG...]", "draw a training step's time and utilisation by length"),
    "bench": Verb(analysis.bench, "CONFIG|RUN", "measure the speed of training, or of a run's decoding"),
    "plan": Verb(planning.plan, "CONFIG", "predict memory and speed on devices that need not be here"),
    "ablate": Verb(studies.ablate, "STUDY", "train every variant of a study with every seed: a table", makes_runs=True),
    "laws": Verb(analysis.laws, "CONFIG", "check what must be true of every model"),
    "launch local": Verb(launching.local, "", "run a command as several processes on this computer"),
    "launch slurm": Verb(launching.slurm, "", "run a command on nodes of a SLURM cluster"),
    "launch jobset": Verb(launching.jobset, "", "run a command on hosts of a Kubernetes cluster, with GPUs or TPUs"),
    "launch tpu_vm": Verb(launching.tpu_vm, "", "run a command on slices of Cloud TPU"),
}
