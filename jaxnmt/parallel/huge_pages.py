"""Huge pages for large buffers, if Linux gives them on request (`transparent_hugepage` is `madvise`, as in most distributions).

XLA on CPU allocates a step's temporary memory with malloc, half a GiB and more, and frees it after the step. The kernel then maps it again
each time, 4 KiB at a time. For a small Transformer that is a seventh of the step's CPU time; with pages of 2 MiB it is a twentieth, and no
more memory is used. glibc reads this setting only when a process starts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def enable() -> None:
    """Restart this process with huge pages, unless it has them, the system does not offer them, or the user has tuned glibc.

    Call it before anything is read or written: only the process id, the arguments and open files survive.
    """
    try:
        is_offered = "[madvise]" in SETTING.read_text()
    except OSError:  # not Linux
        return
    if is_offered and VARIABLE not in os.environ:
        with contextlib.suppress(OSError):  # Python may not be executed again
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: VALUE})
