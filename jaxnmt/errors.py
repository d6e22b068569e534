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
"""Exit status of training that was asked to stop, has made at least one step in this session, and has saved.

The same command resumes, and a scheduler may start it again: nothing else leaves with this status. (HTCondor uses the same one.)
"""


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or the error's type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
