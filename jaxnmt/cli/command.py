"""The `jaxnmt` command: finds the verb, reads its settings, runs it, and answers mistakes in a sentence."""

from __future__ import annotations

import errno
import functools
import inspect
import io
import logging
import math
import os
import pathlib
import re
import signal
import sys
from collections.abc import Sequence

from jaxnmt import __version__
from jaxnmt.cli.verbs import VERBS, Verb
from jaxnmt.config import files as config_files
from jaxnmt.config import overrides, trust
from jaxnmt.errors import SAVED, UserError
from jaxnmt.io import streams
from jaxnmt.parallel import compiler, distributed, huge_pages
from jaxnmt.runs import directory as run_directory

OVERVIEW = """jaxnmt: neural machine translation in JAX.

  jaxnmt train CONFIG [--run DIR] [settings]   train; on an existing run: go on
  jaxnmt resume RUN [settings]                 go on with a run from its last checkpoint
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
RUN is a run's folder, such as runs/quickstart. Opening a run with a model of its own executes that
model's code; if this computer has not trained it, read the code and add --trust to the command.
`jaxnmt VERB --help` explains a verb, and `jaxnmt train CONFIG --help` lists every setting with its
value in that config and its meaning.

Examples:
  jaxnmt train quickstart
  jaxnmt train transformer_small --data.train a.en a.de --run runs/mine
  echo "one hundred and two" | jaxnmt translate runs/quickstart"""


GROUPS = tuple(dict.fromkeys(verb.split()[0] for verb in VERBS if " " in verb))
TRUST = "--trust"
TRUST_HELP = f"With {TRUST}, the code of a run's own model is executed although this computer has not trained it."


def _dispatch(words: list[str]) -> int | None:
    """Run a command. Returns the exit status; None is 0."""
    words = _readable(words)
    if not words or words[0] in (*overrides.HELP, "help"):
        print(OVERVIEW.format(shipped=", ".join(config_files.shipped())))
        return 0
    if words[0] in GROUPS and words[1:2] and words[1] in overrides.HELP:
        print(_group_help(words[0]))
        return 0
    if words[0] == "--version":
        print(f"jaxnmt {__version__}")
        return 0
    with trust.everything(TRUST in _cut(words)[0]):
        return _call(words)()


def _readable(words: list[str]) -> list[str]:
    """Return a command's words with `~` replaced by the home folder where a shell leaves it: `--run=~/x`, or a word in quotes.

    Raises:
        UserError: a word is not UTF-8, or there is no home folder.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(f"the word {os.fsencode(word)!r} of the command is not UTF-8: write it in UTF-8, or rename the file") from None
    own, others = _cut(words)  # the others may be for another computer
    return [_with_home(word) for word in own] + words[len(own) : len(own) + 1] + others


def _with_home(word: str) -> str:
    found = re.match(r"(--[\w.-]+=|)(~/.*)", word, re.DOTALL)
    if not found:
        return word
    path = os.path.expanduser(found[2])
    if path.startswith("~"):
        raise UserError(f"{word}: there is no home folder for ~: set HOME, or write the whole path")
    return found[1] + path


def _call(words: list[str]) -> functools.partial:
    """Return the command's verb with its names and options, ready to be called; mistakes in the words are raised here."""
    words, trusting = _without_trust(words)
    name = _known_verb(words)
    if name is None:
        raise UserError(_unknown_verb(words))
    verb, rest = VERBS[name], words[name.count(" ") + 1 :]
    if trusting and not verb.opens_runs:
        raise UserError(f"`jaxnmt {name}` opens no run, and {TRUST} is for verbs that do")
    rest, commanded = _cut(rest) if verb.commands else (rest, [])
    options = verb.blank
    names, flags = overrides.divide(rest, options, verb.most)
    wants_help = any(flag in overrides.HELP for flag in flags)
    if verb.given and names and (wants_help or verb.least <= len(names) <= verb.most):
        options = verb.given(names[0])  # which may have settings of its own
        names, flags = overrides.divide(rest, options, verb.most)
    if not wants_help:
        _check_names(name, verb, names, [flag for flag in flags if overrides.takes_all(flag, options)])
    command = " ".join(["jaxnmt", name, *(names or verb.takes)])
    if wants_help:
        explained = inspect.cleandoc(verb.function.__doc__ or "") + (f"\n\n{TRUST_HELP}" if verb.opens_runs else "")
        return functools.partial(overrides.print_help, options, command, explained)
    options = overrides.apply(flags, options, f"`{command} --help`")
    if verb.commands:
        _check_commanded(name, commanded)
        return functools.partial(verb.function, options, commanded)
    fixed = len(verb.takes) - (verb.most == math.inf)
    rest_of_names = [names[fixed:]] if fixed < len(verb.takes) else []
    return functools.partial(verb.function, *names[:fixed], *[None] * (fixed - len(names)), *rest_of_names, options)


def _known_verb(words: list[str]) -> str | None:
    """The verb, of one word or two, that a command begins with."""
    return next((known for known in VERBS if words[: known.count(" ") + 1] == known.split()), None)


def _without_trust(words: list[str]) -> tuple[list[str], bool]:
    """Return a command without `--trust`, which may stand anywhere, and whether it was there. What follows `--` is another command."""
    end = words.index("--") if "--" in words else len(words)
    own = [word for word in words[:end] if word != TRUST]
    if not own and words:
        raise UserError(f"{TRUST} goes with a verb that opens a run, such as: jaxnmt translate RUN {TRUST}")
    return own + words[end:], len(own) < end


def _cut(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words before and after `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _check_commanded(name: str, words: list[str]) -> None:
    """Check a command that will run elsewhere as it is checked there. A run that is not here is not checked."""
    if not words or words[0] in ("-h", "--help"):
        raise UserError(f"`jaxnmt {name}` starts another command, given after `--`, such as: jaxnmt {name} -- train wmt14_big")
    own, trusting = _without_trust(words)
    known = _known_verb(own)
    verb = VERBS[known] if known else None
    if verb and not verb.check:
        shared = ", ".join(each for each in VERBS if VERBS[each].check)
        raise UserError(f"`jaxnmt {known}` is no work that processes share; `jaxnmt {name}` starts {shared}")
    run = overrides.divide(own[1:], verb.blank, verb.most)[0][:1] if verb and verb.takes[0] == "RUN" else []
    if run and ("://" in run[0] or not (pathlib.Path(run[0]) / run_directory.CONFIG).is_file()):
        return
    with trust.everything(trusting):
        call = _call(words)
        if call.func is overrides.print_help:
            raise UserError(f"`jaxnmt {name}` starts no help: type `jaxnmt {' '.join(own)}`")
        if verb and verb.check:
            verb.check(*call.args)


def _check_names(name: str, verb: Verb, names: Sequence[str], greedy: Sequence[str]) -> None:
    """Refuse too few names, or too many. `greedy`: the flags that were given and take all words after them."""
    usage = " ".join(["jaxnmt", name, *verb.takes, "[settings]", *(["-- VERB ..."] if verb.commands else [])])
    if len(names) < verb.least:
        taken = f"; {greedy[-1]} takes all words that follow it" if greedy else ""
        raise UserError(f"missing argument {verb.takes[len(names)]} (usage: {usage}){taken}")
    if len(names) > verb.most:
        raise UserError(f"unexpected argument {' '.join(names[len(verb.takes) :])} (usage: {usage})")


def _group_help(group: str) -> str:
    """Return the lines of the overview about the verbs of a group."""
    verbs = [line for line in OVERVIEW.splitlines() if line.startswith(f"  jaxnmt {group} ")]
    return "\n".join([f"usage: jaxnmt {group} VERB ...", "", *verbs, "", f"`jaxnmt {group} VERB --help` explains a verb, with examples."])


def _unknown_verb(words: Sequence[str]) -> str:
    group = [known for known in VERBS if known.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        verbs = " or ".join(known.split()[1] for known in group)
        return f"`jaxnmt {words[0]}` is followed by {verbs}; `jaxnmt {words[0]} --help` explains them"
    tried = " ".join(words[:2]) if group or words[0] in ("dat", "run") else words[0]
    near = overrides.nearest(tried, VERBS)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"jaxnmt has no verb {tried}{hint} (`jaxnmt --help` lists them)"


_STOPPED = (SAVED, 128 + signal.SIGHUP, 128 + signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0; 1 for a law that fails, a plan that does not fit, a study whose runs failed or came out otherwise; 2 for a user's mistake, or a disk
    that is full or refuses (the log's, too); 3 for training that diverged; 75 if other processes are stuck or cannot be reached; 85 for
    training that was asked to stop (SIGTERM, SIGHUP, a closed pipe) and has saved; 130 for Ctrl-C. Where nothing was saved: 129 for SIGHUP,
    141 for a closed pipe, 143 for SIGTERM. Training saves at Ctrl-C and when its log's disk is full, too: several processes leave with 85.
    """
    if argv is None:
        _as_a_process()
    try:
        status = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return distributed.shutdown(status or 0)
    except SystemExit as leaving:
        if leaving.code in _STOPPED:
            if argv is None:  # schedulers send a second signal, which must not change the status
                for number in (signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
            _discard_output()  # the closed pipe that stopped training, perhaps
            return distributed.shutdown(int(leaving.code))
        raise
    except UserError as error:
        _complain(f"error: {error}")
        return distributed.shutdown(error.status)
    except KeyboardInterrupt as interrupt:
        _complain(f"interrupted{f': {interrupt}' if str(interrupt) else ''}")
        distributed.shutdown(130)
        if argv is None:  # a program that another thread is compiling cannot be stopped, and Python would wait for it
            os._exit(130)
        return 130
    except BrokenPipeError:
        _discard_output()
        return distributed.shutdown(141)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        done = "opened" if error.errno == errno.EACCES else "written"
        _complain(f"error: {error.filename or 'stdout'} cannot be {done}: {error.strerror}")
        _discard_output()
        return distributed.shutdown(2)


def _as_a_process() -> None:
    """Set up what a process needs that a call in another's does not."""
    os.environ["JAX_ENABLE_X64"] = "0"  # before JAX reads it: a run computes what its config says, wherever it goes on
    compiler.use_right_fusions()  # before JAX reads its flags
    compiler.enable_compilation_cache()
    for name in ("absl", "asyncio"):  # what fails in Orbax's threads is raised again in ours, as one error instead of thirty
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if sys.argv[1:2] and sys.argv[1] in ("train", "resume", "bench"):
        huge_pages.enable()  # before JAX takes memory
    if os.getpid() == 1:  # of a container, where the system lets SIGTERM do nothing unless it is asked for
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    for name in ("stdin", "stdout", "stderr"):  # closed by whoever started us
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # results are UTF-8 whatever the locale; a character that cannot be written stops nothing
            stream.reconfigure(encoding="utf-8" if stream is sys.stdout else None, errors="backslashreplace")


def _complain(line: str) -> None:
    """Print a line to stderr, which may be what cannot be written."""
    try:
        print(f"{distributed.prefix()}{line}", file=sys.stderr, flush=True)
    except OSError:
        streams.discard(sys.stderr)


def _discard_output() -> None:
    """Discard what stdout and stderr still hold if they cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            streams.discard(stream)


if __name__ == "__main__":
    sys.exit(main())
