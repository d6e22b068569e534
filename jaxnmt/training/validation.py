"""Compute the validation loss, and write the translations of each validation to samples/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxnmt import config as cfg
from jaxnmt.data.loader import evaluation_batches
from jaxnmt.data.prepared import Prepared
from jaxnmt.io import files
from jaxnmt.parallel.sharding import num_shards, to_mesh
from jaxnmt.training.metrics import perplexity


def validation_loss(evaluate: Callable, params: Any, data: Prepared, config: cfg.Experiment, mesh: jax.sharding.Mesh) -> dict[str, float]:
    """Return mean loss and perplexity of the validation pairs. A side longer than data.max_length tokens is cut."""
    tokenizer, pairs = data.tokenizer, data.validation
    ids = zip(tokenizer.encode_source([s for s, _ in pairs]), tokenizer.encode_target([t for _, t in pairs]), strict=True)
    sums = []
    for _, arrays in evaluation_batches(ids, config.batching.tokens, config.data.max_length, num_shards("B", mesh)):
        sums.append(evaluate(params, to_mesh(arrays, mesh)))
    totals = [jax.device_get(part) for part in sums]
    tokens = sum(float(part.tokens) for part in totals)
    nll = sum(float(part.nll) for part in totals) / tokens
    return {"loss": sum(float(part.loss) for part in totals) / tokens, "perplexity": perplexity(nll)}


def write_samples(run: Path, step: int, pairs: Sequence[tuple[str, str]], hypotheses: Sequence[str]) -> list[str]:
    """Write all validation sentences with reference and translation to samples/STEP.txt. Returns one text for each sentence."""
    samples = [f"source       {s}\nreference    {t}\ntranslation  {h}\n" for (s, t), h in zip(pairs, hypotheses, strict=True)]
    (run / "samples").mkdir(exist_ok=True)
    files.write(run / "samples" / f"{step}.txt", "\n".join(samples))
    return samples


def remove_samples_after(run: Path, step: int) -> None:
    """Remove the samples of later steps: the resumed run writes them again."""
    for path in (run / "samples").glob("*.txt"):
        if path.stem.isdigit() and int(path.stem) > step:
            path.unlink()
