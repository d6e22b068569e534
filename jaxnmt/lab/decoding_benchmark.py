"""Measures the decoding speed of a run on this machine: throughput at some batch sizes, latency, and the first translation."""

from __future__ import annotations

import collections
import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxnmt import Decoding, Run, Translation, replace
from jaxnmt.lab.benchmark import circumstances, described_circumstances, lines_of, memory, process_age
from jaxnmt.models.parameters import parameter_count, training_flops
from jaxnmt.training.metrics import peak_flops

SENTENCES = 256
"""Test sentences in a pass, spread evenly over all of them."""
PASSES = 3
"""Timed passes at least."""


def benchmark(run: Run, decoding: Decoding, sizes: Sequence[int], seconds: float) -> dict[str, Any]:
    """Translate test sentences of a run, as `translate` does, for some time at each batch size.

    Args:
        run: not used before, so that its first translation is the process's first.
        decoding: how to search; `batch_size` is replaced by each of the sizes.
        sizes: batch sizes.
        seconds: of timed passes at each size; there are at least `PASSES`, after one that is not timed.

    Returns:
        A record for JSON. Utilisation counts the products with weights of the encoder and, beam_size times, of the best translation's
        steps; steps after its end are not counted. The output layer counts whole, also with a shortlist.
    """
    began = process_age()
    sources = [line for line in run.test_set().sources if line.strip()]
    count = min(len(sources), SENTENCES)
    sources = [sources[i * len(sources) // count] for i in range(count)]
    reading = process_age() - began
    with _counted_programs() as programs:
        run.translator.translate(sources[:1], replace(decoding, batch_size=1))
    first = {
        "first_translation_s": process_age() - reading,
        "first_programs": programs["/jax/core/compile/backend_compile_duration"],
        "first_programs_from_cache": programs["/jax/compilation_cache/cache_hits"],
    }
    measured = [_throughput(run, replace(decoding, batch_size=size), sources, seconds) for size in sizes]
    return {
        "checkpoint": run.checkpoint,
        "sentences": len(sources),
        **first,
        **_latency(run, replace(decoding, batch_size=1), sources, seconds),
        **memory(),
        "batches": measured,
        "peak_flops": peak_flops(),
        "parameters": parameter_count(run.model.shapes),
        **circumstances(),
    }


@contextlib.contextmanager
def _counted_programs() -> Iterator[collections.Counter[str]]:
    """Count JAX's events of compiling, which include programs that come from the cache, and of programs that do."""
    events: collections.Counter[str] = collections.Counter()
    count = lambda event, *_, **__: events.update([event])  # noqa: E731
    jax.monitoring.register_event_listener(count)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_listener(count)
        jax.monitoring.unregister_event_duration_listener(count)


def _throughput(run: Run, decoding: Decoding, sources: list[str], seconds: float) -> dict[str, Any]:
    """Return the speed of the median pass. Tokens are those of the best translations, end tokens included."""
    best = [candidates[0] for candidates in run.translator.translate(sources, decoding)]
    times: list[float] = []
    while len(times) < PASSES or sum(times) < seconds:
        start = time.perf_counter()
        run.translator.translate(sources, decoding)
        times.append(time.perf_counter() - start)
    source, target = _tokens(best, 0), _tokens(best, 1)
    second = statistics.median(times)
    flops = training_flops(run.model, source, decoding.beam_size * target) / 3  # of the forward pass
    return {
        "batch_size": decoding.batch_size,
        "passes": len(times),
        "sentences_per_s": len(sources) / second,
        "target_tokens_per_s": target / second,
        "utilisation": flops / second / peak_flops(),
    }


def _tokens(translations: Sequence[Translation], side: int) -> int:
    """Return the number of source (0) or target (1) tokens, end tokens included."""
    return sum(len(part[side]) + 1 for translation in translations for part in translation.parts)


def _latency(run: Run, decoding: Decoding, sources: list[str], seconds: float) -> dict[str, float]:
    """Return the time from a sentence to its translation, one sentence at a time, after a pass that is not timed."""
    times: list[float] = []
    passes, began = -1, 0.0
    while passes < PASSES or time.perf_counter() - began < seconds:
        for line in sources:
            start = time.perf_counter()
            run.translator.translate([line], decoding)
            times.append(time.perf_counter() - start)
        passes += 1
        if not passes:
            times, began = [], time.perf_counter()
    median, slow = map(float, np.quantile(times, [0.5, 0.95]))
    return {"latency_median_s": median, "latency_95_s": slow}


def describe(record: dict[str, Any], name: str) -> str:
    """Return the record as text: a table of batch sizes, then the rest."""
    heading = f"{name} ({record['checkpoint']})\n  {'batch':>5}{'sentences/s':>14}{'target tokens/s':>18}{'of the peak':>14}{'passes':>9}"
    table = [
        f"  {each['batch_size']:>5}{each['sentences_per_s']:>14,.1f}{each['target_tokens_per_s']:>18,.0f}"
        f"{each['utilisation']:>14.1%}{each['passes']:>9}"
        for each in record["batches"]
    ]
    cached = record["first_programs_from_cache"]
    rows = {
        "latency": f"{record['latency_median_s'] * 1000:,.0f} ms a sentence (median), 95 % below {record['latency_95_s'] * 1000:,.0f} ms",
        "first translation": f"{record['first_translation_s']:.1f} s after the process started; {cached} programs from the cache, "
        f"{record['first_programs'] - cached} compiled",
        "sentences": f"{record['sentences']:,} a pass",
        "peak": f"{record['peak_flops'] / 1e9:,.0f} GFLOP/s of matrix products",
        **described_circumstances(record),
    }
    return "\n".join([heading, *table, *lines_of(rows)])
