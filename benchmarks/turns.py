"""Measure two programs in turn. Both keep running, so start-up and compilation are not measured, and a slow machine slows both.

A program reads orders from stdin, a line each, and answers a line `BURST {"units": .., "seconds": ..}`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


class Runner:
    """A program that does one unit of work for each line that it reads."""

    def __init__(self, name: str, command: list[str], log: Path):
        self.name, self.log = name, log
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(os.cpu_count())}
        environment |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # huge pages, with which `jaxnmt` restarts itself
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )

    def burst(self, order: str) -> dict:
        """Return the answer to an order, with `foreign`, the share of the cores that other programs used meanwhile."""
        others, began = _others(self.process.pid), time.perf_counter()
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"{self.name} ended; its messages are in {self.log}")
            if line.startswith("BURST "):
                break
        foreign = (_others(self.process.pid) - others) / (time.perf_counter() - began) / os.cpu_count()
        return json.loads(line.removeprefix("BURST ")) | {"foreign": max(foreign, 0.0)}


def _others(pid: int) -> float:
    """Return the CPU seconds that the machine has spent on anything but a process."""
    busy = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (sum(busy) - busy[3] - busy[4] - int(own[11]) - int(own[12])) / os.sysconf("SC_CLK_TCK")


def measuring_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `measure` reads."""
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tries", type=int, default=10, help="pairs at most, those that were disturbed among them")
    parser.add_argument("--foreign", type=float, default=0.08, help="share of the cores from which on a pair counts as disturbed")


def measure(runners: list[Runner], order: str, words: argparse.Namespace) -> None:
    """Give both the same order in turn and print each pair's units a second; at the end the medians.

    A pair during which other programs used more than `words.foreign` of the cores is measured again. The medians are of the undisturbed
    pairs if there are enough, else of the least disturbed.
    """
    pairs: list[tuple[float, float, float]] = []
    print(f"{runners[0].name:>14} {runners[1].name:>8}   ratio   others' share of the cores")
    for _ in range(max(words.tries, words.pairs)):
        results = [runner.burst(order) for runner in runners]
        peer, ours = (result["units"] / result["seconds"] for result in results)
        foreign = max(result["foreign"] for result in results)
        pairs.append((foreign, peer, ours))
        shares = " and ".join(f"{result['foreign']:.0%}" for result in results)
        print(f"{peer:14.4g} {ours:8.4g} {ours / peer:7.2f}   {shares}{'  disturbed' if foreign > words.foreign else ''}", flush=True)
        if sum(foreign <= words.foreign for foreign, *_ in pairs) == words.pairs:
            break
    quiet = [pair for pair in pairs if pair[0] <= words.foreign]
    chosen = quiet if len(quiet) >= words.pairs else sorted(pairs)[: words.pairs]
    peer, ours, ratio = (statistics.median(values) for values in zip(*[(p, o, o / p) for _, p, o in chosen], strict=True))
    kind = "undisturbed" if chosen is quiet else f"least disturbed (only {len(quiet)} of {len(pairs)} were not)"
    print(f"{peer:14.4g} {ours:8.4g} {ratio:7.2f}   medians of {len(chosen)} pairs, {kind}")
