"""MuJoCo's physically based renderer, Filament: on a CPU through Vulkan's lavapipe.

The renderer that no net is trained on: it differs from the others in shading model,
tone mapping, light units, ambient occlusion and shadows, as Unity did from MuJoCo.

Without a Vulkan driver, or when it is asked for two images at once, it ends the
process, whatever Python does: only a process that may die should import it.
``mujoco.rendering.filament.renderer`` does the same and needs Python 3.12.
"""

import mujoco
import numpy as np
from mujoco import mjrf

# Its import registers the shaders that a context needs.
from mujoco.experimental.studio import window  # noqa: F401
from mujoco.rendering.filament.model_scene import ModelScene

from mjx_dex.vision.rendering.posing import Fields, posed


class FilamentRenderer:
    """See ``gl.GlRenderer``."""

    description = "MuJoCo's Filament renderer"

    def __init__(self, model: mujoco.MjModel, size: int):
        self._model, self._data, self._size = model, mujoco.MjData(model), size
        # Materials are made physically based, and lights photometric, by values that
        # the scene has before anything is drawn.
        model.mat_metallic[:], model.mat_roughness[:] = 0.1, 0.5
        model.light_intensity[:] = 1.0
        # The sky would be next to black in the units of photometric lights; without it
        # the background is the colour that images are cleared with.
        model.tex_type[model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX] = (
            mujoco.mjtTexture.mjTEXTURE_2D
        )
        self._context = mjrf.Context(mjrf.ContextConfig())
        self._context.set_clear_color([1.0, 1.0, 1.0])
        self._scene = ModelScene(self._context, model)
        config = mjrf.RenderTargetConfig(
            width=size, height=size, color_format=mjrf.PixelFormat.PIXEL_FORMAT_RGB8
        )
        self._target = self._context.create_render_target(config)
        self._read = mjrf.ReadRequest(target=self._target)

    def render(self, qpos: np.ndarray, fields: Fields) -> np.ndarray:
        """Images [worlds, cameras, size, size, 3] uint8."""
        cameras = self._model.ncam
        images = np.empty((len(qpos), cameras, self._size, self._size, 3), np.uint8)
        for world in posed(self._model, self._data, qpos, fields):
            self._scene.update(self._data)
            for camera in range(cameras):
                self._draw(camera, images[world, camera])
        return images

    def _draw(self, camera: int, image: np.ndarray) -> None:
        self._read.set_buffer(image)
        request = mjrf.RenderRequest()
        request.scene, request.target = self._scene.scene, self._target
        request.camera = self._camera(camera)
        request.viewport.width = request.viewport.height = self._size
        request.post_processing = request.shadows = True
        frame = self._context.render([request], [self._read])
        self._context.wait_for_frame(frame)

    def _camera(self, camera: int) -> "mjrf.Camera":
        model, axes = self._model, self._data.cam_xmat[camera].reshape(3, 3)
        near = model.vis.map.znear * model.stat.extent
        half = near * np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
        return mjrf.Camera(
            pos=self._data.cam_xpos[camera].astype(np.float32),
            forward=(-axes[:, 2]).astype(np.float32),
            up=axes[:, 1].astype(np.float32),
            frustum_center=0.0,
            frustum_width=half,
            frustum_bottom=-half,
            frustum_top=half,
            frustum_near=near,
            frustum_far=model.vis.map.zfar * model.stat.extent,
        )

    def close(self) -> None:
        """Nothing to do: the process that draws ends with it."""
