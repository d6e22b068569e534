"""The low-rank factors of a run that was fine-tuned by adapters, apart from their base: the format `adapter`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnmt.config import Denoising, Mesh, Translation
from jaxnmt.config.files import to_json, write_json
from jaxnmt.errors import UserError
from jaxnmt.interop.adapter_files import FACTORS, FORMAT, SETTINGS, Adapter, Fit, open_adapter
from jaxnmt.interop.formats import Source, plain_search
from jaxnmt.interop.tensors import library, save
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from jaxnmt.interop.formats import Runtime
    from jaxnmt.run import Run

NEEDS = ""


def refusal(run: Run) -> str | None:
    """Return why a run's adapter cannot be separated from its base, and which format holds the run; None if it can."""
    library()
    if run.weights != "trained":
        return f"it holds weights as they were trained: leave out --weights {run.weights}"
    if problem := _problem(run):
        return f"{problem}: --to safetensors holds it"
    parent = directory.folder(run.config.init.from_)
    different = _fit(run).difference(directory.settings(parent)) if (parent / directory.CONFIG).is_file() else None
    return (
        different
        and f"it was trained with {different} in {parent}, so that base and adapter would not be the run: --to safetensors holds it"
    )


def _problem(run: Run) -> str | None:
    """Return why a run's adapter cannot be separated from its base; None if it can."""
    training = run.config.training
    if not training.lora.rank:
        others = [f"training.{name}" for name in ("freeze", "rates") if getattr(training, name)]
        by = f"by {' and '.join(others)} " if others else ""
        return f"it has no adapter: its own parameters were trained {by}without training.lora.rank"
    if run.pinned == "average":
        return "an average of checkpoints has no adapter of its own: choose a checkpoint with --checkpoint; as it is"
    return None if directory.ancestry(run.folder) else f"its {directory.METRICS} does not say which run its adapter belongs to"


def _first(run: Run) -> dict[str, Any]:
    """Return the record of the run's base."""
    return directory.ancestry(run.folder)[0]


def _fit(run: Run) -> Fit:
    record, model = _first(run), to_json(run.config)["model"]
    folder = Path(record["from"]).name
    return Fit(folder, record["checkpoint"], record["checksum"], run.tokenizer.fingerprint(), type(run.config.task).__name__, model)


def of_run(run: Run) -> Adapter:
    """Return the adapter of a run. Its factors are read when they are used.

    Raises:
        UserError: it has no adapter.
    """
    if problem := _problem(run):
        raise UserError(f"{run.folder} cannot serve as an adapter: {problem}")
    lora = run.config.training.lora
    return Adapter(run.folder, _fit(run), lora.rank, lora.alpha, run._found.checksum or 0, lambda: _trained(run)[0])


def _trained(run: Run) -> tuple[Mapping[str, np.ndarray], Any]:
    """Return the factors of a run by their paths, and the kernels without them."""
    import jax

    from jaxnmt.parallel.sharding import make_mesh
    from jaxnmt.training.checkpoints import Checkpoints
    from jaxnmt.training.optim import make_optimizer
    from jaxnmt.training.paths import by_path
    from jaxnmt.training.state import abstract_state
    from jaxnmt.training.tuning import tuning_of

    config, model = run.config, run.model
    optimizer = make_optimizer(config.optimizer, tuning_of(config.training, model).axes)
    like = abstract_state(model, optimizer, config.training, make_mesh(Mesh()))  # replicated on all devices
    factors, kernels = Checkpoints(run.folder).adapters(run._found.which, like)
    return by_path(jax.tree.map(np.asarray, factors)), kernels


def _base(run: Run, kernels: Any) -> Any:
    """Return the parameters of a run without its adapter.

    Raises:
        UserError: they are not those of the base.
    """
    from jaxnmt.training.checksums import checksum
    from jaxnmt.training.tuning import join

    params, record = join(run.params, kernels), _first(run)
    if checksum(params) != record["checksum"]:
        raise UserError(
            f"--to adapter cannot hold {run.folder}: without its adapter it does not have the parameters of {record['from']}, so that base "
            "and adapter would not be the run: --to safetensors holds it"
        )
    return params


def write(run: Run, folder: Path) -> None:
    """Write the factors and what they belong to."""
    factors, kernels = _trained(run)
    _base(run, kernels)
    save(folder / FACTORS, factors)
    fit, lora = _fit(run), run.config.training.lora
    base = {"run": fit.run, "checkpoint": fit.checkpoint, "checksum": fit.checksum}
    settings = {"format": FORMAT, "rank": lora.rank, "alpha": lora.alpha, "base": base}
    write_json(settings | {"tokenizer": fit.tokenizer, "task": fit.task, "model": fit.model}, folder / SETTINGS)


class _BaseAndAdapter:
    """Translates with the parameters of the base and the files of the adapter."""

    name, least, is_float32 = "base + adapter", 0.99, False
    decoding: Mapping[str, Any] = plain_search()

    def __init__(self, run: Run, folder: Path) -> None:
        from jaxnmt.run import Run

        self._run = Run(run.folder, run.pinned, trusted=True)  # it is open already
        self._run.params = open_adapter(folder).applied(_base(run, _trained(run)[1]))

    def translate(self, sources: Sequence[Source], beam_size: int) -> list[list[str]]:
        """Return the target tokens of each translation, without the end token."""
        found = self._run.translate([source.text for source in sources], **self.decoding, beam_size=beam_size, n_best=1)
        return [list(each.tokens) for each in found]


def runtime(run: Run, folder: Path) -> Runtime | None:
    """Open the files and rebuild the base's parameters from the run; None if the run does not translate text."""
    return _BaseAndAdapter(run, folder) if isinstance(run.config.task, Translation | Denoising) else None


def usage(run: Run) -> str:
    """Return how the adapter is used."""
    fit, rank = _fit(run), run.config.training.lora.rank
    of = "the average" if fit.checkpoint == "average" else f"checkpoint {fit.checkpoint}"
    return f"""Low-rank factors (LoRA, rank {rank}) for {of} of the run `{fit.run}`, whose parameters have the checksum {fit.checksum}.
The parameters themselves are not here.

```
jaxnmt translate {fit.run} --adapter . < text
```

`adapter.safetensors` has factors A and B of each adapted kernel W by its path; the kernel with the adapter is W + alpha / rank A B.
`adapter.json` has rank and alpha, and what the adapter belongs to."""
