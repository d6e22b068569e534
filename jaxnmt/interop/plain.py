"""Our own parameters by path, with config and tokenizer: the format `safetensors`, which holds every model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxnmt.config.files import save_config
from jaxnmt.interop.tensors import library, save

if TYPE_CHECKING:
    from jaxnmt.interop.formats import Runtime
    from jaxnmt.run import Run

NEEDS = ""


def refusal(run: Run) -> str | None:
    """Return None: it holds every run whose weights are as they were trained."""
    library()
    return f"it holds weights as they were trained: leave out --weights {run.weights}" if run.weights != "trained" else None


def write(run: Run, folder: Path) -> None:
    """Write `model.safetensors`, whose names are paths such as `encoder/layer_0/mlp/wi/kernel`, config.json and tokenizer/."""
    import jax

    from jaxnmt.parallel.axes import path_name

    arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(run.params)}
    save(folder / "model.safetensors", arrays)
    save_config(run.config, folder / "config.json")
    run.tokenizer.save(folder / "tokenizer")


def runtime(run: Run, folder: Path) -> Runtime | None:
    """Return None: there is no other software for it."""
    return None


def usage(run: Run) -> str:
    """Return how the parameters are read."""
    return """```python
from safetensors.numpy import load_file

params = load_file("model.safetensors")  # {"encoder/layer_0/mlp/wi/kernel": array, ...}
```

`config.json` has the settings of the jaxnmt run, `tokenizer/` its vocabulary."""
