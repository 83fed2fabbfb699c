"""MuJoCo Warp as it comes with MJX; nothing else here imports it.

It is no public part of MJX, so it may move or change with any MuJoCo: the version is
pinned, and ``tests/test_warp_engine.py`` compares the two.
"""

from mujoco.mjx.third_party.mujoco_warp import (
    Data,
    Model,
    OverflowType,
    make_data,
    put_model,
    step,
)

MUJOCO = "3.17"
"""The version that this was written for."""

__all__ = ["MUJOCO", "Data", "Model", "OverflowType", "make_data", "put_model", "step"]
