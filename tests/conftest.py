"""What every test shares: the CPU, and one compilation cache, so that a program is compiled once for the whole suite."""

import atexit
import importlib.metadata
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

from jaxnmt.parallel import compiler

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="jaxnmt-tests-")  # what tests train is not trusted outside of them
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
# With these the suite takes less time where nothing is compiled yet; the laws are ours, not the compiler's.
_FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # which no other version knows
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # tracing takes half of a test's time, and less without source lines
compiler.use_right_fusions()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # so that every test finds `tiny`


@pytest.fixture
def compiled():
    """The names of functions that are lowered to be compiled, in order."""
    import jax

    names: list[str] = []

    def listen(event, seconds, fun_name="", **_):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)
