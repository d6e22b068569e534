"""Kill -9 a training run while it compiles, steps, validates and saves; resume it by the same command; compare with an undisturbed run.

    python tests/kill_resume.py [--trials 20] [--seed 1] [--keep FOLDER] [-- CONFIG settings]

Each trial is a run of its own: started, killed in its phase after a random delay, resumed to the end. That the kill fell into the
phase is read off what the process had said and what it left on disk; where it did not, the trial is started anew. Dropout, moving
average, accumulated gradients and a mixture of two sources are on; checkpoints fall between log lines. Compared are hashes of the
final parameters, moving average, optimizer state and progress, `metrics.jsonl` without `timing`, and the sample translations.

CONFIG is trained instead of that run, by `jaxnmt train CONFIG settings` in the folder of its text: numbers.a and numbers.b, letters.a and
letters.b. It needs a moving average.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

PHASES = ("compiling", "saving", "validating", "stepping")
STEPS, LOG, SAVE, VALIDATE = 48, 4, 10, 16
TIMES = f"--training.steps {STEPS} --logging.every {LOG} --checkpoints.every {SAVE} --validation.every {VALIDATE}".split()

TRANSFORMER = """batching=Batching(tokens=1024, row_length=32),
        model=Transformer(emb_dim=32, num_heads=2, mlp_dim=64, num_encoder_layers=1, num_decoder_layers=1,
                          dropout=0.2, attention_dropout=0.1, activation_dropout=0.1),"""
BAG = """batching=Batching(layout="buckets", tokens=1024, row_length=32, max_shapes=1),
        model=Recurrent(encoder="bag", context="fixed", cell="rnn", emb_dim=32, hidden_dim=32, dropout=0.2),"""
CONFIG = f'''"""A tiny run with everything on that could make two sessions differ from one."""
from jaxnmt.config import *


def config():
    return Experiment(
        data=Data(train=("numbers.a,numbers.b", "letters.a,letters.b@2"), held_out=24, max_length=32),
        tokenizer=Tokenizer(vocab_size=320),
        SETTINGS
        schedule=Schedule(warmup_steps=10),
        training=Training(steps={STEPS}, accumulation=2, ema_decay=0.9),
        validation=Validation(every={VALIDATE}, samples=1),
        checkpoints=Checkpoints(every={SAVE}),
        logging=Logging(every={LOG}),
        decoding=Decoding(max_length_extra=4, max_length_ratio=1.0),
    )
'''


def write_data(folder: Path, settings: str = TRANSFORMER) -> None:
    """Write two sources of 400 pairs, and the config that mixes them."""
    chance = random.Random(0)
    digits = dict(zip("0123456789", "null eins zwei drei vier fünf sechs sieben acht neun".split(), strict=True))
    for name, alphabet, say in (("numbers", "0123456789", digits.__getitem__), ("letters", "abcdefgh", str.upper)):
        words = [[chance.choice(alphabet) for _ in range(chance.randint(2, 8))] for _ in range(400)]
        (folder / f"{name}.a").write_text("".join(f"{' '.join(row)}\n" for row in words), encoding="utf-8")
        (folder / f"{name}.b").write_text("".join(f"{' '.join(map(say, row))}\n" for row in words), encoding="utf-8")
    (folder / "tiny.py").write_text(CONFIG.replace("SETTINGS", settings), encoding="utf-8")


class Session:
    """A training process, its lines gathered as they come."""

    def __init__(self, data: Path, run: Path, compiled: Path, words: Sequence[str] = ("tiny.py",)):
        self.run, self.lines = run, []
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAXNMT_CACHE": str(data / "cache"),
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        command = [sys.executable, "-m", "jaxnmt", "train", *words, "--run", str(run), *TIMES]
        self.process = subprocess.Popen(
            command,
            cwd=data,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts with & would ignore it
        )
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def said(self, pattern: str) -> bool:
        """Whether a line contains the pattern."""
        return any(re.search(pattern, line) for line in list(self.lines))

    def until(self, seen: Callable[[], bool], seconds: float = 120) -> bool:
        """Wait for something; False where the process ended first."""
        end = time.monotonic() + seconds
        while not seen():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError("".join(self.lines))
            time.sleep(0.0005)
        return True

    def kill(self) -> None:
        """kill -9."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def finish(self) -> None:
        """Wait for the end, which must be a good one."""
        self.process.wait(timeout=300)
        self._reader.join()
        if self.process.returncode:
            raise RuntimeError(f"exit status {self.process.returncode}:\n{''.join(self.lines)}")


# ---- what is on disk


def records(run: Path) -> list[dict]:
    """Whole lines of metrics.jsonl."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def half_saved(run: Path) -> list[Path]:
    """Checkpoints that are being written, or that a killed process left so."""
    return list((run / "checkpoints").glob("*tmp*")) if (run / "checkpoints").exists() else []


def newest(run: Path) -> int:
    """The newest complete checkpoint."""
    return max((int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def in_validation(run: Path) -> bool:
    """Whether the last thing recorded is the log line of a step that is validated next."""
    last = records(run)[-1:]
    return bool(last) and last[0]["kind"] == "train" and last[0]["step"] % VALIDATE == 0


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of each part of a finished run."""
    import jax
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    found = {}
    with ocp.CheckpointManager((run / "checkpoints").absolute(), options=ocp.CheckpointManagerOptions(read_only=True)) as manager:
        step = manager.latest_step()
        for item in ("params", "ema", "optimizer"):
            tree = manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore()}))[item]
            digest = hashlib.sha256()
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                array = np.asarray(leaf)
                digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
            found[f"{item} of step {step}"] = digest.hexdigest()
        progress = manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
    del progress["seconds"], progress["unlogged"], progress["checksums"]["progress"]  # the last is of the others too
    found["progress"] = _digest(json.dumps(progress, sort_keys=True))
    lines = [{name: value for name, value in record.items() if name != "timing"} for record in records(run)]
    found["metrics.jsonl"] = _digest(json.dumps(lines))
    found["samples"] = _digest("\0".join(f"{path.name}\n{path.read_text()}" for path in sorted((run / "samples").glob("*"))))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---- trials


def kill_in(phase: str, session: Session, chance: random.Random) -> str:
    """Kill a session in a phase; returns where it fell, or "" if it missed."""
    run = session.run
    if phase == "compiling":
        if not session.until(lambda: session.said("compiling")):
            return ""
        time.sleep(chance.uniform(0, 1.5))
        session.kill()
        return "" if session.said("compiled in") else f"before its programs were compiled, checkpoint {newest(run)} being the newest"
    if phase == "saving":
        before = chance.choice(range(0, STEPS - SAVE, SAVE))
        if not session.until(lambda: newest(run) >= before and half_saved(run)):
            return ""
        time.sleep(chance.uniform(0, 0.1))
        session.kill()
        left = [path.name for path in half_saved(run)]
        return f"with {left[0]} half-written, checkpoint {newest(run)} being the newest" if left else ""
    if phase == "validating":
        target = chance.choice(range(VALIDATE, STEPS + 1, VALIDATE))
        if not session.until(lambda: session.said(rf"step {target}/")):
            return ""
        time.sleep(chance.uniform(0, 0.4 if target == VALIDATE else 0.02))  # the first one compiles
        session.kill()
        return f"validating step {target}" if in_validation(run) and records(run)[-1]["step"] == target else ""
    target = chance.choice([step for step in range(2 * SAVE, STEPS, LOG) if step % VALIDATE])
    if not session.until(lambda: session.said(rf"step {target}/")):
        return ""
    time.sleep(chance.uniform(0, 0.02))
    session.kill()
    last = records(run)[-1]["step"]
    behind = ", a save under way" if half_saved(run) else ""
    return "" if in_validation(run) or last >= STEPS else f"after step {last}, checkpoint {newest(run)} being the newest{behind}"


def trial(phase: str, data: Path, run: Path, compiled: Path, chance: random.Random, words: Sequence[str]) -> str:
    """One run, killed in a phase and resumed to its end; returns where it was killed."""
    for misses in range(20):
        shutil.rmtree(run, ignore_errors=True)
        if phase == "compiling":
            compiled = run.with_suffix(".xla")  # nothing compiled yet: else there is next to nothing to interrupt
            shutil.rmtree(compiled, ignore_errors=True)
            if chance.random() < 0.5:  # a later session of the run
                first = Session(data, run, data / "xla", words)
                first.until(lambda: newest(run) > 0)
                first.kill()
        session = Session(data, run, compiled, words)
        if where := kill_in(phase, session, chance):
            Session(data, run, compiled, words).finish()
            return where + (f" (after {misses} that missed)" if misses else "")
        session.kill()
    raise RuntimeError(f"20 kills all missed the phase {phase}")


def run_trials(folder: Path, phases: list[str], seed: int, say: Callable[[str], None] = print, words: Sequence[str] = ("tiny.py",)) -> int:
    """Returns how many of the trials ended as the undisturbed run did."""
    write_data(folder)
    compiled = folder / "xla"
    Session(folder, folder / "undisturbed", compiled, words).finish()
    expected = digests(folder / "undisturbed")
    say("\n".join(f"undisturbed: {name} {digest[:16]}" for name, digest in expected.items()))
    identical, chance = 0, random.Random(seed)
    for number, phase in enumerate(phases, 1):
        start, run = time.monotonic(), folder / f"trial-{number}"
        where = trial(phase, folder, run, compiled, chance, words)
        found = digests(run)
        different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        identical += not different
        verdict = f"DIFFERENT: {', '.join(sorted(different))}" if different else "identical"
        say(f"{number:2}/{len(phases)}  {phase:10}  killed {where}; resumed: {verdict}  ({time.monotonic() - start:.0f} s)")
    return identical


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="an empty folder for the runs, not removed at the end")
    parser.add_argument("words", nargs="*", default=["tiny.py"], help="a config and its settings")
    options = parser.parse_args()
    phases = [PHASES[number % len(PHASES)] for number in range(options.trials)]
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        identical = run_trials(folder.absolute(), phases, options.seed, lambda line: print(line, flush=True), options.words)
    kills = ", ".join(f"{count} {phase}" for phase, count in collections.Counter(phases).items())
    print(f"{identical}/{len(phases)} identical to the undisturbed run (killed: {kills}) in {time.monotonic() - start:.0f} s")
    return 0 if identical == len(phases) else 1


if __name__ == "__main__":
    sys.exit(main())
