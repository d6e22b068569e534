"""The errors that jaxnmt raises, and the exit statuses that its command leaves with."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can correct. The message says what is wrong, where, and what to do.

    The command prints it without a traceback.
    """

    status = 2
    """The command's exit status."""


class Diverged(UserError):
    """Training stopped because gradients were NaN or infinite for too many steps in a row."""

    status = 3


class Unreachable(UserError):
    """Other processes of the command hang or cannot be reached. The same command may succeed later (EX_TEMPFAIL of sysexits.h)."""

    status = 75


SAVED = 85
"""Exit status of `Stopped`. A scheduler may start the same command again: nothing else leaves with this status. (HTCondor uses it too.)"""


class Stopped(Exception):
    """Training was stopped by a signal or a closed pipe; it has made at least one step since it began or resumed, and has saved.

    The same call or command resumes.
    """

    status = SAVED


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or the error's type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
