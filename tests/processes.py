"""Train a config with one process and with several from launch/local.sh, these stopped by SIGTERM at random moments and taken up again.

    python tests/processes.py FOLDER CONFIG [--processes 2] [--stops 2] [--seed 1] [-- settings]

FOLDER takes the runs `one` and `several`; one that is finished there is not trained again. Printed are the training and the validation
losses' largest differences. Every stop must leave with 85, and with all processes' checkpoint of the same step.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from kill_resume import newest, records

ROOT = Path(__file__).parents[1]
LAUNCHER = ROOT / "launch" / "local.sh"
STOPPED = 85  # jaxnmt.errors.SAVED


class Job:
    """Processes of one command, started by launch/local.sh; what they say on stderr is kept in a file."""

    def __init__(self, count: int, words: list[str], log: Path, cwd: Path, **environment: str):
        self.log = log
        command = [str(LAUNCHER), str(count), *words] if count > 1 else [sys.executable, "-m", "jaxnmt", *words]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        told = {"JAX_PLATFORMS": "cpu", "JAXNMT_PYTHON": sys.executable, "PYTHONPATH": path} | environment
        with log.open("w") as file, (log.with_suffix(".out")).open("w") as out:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=os.environ | told, stdin=subprocess.DEVNULL, stdout=out, stderr=file, start_new_session=True
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def out(self) -> str:
        return self.log.with_suffix(".out").read_text()

    def until(self, pattern: str, seconds: float = 180) -> bool:
        """Wait for a line; False where the processes ended first."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.said()):
            if self.process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def status(self, seconds: float = 180) -> int:
        """The exit status; whoever is left after so many seconds is killed."""
        try:
            return self.process.wait(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def workers(self) -> list[int]:
        """The processes' ids, in order."""
        return list(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))


def losses(run: Path, kind: str) -> dict[int, float]:
    """{step: loss} of a run's records."""
    return {record["step"]: record["loss"] for record in records(run) if record["kind"] == kind}


def apart(one: Path, other: Path, kind: str) -> float:
    """The largest difference of a loss; the steps must be the same."""
    left, right = losses(one, kind), losses(other, kind)
    assert left and left.keys() == right.keys(), (left.keys(), right.keys())
    return max(abs(left[step] - right[step]) for step in left)


def stopped_and_resumed(count: int, words: list[str], run: Path, cwd: Path, stops: int, chance: random.Random, **environment: str) -> str:
    """Train to the end, stopped a number of times, each time by SIGTERM to the launcher or to one process -> what happened, in a line."""
    told, log = [], run.with_suffix(".log")
    for _ in range(stops):
        job = Job(count, words, log, cwd, **environment)
        if not job.until(r"step [\d,]+/"):
            raise RuntimeError(f"it ended before a step was logged:\n{job.said()}")
        time.sleep(chance.uniform(0, 2))
        victim = chance.choice([job.process.pid, *job.workers()])
        if job.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGTERM)
        status = job.status(600)
        if status == 0:
            told.append("finished before it could be stopped")
            break
        saved = re.findall(r"saved at step ([\d,]+)", job.said())
        if status != STOPPED or len(saved) != 1 or int(saved[0].replace(",", "")) != newest(run):
            raise RuntimeError(f"status {status}, saved at {saved}, checkpoint {newest(run)}:\n{job.said()}")
        told.append(f"stopped at step {saved[0]} ({'launcher' if victim == job.process.pid else 'one process'})")
    job = Job(count, words, log, cwd, **environment)
    if (status := job.status(24 * 3600)) != 0:
        raise RuntimeError(f"status {status}:\n{job.said()}")
    return "; ".join(told)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("config")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stops", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    place = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, settings = parser.parse_args(sys.argv[1:place]), sys.argv[place + 1 :]
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    train = ["train", options.config, *settings, "--run"]
    job = Job(1, [*train, str(folder / "one")], folder / "one.log", Path.cwd())
    if job.status(24 * 3600) != 0:
        raise RuntimeError(job.said())
    several, chance = folder / "several", random.Random(options.seed)
    print(stopped_and_resumed(options.processes, [*train, str(several)], several, Path.cwd(), options.stops, chance))
    for kind in ("train", "validation"):
        (step, left), (_, right) = (list(losses(run, kind).items())[-1] for run in (folder / "one", several))
        print(f"{kind} loss: at most {apart(folder / 'one', several, kind):.2g} apart; at step {step} {left:.5f} and {right:.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
