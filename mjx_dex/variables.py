"""Variables of the environment that libraries read while they are imported.

``import mjx_dex`` checks them before any of its modules imports such a library: a
command then ends with one line in place of a traceback.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

CACHES = {
    "JAX_COMPILATION_CACHE_DIR": "mjx_dex/jax",
    "WARP_CACHE_PATH": "warp",
    "MPLCONFIGDIR": "matplotlib",
}
"""Variables that name a library's cache, and its folder where they are not set."""


def check() -> None:
    """Check the variables; for commands, find folders of caches, too.

    Raises:
        ImportError: if a library cannot be imported as a variable says. A command ends
            instead, with one line.
    """
    command = command_of(sys.orig_argv)
    problem = _problem_of_jax() or _problem_of_mujoco()
    if problem and command:
        sys.exit(f"error: {problem}")
    if problem:
        raise ImportError(problem)
    if command.startswith("mjx_dex."):
        find_caches()


def command_of(arguments: list[str]) -> str:
    """Module of this project that Python was started with; empty for other programs.

    >>> command_of(["python", "-X", "dev", "-m", "mjx_dex.train", "--help"])
    'mjx_dex.train'
    """
    if "-m" not in arguments[:-1]:
        return ""
    module = arguments[arguments.index("-m") + 1]
    return module if module.startswith(("mjx_dex.", "robot_bridge.")) else ""


def _problem_of_jax() -> str:
    # Renderers' workers do without JAX, and it takes a second to import.
    if not any(name.startswith("JAX_") for name in os.environ):
        return ""
    try:
        import jax  # noqa: F401
    except ValueError as error:  # it names the variable
        return f"{str(error).splitlines()[0]}; correct or unset that variable"
    return ""


def _problem_of_mujoco() -> str:
    # Without the variable MuJoCo is not imported: ``mjx_dex.learning`` does without.
    name = os.environ.get("MUJOCO_GL")
    if not name:
        return ""
    try:
        import mujoco

        # MuJoCo itself drops this error, and has no renderer then.
        import mujoco.rendering.classic.gl_context  # noqa: F401
    except Exception as error:  # PyOpenGL fails in many ways without a library
        if getattr(error, "name", None) == "mujoco":
            raise  # it is not installed
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return (
            f"MUJOCO_GL={name} does not work here ({reason}); unset it, or set it to "
            "egl (for GPUs), osmesa (for CPUs) or disable (nothing is drawn)"
        )
    return ""


def find_caches() -> None:
    """Name the folders of caches; temporary ones where the usual cannot be written."""
    reasons = {}
    for variable, name in CACHES.items():
        given = os.environ.get(variable)
        if given == "":
            continue  # switched off
        try:
            folder = Path(given) if given else _cache_home() / name
            _check_writable(folder)
        except (OSError, RuntimeError) as error:
            reasons[variable] = str(error)
        else:
            if variable.startswith("JAX_"):  # the others have a place of their own
                os.environ[variable] = str(folder)
    if not reasons:
        return
    try:
        scratch = tempfile.mkdtemp(prefix="mjx_dex_")
    except OSError as error:
        sys.exit(f"error: {error}; set TMPDIR to a folder that can be written")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    variable, reason = next(iter(reasons.items()))
    wanted = variable if variable in os.environ else "XDG_CACHE_HOME"
    os.environ.update({name: f"{scratch}/{CACHES[name]}" for name in reasons})
    print(
        f"no cache: {reason}; what is compiled is not kept for the next start "
        f"(set {wanted} to a folder that can be written)",
        file=sys.stderr,
    )


def _cache_home() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError as error:
        raise RuntimeError("this user has no home directory") from error


def _check_writable(folder: Path) -> None:
    """Raise OSError unless files can be made in a folder, which need not be there."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OSError(f"{folder} cannot be written")
