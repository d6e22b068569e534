"""Huge pages for huge buffers, where Linux gives them to those who ask (`transparent_hugepage` is `madvise`, as on most distributions).

XLA on CPU takes a step's temporary memory from malloc and gives it back after the step: half a GiB and more, which the
kernel hands out anew each time, 4 KiB at a time. For a small Transformer that is a seventh of the step's CPU time; with 2 MiB
pages it is a twentieth, and no more memory is used. glibc reads the setting when a process starts, and only then.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def use() -> None:
    """Start this process once more with huge pages, unless it has them, or they are not to be had, or the user has tuned glibc.

    Call it before anything is read, written or imported that matters: the process keeps its id, arguments and open files, no more.
    """
    try:
        to_be_asked_for = "[madvise]" in SETTING.read_text()
    except OSError:  # not Linux
        return
    if to_be_asked_for and VARIABLE not in os.environ:
        with contextlib.suppress(OSError):  # this process may not start Python again
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: VALUE})
