"""The `jaxnmt` command: finds the verb, reads its settings, runs it, and answers mistakes in a sentence."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import io
import itertools
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence

from jaxnmt import __version__, config_files, huge_pages, overrides
from jaxnmt.config import UserError
from jaxnmt.parallel import compiler, distributed
from jaxnmt.verbs import VERBS, Verb

OVERVIEW = """jaxnmt: neural machine translation in JAX.

  jaxnmt train CONFIG [--run DIR] [settings]   train; on an existing run: take it up again
  jaxnmt resume RUN [settings]                 take a run up again
  jaxnmt translate RUN                         translate lines from stdin to stdout
  jaxnmt evaluate RUN                          BLEU, chrF++ and TER on the run's test sentences
  jaxnmt compare RUN|FILE RUN|FILE ...         scores with error bars and paired tests; where they differ
  jaxnmt visualize RUN "SENTENCE" [--open]     how it is translated, step by step, as one HTML file
  jaxnmt probe length RUN|FILE ...             BLEU against the source's length
  jaxnmt probe contrast RUN ...                agreement over a distance: the right word, or the wrong one?
  jaxnmt probe embeddings RUN                  word vectors: neighbours, a map, positions, one word in two sentences
  jaxnmt probe gates RUN "SENTENCE"            an LSTM's or a GRU's gates over a sentence
  jaxnmt data prepare CONFIG [settings]        clean and tokenise now, train later
  jaxnmt data check SOURCE TARGET | CONFIG     what cleaning would drop, with file and line
  jaxnmt runs show RUN | FOLDER                settings, progress and scores
  jaxnmt runs curves RUN ...                   learning curves of runs: a chart
  jaxnmt runs average RUN                      average the last checkpoints into one
  jaxnmt bench CONFIG [settings]               how fast it trains here
  jaxnmt probe gradients CONFIG|RUN ...        how far a gradient reaches back: a chart
  jaxnmt probe recall CONFIG ...               a word seen n steps ago: how well it is recalled
  jaxnmt probe steptime CONFIG ...             a training step's time and utilisation, by length
  jaxnmt plan CONFIG --on v5p:2x2x2            does it fit devices that are not here, how fast, how long
  jaxnmt ablate STUDY                          every variant of a study, with every seed: a table
  jaxnmt laws CONFIG [settings]                what must be true of every model, checked of this one
  jaxnmt launch local -- VERB ...              a command as several processes on this computer
  jaxnmt launch slurm -- VERB ...              on the nodes of a SLURM cluster
  jaxnmt launch jobset -- VERB ...             on hosts of a Kubernetes cluster, GPU or TPU
  jaxnmt launch tpu_vm -- VERB ...             on slices of Cloud TPU

CONFIG is a shipped name or the path of your own Python file. Shipped:
  {shipped}
RUN is a run's folder, such as runs/quickstart. `jaxnmt VERB --help` explains a verb, and
`jaxnmt train CONFIG --help` lists every setting with its value in that config and its meaning.

Examples:
  jaxnmt train quickstart
  jaxnmt train transformer_small --data.train a.en a.de --run runs/mine
  echo "one hundred and two" | jaxnmt translate runs/quickstart"""


def _dispatch(words: list[str]) -> int | None:
    """-> the exit status; None is 0."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(OVERVIEW.format(shipped=", ".join(config_files.shipped())))
        return 0
    if words[0] == "--version":
        print(f"jaxnmt {__version__}")
        return 0
    return _call(words)()


def _call(words: list[str]) -> Callable[[], int | None]:
    """-> the words' verb with its names and options, ready to be called; mistakes in the words are raised here."""
    name = _known_verb(words)
    if name is None:
        raise UserError(_unknown_verb(words))
    verb, rest = VERBS[name], words[name.count(" ") + 1 :]
    rest, commanded = _cut(rest) if verb.commands else (rest, [])
    names = list(itertools.takewhile(lambda word: not re.match(r"-h$|--\w", word), rest))  # a sentence may begin with a dash
    flags = rest[len(names) :]
    command = " ".join(["jaxnmt", name, *(names or verb.takes)])
    wants_help = any(flag in ("-h", "--help") for flag in flags)
    if not wants_help:
        _check_names(name, verb, names)
    options = verb.given(names[0]) if verb.given and names else verb.blank
    if wants_help:
        return functools.partial(overrides.print_help, options, command, inspect.cleandoc(verb.function.__doc__ or ""))
    options = overrides.apply(flags, options, f"`{command} --help`")
    if verb.commands:
        _check_commanded(name, commanded)
        return functools.partial(verb.function, options, commanded)
    fixed = len(verb.takes) - (bool(verb.takes) and verb.takes[-1].endswith("...]"))
    rest_of_names = [names[fixed:]] if fixed < len(verb.takes) else []
    return functools.partial(verb.function, *names[:fixed], *[None] * (fixed - len(names)), *rest_of_names, options)


def _known_verb(words: list[str]) -> str | None:
    """The verb, of one word or two, that a command begins with."""
    return next((known for known in VERBS if words[: known.count(" ") + 1] == known.split()), None)


def _cut(words: list[str]) -> tuple[list[str], list[str]]:
    """Before and after `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _check_commanded(name: str, words: list[str]) -> None:
    """A command that is to run elsewhere is read here already, but for what only that place knows: which runs there are."""
    if not words or words[0] in ("-h", "--help"):
        raise UserError(f"`jaxnmt {name}` starts another command, given after `--`, such as: jaxnmt {name} -- train wmt14_big")
    known = _known_verb(words)
    if known and not VERBS[known].shared:
        shared = ", ".join(verb for verb in VERBS if VERBS[verb].shared)
        raise UserError(f"`jaxnmt {known}` is no work that processes share; `jaxnmt {name}` starts {shared}")
    if known is None or not VERBS[known].takes[0].startswith("RUN"):
        _call(words)


def _check_names(name: str, verb: Verb, names: Sequence[str]) -> None:
    least = sum(not place.startswith("[") for place in verb.takes)
    most = math.inf if verb.takes and verb.takes[-1].endswith("...]") else len(verb.takes)
    if not least <= len(names) <= most:
        given = f"not {' '.join(names)}" if names else "nothing was given there"
        raise UserError(
            f"`jaxnmt {name}` takes {' '.join(verb.takes) or 'nothing'} right after it, {given}; `jaxnmt {name} --help` has examples"
        )


def _unknown_verb(words: Sequence[str]) -> str:
    group = [known for known in VERBS if known.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        return f"`jaxnmt {words[0]}` is followed by {' or '.join(known.split()[1] for known in group)}; `jaxnmt --help` explains them"
    tried = " ".join(words[:2]) if group or words[0] in ("dat", "run") else words[0]
    near = overrides.nearest(tried, VERBS)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"jaxnmt has no verb {tried}{hint} (`jaxnmt --help` lists them)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command -> exit status: 0; 1 for a law that fails, a plan that does not fit, a study whose runs failed or came out otherwise;
    2 for a user's mistake, or a disk that is full or refuses; 3 for training that diverged; 75 for a process of several that is stuck;
    130 for Ctrl-C; 141 for a closed pipe; 143 for SIGTERM.
    """
    if argv is None:
        _as_a_process()
    try:
        status = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return distributed.leave(status or 0)
    except SystemExit as leaving:
        if leaving.code == 128 + signal.SIGTERM:  # all processes at once
            return distributed.leave(leaving.code)
        raise
    except UserError as error:
        print(f"{distributed.prefix()}error: {error}", file=sys.stderr)
        return distributed.leave(error.status)
    except KeyboardInterrupt as interrupt:
        print(f"{distributed.prefix()}interrupted{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr, flush=True)
        distributed.leave(130)
        if argv is None:  # a program that another thread is compiling cannot be stopped, and Python would wait for it
            os._exit(130)
        return 130
    except BrokenPipeError:
        _discard_stdout()
        return distributed.leave(141)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _discard_stdout()
        done = "opened" if error.errno == errno.EACCES else "written"
        print(f"{distributed.prefix()}error: {error.filename or 'stdout'} cannot be {done}: {error.strerror}", file=sys.stderr)
        return distributed.leave(2)


def _as_a_process() -> None:
    """What a process needs that a call in another's does not."""
    compiler.use_right_fusions()  # before JAX reads its flags
    if sys.argv[1:2] and sys.argv[1] in ("train", "resume", "bench"):
        huge_pages.use()  # before JAX takes memory
    if os.getpid() == 1:  # of a container, where the system lets SIGTERM do nothing unless it is asked for
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    for name in ("stdin", "stdout", "stderr"):  # closed by whoever started us
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))


def _discard_stdout() -> None:
    """Else Python complains of it again when it flushes at exit."""
    with contextlib.suppress(io.UnsupportedOperation):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
