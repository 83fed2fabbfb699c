"""Putting one world into a MuJoCo model, for the renderers that draw one at a time.

Like those renderers it imports no JAX: they run in processes of their own.
"""

from collections.abc import Iterator, Mapping

import mujoco
import numpy as np

Fields = Mapping[str, np.ndarray]
"""Fields of ``MjModel`` by name, [worlds, ...]: see ``appearance.model_fields``."""


def posed(
    model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray, fields: Fields
) -> Iterator[int]:
    """Put world after world into model and data; yields their numbers."""
    for world in range(len(qpos)):
        for name, values in fields.items():
            getattr(model, name)[:] = values[world]
        data.qpos[:] = qpos[world]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        yield world
