"""What every command does first."""

import logging
import os

import jax
import mujoco

from mjx_dex import mujoco_warnings
from robot_bridge import terminal

log = logging.getLogger("mjx_dex")


def set_up() -> None:
    """Text for any terminal, short logs, and MuJoCo's warnings counted."""
    terminal.make_printable()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    mujoco_warnings.start_counting()


def check_drawing() -> None:
    """Raise ImportError if MuJoCo was imported without its renderer."""
    if not hasattr(mujoco, "GLContext"):
        raise ImportError(
            f"nothing can be drawn with MUJOCO_GL={os.environ.get('MUJOCO_GL')}; set "
            "it to egl (for GPUs) or osmesa (for CPUs)"
        )


def check_jax() -> None:
    """Raise ValueError if a variable of the environment makes JAX unusable here.

    JAX starts on its devices: in a job of several processes, only after they joined.
    """
    if jax.config.jax_enable_x64:
        value = os.environ.get("JAX_ENABLE_X64")
        raise ValueError(
            f"JAX_ENABLE_X64={value}: mjx_dex computes in 32 bits; unset it"
        )
    try:
        jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        if platforms is None:
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"JAX_PLATFORMS={platforms} does not work here ({reason}); set it to cpu "
            "or cuda, or unset it"
        ) from error
