"""MJX-Warp's ray tracer: all worlds at once, in JAX, on NVIDIA GPUs and any CPU.

It needs no system package. It imitates MuJoCo's own shading, so it is no stranger to a
net trained on ``gl``.
"""

from concurrent.futures import Future
from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import warp
from mujoco import mjx

from mjx_dex import rotations
from mjx_dex.vision.rendering.posing import Fields

LACKS = ("light_intensity", "mat_metallic", "mat_roughness")
"""Fields of MuJoCo's model that Warp's has not; Filament alone reads them."""


class WarpRenderer:
    """A ``Renderer``.

    The number of worlds is compiled in: each new one takes seconds.
    """

    name = "warp"

    def __init__(self, model: mujoco.MjModel, size: int):
        self._source, self._size = model, size
        # A dozen kernels that take milliseconds: a CUDA graph of them saves nothing.
        on_cpu = jax.default_backend() == "cpu"
        mode = None if on_cpu else warp.JaxCallableGraphMode.NONE
        self._model = mjx.put_model(model, impl="warp", graph_mode=mode)
        self._programs, self._newest = {}, None
        device = jax.devices()[0]
        self.description = f"MJX-Warp's ray tracer on {device.device_kind}"

    def render(self, qpos: np.ndarray | jax.Array, fields: Fields) -> jax.Array:
        """See ``Renderer``; images are on JAX's device."""
        worlds = len(qpos)
        if worlds not in self._programs:
            self._programs[worlds] = self._compile(worlds)
        known = {name: fields[name] for name in fields if name not in LACKS}
        self._newest = self._programs[worlds](jnp.asarray(qpos, jnp.float32), known)
        return self._newest

    def submit(self, qpos: np.ndarray | jax.Array, fields: Fields) -> Future:
        """See ``Renderer``; JAX goes on before the images are there."""
        future = Future()
        future.set_result(self.render(qpos, fields))
        return future

    def _compile(self, worlds: int):
        context = mjx.create_render_context(
            self._source,
            nworld=worlds,
            cam_res=(self._size, self._size),
            render_rgb=True,
            render_depth=False,
            use_textures=False,
            use_ambient_lighting=False,
            background_color=(1.0, 1.0, 1.0, 1.0),
            # Fields of view differ from world to world.
            use_precomputed_rays=False,
        )
        data = mjx.make_data(self._source, impl="warp", naconmax=1, njmax=1)
        render = jax.jit(jax.vmap(partial(self._render_one, context.pytree(), data)))

        def program(qpos, fields, context=context):
            # The context is kept alive: the program knows it by number only.
            return render(qpos, fields)

        return program

    def _render_one(self, context, data, qpos, fields):
        model = self._model.replace(**fields)
        data = mjx.kinematics(model, data.replace(qpos=qpos))
        # What mjx.camlight does, which Warp lacks: all of these are fixed to the world.
        data = data.replace(
            cam_xpos=model.cam_pos,
            cam_xmat=jax.vmap(rotations.to_matrix)(model.cam_quat),
        )
        data = data.tree_replace(
            {"_impl.light_xpos": model.light_pos, "_impl.light_xdir": model.light_dir}
        )
        data = mjx.refit_bvh(model, data, context)
        packed, _, _ = mjx.render(model, data, context)
        views = [mjx.get_rgb(context, i, packed) for i in range(self._source.ncam)]
        return jnp.round(255 * jnp.stack(views)).astype(jnp.uint8)

    def close(self) -> None:
        """Forget the programs and what they draw into, once nothing is being drawn."""
        jax.block_until_ready(self._newest)
        self._programs.clear()
