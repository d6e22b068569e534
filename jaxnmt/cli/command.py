"""jaxnmt: neural machine translation in JAX.

{verbs}

CONFIG is a shipped name or the path of your own Python file. Shipped:
  {shipped}
RUN is a run's folder, such as runs/quickstart. If the run has a model of its own, opening it executes
that model's code. If this computer has not trained that code, read it and add --trust to the command.
`jaxnmt VERB --help` explains a verb. `jaxnmt train CONFIG --help` lists every setting with its value
in that config and its meaning.

Examples:
  jaxnmt train quickstart
  jaxnmt train transformer_small --data.train a.en a.de --run runs/mine
  echo "one hundred and two" | jaxnmt translate runs/quickstart
"""

# `jaxnmt --help` prints the docstring above. This module finds the verb, reads its names and options, runs it, and answers a mistake in one
# sentence.

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import inspect
import io
import os
import pathlib
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from jaxnmt import __version__
from jaxnmt.cli import ending
from jaxnmt.cli.verbs import VERBS, Verb
from jaxnmt.cli.words import HELP, divide, parse, print_help, takes_all
from jaxnmt.config import model_code
from jaxnmt.config.fields import did_you_mean
from jaxnmt.config.files import shipped_configs
from jaxnmt.errors import Stopped, UserError
from jaxnmt.io import streams
from jaxnmt.parallel import compiler, distributed, log
from jaxnmt.runs import directory as run_directory

TRUST = "--trust"
TRUST_HELP = f"{TRUST} executes the code of a run's own model although this computer has not trained it."


def _dispatch(words: list[str]) -> int | None:
    """Run a command. Returns the exit status; None is 0."""
    words = _readable(words)
    if set(_cut(words)[0]) <= {TRUST} or words[0] in (*HELP, "help"):
        print((__doc__ or "").strip().format(verbs=_usages(), shipped=", ".join(shipped_configs())))
    elif words[1:2] and words[1] in HELP and (verbs := _usages(f"{words[0]} ")):
        print(f"usage: jaxnmt {words[0]} VERB ...\n\n{verbs}\n\n`jaxnmt {words[0]} VERB --help` explains a verb, with examples.")
    elif words[0] == "--version":
        print(f"jaxnmt {__version__}")
    else:
        with model_code.all_trusted(TRUST in words):
            return _call(words)()
    return 0


def _usages(group: str = "") -> str:
    """Return a line for every verb whose name begins with `group`."""
    usages = {
        " ".join(["jaxnmt", name, *(verb.takes or ["--", "VERB", "..."])]): verb.summary
        for name, verb in VERBS.items()
        if name.startswith(group)
    }
    return "\n".join(f"  {usage:<46} {summary}" for usage, summary in usages.items())


def _readable(words: list[str]) -> list[str]:
    """Return a command's words, with `~/` replaced by the home folder if the shell left it: in `--run=~/x` or in quotes.

    Raises:
        UserError: a word is not UTF-8.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(f"the word {os.fsencode(word)!r} of the command is not UTF-8: write it in UTF-8, or rename the file") from None
    own, _ = _cut(words)  # the others may run on another computer
    home = os.path.expanduser("~/")
    return [re.sub(r"^(--[\w.-]+=|)~/", lambda found: found[1] + home, word) for word in own] + words[len(own) :]


def _cut(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words before and after the first `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _verb_and_rest(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verb, of one word or two, that a command begins with, and the words after it. `--trust` may stand anywhere.

    Raises:
        UserError: there is no such verb; names the nearest ones.
    """
    words = [word for word in words if word != TRUST]
    for name in VERBS:
        if words[: len(name.split())] == name.split():
            return name, words[len(name.split()) :]
    group = [name.split()[1] for name in VERBS if name.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        raise UserError(f"`jaxnmt {words[0]}` is followed by {' or '.join(group)}; `jaxnmt {words[0]} --help` explains them")
    tried = " ".join(words[:2]) if group else words[0]
    near = did_you_mean(tried, VERBS) or did_you_mean(" ".join(words[:2]), VERBS)
    raise UserError(f"jaxnmt has no verb {tried}{near} (`jaxnmt --help` lists them)")


def _call(words: list[str]) -> functools.partial:
    """Return the verb's function with its names and options, ready to be called.

    Raises:
        UserError: a mistake in the words.
    """
    own, others = _cut(words)
    name, rest = _verb_and_rest(own)
    verb = VERBS[name]
    if verb.takes:
        rest += others
    if TRUST in own and not verb.opens_runs:
        raise UserError(f"`jaxnmt {name}` opens no run; {TRUST} is for verbs that do")
    first = divide(rest, verb.options(), verb.most)[0][:1]
    options = verb.options(*first)  # a user's own model has flags of its own
    names, flags = divide(rest, options, verb.most)
    command = " ".join(["jaxnmt", name, *(names or verb.takes)])
    if any(flag in HELP for flag, *_ in flags):
        explained = inspect.cleandoc(verb.function.__doc__ or "") + (f"\n\n{TRUST_HELP}" if verb.opens_runs else "")
        return functools.partial(print_help, options, command, explained)
    _check_names(name, verb, names, [flag for flag, *_ in flags if takes_all(flag, options)])
    options = parse(flags, options, f"`{command} --help`")
    if not verb.takes:
        _check_launched(name, others)
        return functools.partial(verb.function, options, others)
    missing = [None] * (len(verb.takes) - len(names))
    arguments = [names[0], names[1:]] if verb.most > len(verb.takes) else [*names, *missing]  # one name and a list, or each name
    return functools.partial(verb.function, *arguments, options)


def _check_launched(launch: str, words: list[str]) -> None:
    """Check a command that will run elsewhere as it would be checked there. If it names a run that is not here, it is not checked."""
    if set(words) <= {TRUST, *HELP}:
        raise UserError(f"`jaxnmt {launch}` starts another command, given after `--`, such as: jaxnmt {launch} -- train wmt14_big")
    name, rest = _verb_and_rest(words)
    verb = VERBS[name]
    if not verb.check:
        shared = ", ".join(each for each in VERBS if VERBS[each].check)
        raise UserError(f"processes cannot share the work of `jaxnmt {name}`; `jaxnmt {launch}` starts {shared}")
    run = divide(rest, verb.options(), verb.most)[0][:1] if verb.takes == ["RUN"] else []
    if run and ("://" in run[0] or not (pathlib.Path(run[0]) / run_directory.CONFIG).is_file()):
        return
    call = _call(words)
    if call.func is print_help:
        raise UserError(f"`jaxnmt {launch}` cannot start help: type `jaxnmt {name} {' '.join(rest)}`")
    verb.check(*call.args)


def _check_names(name: str, verb: Verb, names: Sequence[str], greedy: Sequence[str]) -> None:
    """Refuse a command with too few names, or too many. `greedy`: the flags given that take all words up to the next flag."""
    usage = " ".join(["jaxnmt", name, *verb.takes, "[settings]", *([] if verb.takes else ["-- VERB ..."])])
    if len(names) < sum(not place.startswith("[") for place in verb.takes):
        taken = f"; {greedy[-1]} takes all words that follow it" if greedy else ""
        raise UserError(f"missing argument {verb.takes[len(names)]} (usage: {usage}){taken}")
    if len(names) > verb.most:
        raise UserError(f"unexpected argument {' '.join(names[len(verb.takes) :])} (usage: {usage})")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    - 0: success
    - 1: a law fails, a plan does not fit, or runs of a study failed or gave other results than before
    - 2: a user's mistake, or a disk that is full or not writable
    - 3: training diverged
    - 75: other processes hang or cannot be reached
    - 85: training was stopped by SIGTERM, SIGHUP or a closed pipe, and has saved
    - 130: Ctrl-C; training has saved (of several processes: 85)
    - 129, 141, 143: SIGHUP, a closed pipe, SIGTERM, if there was nothing to save
    """
    status: Any
    if argv is None:
        _as_a_process()
    try:
        with log.printed():
            status = _dispatch(list(sys.argv[1:] if argv is None else argv)) or 0
        sys.stdout.flush()
    except (SystemExit, Stopped) as leaving:
        status = leaving.status if isinstance(leaving, Stopped) else leaving.code
        if argv is None:  # schedulers send a second signal, which must not change the status
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
    except UserError as error:
        status = error.status
        _complain(f"error: {error}")
    except KeyboardInterrupt as interrupt:
        status = 130
        _complain(f"interrupted{f': {interrupt}' if str(interrupt) else ''}")
    except BrokenPipeError:
        status = 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        status = 2
        done = "opened" if error.errno == errno.EACCES else "written"
        _complain(f"error: {error.filename or 'stdout'} cannot be {done}: {error.strerror}")
    _discard_output()
    status = distributed.shutdown(status)
    if argv is None and sys.argv[1:2] == ["translate"] and isinstance(status, int):
        ending.at_once(status)
    if status == 130 and argv is None:  # a program that another thread is compiling cannot be stopped, and Python would wait for it
        os._exit(130)
    return status


def _as_a_process() -> None:
    """Set up what a process needs that a call in another's does not."""
    os.environ["JAX_ENABLE_X64"] = "0"  # before JAX reads it: a run computes what its config says, wherever it goes on
    compiler.use_right_fusions()  # before JAX reads its flags
    compiler.enable_compilation_cache()
    # A process of Python's own outlives a command that is killed, and warns of what it cleans up.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    log.silence_libraries()
    verb, *words = sys.argv[1:] or [""]
    opens_run = any(os.path.isfile(os.path.join(word, run_directory.CONFIG)) for word in words)
    if verb in ("train", "resume") or (verb == "bench" and not opens_run):  # decoding is measured as `translate` does it
        compiler.enable_huge_pages()  # before JAX takes memory
    if verb == "translate":  # a start makes no garbage, and looking for it takes a tenth of the time
        gc.set_threshold(100_000)
    if os.getpid() == 1:  # of a container, where the system lets SIGTERM do nothing unless it is asked for
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    for name in ("stdin", "stdout", "stderr"):  # closed by whoever started us
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # results are UTF-8 whatever the locale; a character that cannot be written stops nothing
            stream.reconfigure(encoding="utf-8" if stream is sys.stdout else None, errors="backslashreplace")


def _complain(line: str) -> None:
    """Print a line to stderr, unless stderr is what cannot be written."""
    with contextlib.suppress(OSError):
        print(f"{distributed.prefix()}{line}", file=sys.stderr, flush=True)


def _discard_output() -> None:
    """Discard what stdout and stderr still hold if they cannot be written, such as the closed pipe that stopped training."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            streams.discard(stream)
