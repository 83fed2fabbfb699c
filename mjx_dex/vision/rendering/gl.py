"""MuJoCo's own renderer: OpenGL, through EGL or OSMesa (``MUJOCO_GL``)."""

import mujoco
import numpy as np

from mjx_dex.vision.rendering.posing import Fields, posed


class GlRenderer:
    """Draws without anti-aliasing and shadows, which take a CPU four times as long.

    Args:
        model: the scene; it is posed, painted and lit for every image.
        size: height and width of images [pixels].
    """

    def __init__(self, model: mujoco.MjModel, size: int):
        model.vis.quality.offsamples = 0
        self._model, self._data = model, mujoco.MjData(model)
        self._renderer = mujoco.Renderer(model, size, size)
        flags = self._renderer.scene.flags
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
        ):
            flags[flag] = 0
        self._shape = (model.ncam, size, size, 3)
        self.description = f"MuJoCo's OpenGL renderer on {_device()}"

    def render(self, qpos: np.ndarray, fields: Fields) -> np.ndarray:
        """Images [worlds, cameras, size, size, 3] uint8."""
        images = np.empty((len(qpos), *self._shape), np.uint8)
        for world in posed(self._model, self._data, qpos, fields):
            for camera in range(self._model.ncam):
                self._renderer.update_scene(self._data, camera)
                self._renderer.render(out=images[world, camera])
        return images

    def close(self) -> None:
        """Release the OpenGL context."""
        self._renderer.close()


def _device() -> str:
    """What draws: a GPU's driver, or Mesa's llvmpipe on a CPU."""
    from OpenGL import GL

    return GL.glGetString(GL.GL_RENDERER).decode()
