"""A hand to rehearse with: MuJoCo's C engine behind the real hand's interfaces."""

# First: mjx_dex checks variables of the environment before MuJoCo is imported.
from mjx_dex import mujoco_warnings

__all__ = ["mujoco_warnings"]
