"""Open the folder of a trained run: config, checkpoints, metrics, tokenizer, model and parameters. JAX starts when it is needed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import pathlib
from typing import TYPE_CHECKING, Any, Literal

from jaxnmt.config import model_code
from jaxnmt.errors import UserError
from jaxnmt.parallel import compiler, kept, log
from jaxnmt.runs import directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxnmt.data.tokenizer import Tokenizer
    from jaxnmt.models.seq2seq import Seq2Seq

Checkpoint = int | Literal["best", "latest", "average"]
"""Names a checkpoint: by its step, as the one with the best validation score, the newest, or the mean that `Run.average` wrote."""

Weights = Literal["trained", "bfloat16", "int8"]
"""The type of the weights in decoding: as they were trained, or rounded when they are read."""


class TrainedRun:
    """A trained model, and the folder in which training keeps it.

    Attributes:
        folder: the run's folder.
        config: its experiment.
        weights: the type of the weights in decoding, see `jaxnmt.load`.
    """

    def __init__(self, folder: str | pathlib.Path, checkpoint: Checkpoint = "best", trusted: bool = False, weights: Weights = "trained"):
        """Open a run; see `load`."""
        self.folder = directory.folder(folder)
        with model_code.all_trusted(trusted):
            self.config = directory.read(self.folder)
        self._asked, self.weights = checkpoint, weights
        if weights == "bfloat16" and not hasattr(self.config.model, "dtype"):
            raise UserError(f"weights bfloat16: the model of {self.folder} has no setting dtype, so it computes as it was trained")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}, {self._asked!r})"

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the run's complete checkpoints, oldest first."""
        return directory.checkpoints(self.folder)

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint that is used: "checkpoint 4000" or "average of checkpoints 3000, 4000"."""
        return self._found.name

    @property
    def pinned(self) -> Checkpoint:
        """The checkpoint that is used, as `load` takes it: a step or "average", although training may write a better one meanwhile."""
        return self._found.which

    @functools.cached_property
    def _found(self) -> Any:
        """The checkpoint that is used, although training may write a better one meanwhile."""
        return self._checkpoints.find(self._asked)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, in order: each has a "kind" ("train", "validation", "skipped" or "init") and a "step"."""
        return directory.read_metrics(self.folder)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Turns text into token ids and back."""
        from jaxnmt.data.tokenizer import load_tokenizer

        return load_tokenizer(self.folder / "tokenizer")

    @functools.cached_property
    def model(self) -> Seq2Seq:
        """The model as functions of its parameters: encode, decode, start, step, attention. Its layers are unstacked."""
        from jaxnmt.models.parameters import unscanned

        return self._built(unscanned)

    def _built(self, form: Callable[[Any], Any]) -> Seq2Seq:
        """Return the model in one of the forms of its layers; see `models.parameters`."""
        compiler.check()  # first, because it starts JAX with the right flags
        from jaxnmt.models.seq2seq import build_model

        config: Any = form(self.config.model)
        config = dataclasses.replace(config, dtype="bfloat16") if self.weights == "bfloat16" else config
        return build_model(config, self.tokenizer.source_vocab_size, self.tokenizer.target_vocab_size, self.config.task)

    @functools.cached_property
    def params(self) -> Any:
        """The parameters that decoding uses: a tree of arrays, and of `Int8` weights if the run was loaded so.

        They are the EMA if the run keeps one. Each device has all of them, unless they are sharded (`_layouts`).
        """
        params = self._checkpoints.params(self._found, self._shapes)
        params = self.model.rounded(params, self.weights) if self.weights != "trained" else params
        newest = self._asked == "best" and not self._checkpoints.scores()
        log.say(f"{self.checkpoint} of {self.folder}{' (the newest: no checkpoint has a validation score)' if newest else ''}")
        return params

    def _read_ahead(self) -> None:
        """Begin to read the parameters, in a thread: JAX can be imported meanwhile. If they cannot be read, their use says so."""
        if "params" not in vars(self):
            with contextlib.suppress(UserError):
                self._checkpoints.read_ahead(self._found)

    @functools.cached_property
    def _checkpoints(self) -> Any:
        from jaxnmt.training.saved import CheckpointReader

        return CheckpointReader(self.folder)

    @functools.cached_property
    def _cache_key(self) -> tuple[object, ...]:
        """Identifies this model in the cache of traced programs. Starts JAX.

        It is empty, and nothing is cached, in calls from Python, if the run executes code of the user's own, and on accelerators, whose
        programs may contain calls that `jax.export` cannot write.
        """
        if not kept.is_enabled() or model_code.executed(self.config):
            return ()
        import jax

        if jax.default_backend() != "cpu":
            return ()
        return self.config.model, self.config.task, self.weights, self.tokenizer.source_vocab_size, self.tokenizer.target_vocab_size

    @property
    def _shapes(self) -> Any:
        """The parameters as ShapeDtypeStructs, with the layout in which they are read. Starts JAX."""
        compiler.check()
        import jax

        from jaxnmt.training.saved import kept_shapes

        shapes = kept_shapes(self._cache_key, lambda: self.model.shapes)
        layouts = self._layouts(self.model, shapes) if jax.device_count() > 1 else None
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        layouts = layouts or jax.tree.map(lambda x: one, shapes)
        return jax.tree.map(lambda x, layout: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), shapes, layouts)

    def _layouts(self, model: Seq2Seq, shapes: Any) -> Any:
        """Return the layout of the parameters of a model on several devices.

        They are sharded, as `mesh.fsdp` says, if decoding can gather them layer by layer (`models.gathering`), else replicated.
        """
        import jax

        from jaxnmt.config import Mesh
        from jaxnmt.models.parameters import for_decoding, is_scanned
        from jaxnmt.parallel.sharding import make_mesh, param_shardings, replicated

        if self.weights == "int8" or not is_scanned(for_decoding(self.config.model)):
            return jax.tree.map(lambda x: replicated(make_mesh(Mesh())), shapes)
        trained, devices = self.config.mesh.fsdp, jax.device_count()
        mesh = make_mesh(Mesh(fsdp=devices if trained == -1 else math.gcd(trained, devices)))
        return param_shardings(shapes, model.axes, mesh)

    def average(self, last: int = 5) -> list[int]:
        """Write the mean of the newest checkpoints, which `load(folder, "average")` reads. Returns their steps.

        Raises:
            UserError: there are fewer checkpoints, one is damaged, or the disk is full.
        """
        from jaxnmt.training.checkpoints import Checkpoints

        return Checkpoints(self.folder).average(last, self._shapes)
