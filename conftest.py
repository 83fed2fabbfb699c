"""What holds for tests and notebooks alike."""

import os
import shutil
from pathlib import Path

# Before JAX is imported: a second run of the suite skips most compilations.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/mjx_dex/jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# Tests compile much and run little: without LLVM's optimizations, a third less long.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)


def pytest_addoption(parser):
    """Let the tests run on another engine."""
    parser.addoption(
        "--engine",
        default="native",
        choices=("native", "warp", "mjx"),
        help="physics engine of the small configuration that most tests share",
    )


def pytest_sessionstart(session):
    """Remove what notebooks left behind in an earlier session, once for all workers."""
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(Path(__file__).parent / "runs/notebooks", ignore_errors=True)
