"""The `jaxnmt` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxnmt.cli import ending as ending  # first, see there


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, see `command.main`."""
    try:
        from jaxnmt.cli.command import main as run  # here, since a user may press Ctrl-C while it imports others
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return run(argv)
