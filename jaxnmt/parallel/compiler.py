"""Configure XLA: keep programs between processes, avoid fusions that compute wrong numbers, and give it large pages of memory.

On CPUs, jaxlib 0.10.2 and later compute matrix products and sums with a library, YNNPACK. Its products alone are right. Its fused sums
are wrong in some versions (docs/trust.md). Here only products use YNNPACK. Without YNNPACK, the last bits of a row's product would depend
on the place of the row in the batch.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import sys
from pathlib import Path

from jaxnmt.errors import UserError, first_line
from jaxnmt.io.workers import cores
from jaxnmt.parallel import kept

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
DOTS_ONLY = f"{FLAG}=individual_dot"
TOLERANCE = 1e-3
"""Relative to the largest number. The known wrong results are off by 0.002 to 0.4."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_right_fusions() -> None:
    """Add `DOTS_ONLY` to $XLA_FLAGS, unless the user has set this flag.

    Call it before JAX is used: XLA reads the variable once.
    """
    flags = _flags()
    if FLAG not in flags:  # ours comes first, because XLA stops reading at a word that it does not know
        os.environ["XLA_FLAGS"] = f"{DOTS_ONLY} {flags}".strip()


def _flags() -> str:
    """Return XLA's flags. If $XLA_FLAGS names a file, read them from it, as XLA does."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    return " ".join(Path(flags).read_text(encoding="utf-8").split()) if os.path.isfile(flags) else flags


def enable_compilation_cache() -> None:
    """Keep compiled programs in $JAX_COMPILATION_CACHE_DIR or `xla`, and traced ones (`kept.py`) in `traced`.

    These folders are in $JAXNMT_CACHE or ~/.cache/jaxnmt.

    Call it before JAX is imported, which reads these variables. If the folder cannot be written, nothing is kept.
    """
    cache = Path(os.path.expanduser(os.environ.get("JAXNMT_CACHE") or "~/.cache/jaxnmt")).absolute()
    folder = cache / "xla"
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if os.path.isdir(there) and os.access(there, os.W_OK) and "~" not in folder.parts:  # it is, if there is no home folder
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        kept.enable(cache / "traced")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def enable_huge_pages() -> None:
    """Restart this process with huge pages, unless it has them, Linux does not give them on request, or the user has tuned glibc.

    XLA on CPU allocates a step's temporary memory with malloc, half a GiB and more, and frees it after the step. The kernel then maps it
    again each time, 4 KiB at a time. For a small Transformer that is a seventh of the step's CPU time; with pages of 2 MiB it is a
    twentieth, and no more memory is used. glibc reads this setting only when a process starts.

    Call it before anything is read or written: only the process id, the arguments and open files survive.
    """
    is_offered = HUGE_PAGES.exists() and "[madvise]" in HUGE_PAGES.read_text()
    if is_offered and "GLIBC_TUNABLES" not in os.environ:
        tuned = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], tuned)


def check() -> None:
    """Start JAX, if nothing has, with the flags of `use_right_fusions`, and check that it has a device and computes right numbers.

    $XLA_FLAGS is as before when this returns: XLA has read it. No setting of JAX is changed.

    Raises:
        UserError: JAX has no device, or computes wrong numbers.
    """
    import jax
    import jaxlib

    before = os.environ.get("XLA_FLAGS")
    use_right_fusions()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError, without a message, for a missing GPU
        wanted = os.environ.get("JAX_PLATFORMS", "")
        why = f" ({first_line(error)})" if str(error) else ""
        raise UserError(
            f"JAX finds no device{f' of JAX_PLATFORMS={wanted}' if wanted else ''}{why}: "
            f"install JAX for that device, or {'unset JAX_PLATFORMS' if wanted else 'set JAX_PLATFORMS=cpu'}"
        ) from error
    finally:
        del os.environ["XLA_FLAGS"]
        if before is not None:
            os.environ["XLA_FLAGS"] = before
    passed = kept.name("miscompilations", _processor()) if kept.is_enabled() else ""
    if passed and kept.read(passed) is not None:
        return
    wrong = miscompilations()
    if passed and not wrong:
        kept.write(passed, b"")
    if wrong:
        flags = _flags()
        remedy = f"remove {FLAG} from XLA_FLAGS" if FLAG in flags else f"set XLA_FLAGS={DOTS_ONLY} before JAX starts"
        if DOTS_ONLY in flags.split():
            remedy = "install another version of jax (pyproject.toml names the range)"
        raise UserError(
            f"jaxlib {jaxlib.__version__} computes wrong numbers on this CPU ({'; '.join(wrong)}): {remedy}; docs/trust.md has more"
        )


def _processor() -> tuple[object, ...]:
    """Return what XLA compiles for: the CPU's model and instructions, and the number of cores."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*", text, re.MULTILINE)
        return len(cores()), sorted(set(lines))
    return len(cores()), platform.processor(), platform.machine(), platform.version()


@functools.cache
def miscompilations() -> tuple[str, ...]:
    """Run the smallest programs that some versions compile wrongly on CPUs, in less than a second. Return what is wrong, in words.

    The gradient of x alone through normalise(x @ w) is wrong in jaxlib 0.11.2 to 0.12.0.1 from 4,096 rows on, and a sum after a vmapped
    matrix-vector product in jaxlib 0.10.2 over 32,768 rows (jax-ml/jax#39103).
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    if jax.default_backend() != "cpu":
        return ()
    random = np.random.default_rng(0)
    x, w, t = (random.standard_normal(shape).astype(np.float32) for shape in ((4096, 8), (8, 8), (4096, 8)))
    rows = np.arange(3 * 32_769, dtype=np.float32).reshape(-1, 3) / 100

    def through_a_norm(x):
        y = x @ w
        return (jnp.sin(y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True))) * t).sum()

    y = x.astype(np.float64) @ w
    scale = 1 / np.sqrt(np.square(y).mean(-1, keepdims=True))
    d_norm = np.cos(y * scale) * t
    d_y = scale * (d_norm - y * scale * (d_norm * y * scale).mean(-1, keepdims=True))
    sums_of_squares = jax.vmap(lambda row: jnp.square(jnp.eye(3) @ row).sum())
    pairs = {
        "a gradient through a norm": (jax.jit(jax.grad(through_a_norm))(x), d_y @ w.T),
        "a sum after a product of matrix and vector": (jax.jit(sums_of_squares)(rows), np.square(rows.astype(np.float64)).sum(-1)),
    }
    errors = {what: float(abs(found - expected).max() / abs(expected).max()) for what, (found, expected) in pairs.items()}
    return tuple(f"{what} is off by {error:.1%}" for what, error in errors.items() if not error < TOLERANCE)
