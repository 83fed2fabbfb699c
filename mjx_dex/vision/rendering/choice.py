"""Which renderers there are, and which works here."""

import importlib.util
import os
from typing import Literal, get_args

import mujoco

from mjx_dex.vision.config import RendererName
from mjx_dex.vision.rendering.farm import Farm, RenderingError
from mjx_dex.vision.rendering.interface import Renderer

RENDERERS = get_args(RendererName)

PACKAGES = {
    "egl": "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0",
    "osmesa": "libosmesa6",
    "filament": "libvulkan1 mesa-vulkan-drivers",
}
"""What Debian and Ubuntu call what a machine without a GPU needs."""


def make_renderer(
    name: Literal["auto", RendererName],
    model: mujoco.MjModel,
    size: int,
    workers: int = 1,
) -> Renderer:
    """A renderer that works here.

    Args:
        name: which; 'auto' is warp on an NVIDIA GPU, elsewhere gl, or else warp.
        model: the scene.
        size: height and width of images [pixels].
        workers: processes of those that draw in processes.

    Raises:
        RenderingError: if it does not work here; the message says why and what to
            install.
        ValueError: if there is none of that name.
    """
    if name == "warp":
        return _warp(model, size)
    if name == "gl":
        return _first_of(
            *(lambda b=b: _farm("gl", model, size, workers, b) for b in _backends())
        )
    if name == "filament":
        return _farm("filament", model, size, workers)
    if name != "auto":
        raise ValueError(f"renderer {name!r} is not one of {', '.join(RENDERERS)}")
    others = [
        lambda: make_renderer("gl", model, size, workers),
        lambda: _warp(model, size),
    ]
    return _first_of(*(others[::-1] if _has_nvidia_gpu() else others))


def _backends() -> tuple[str, ...]:
    asked = os.environ.get("MUJOCO_GL")
    return (asked,) if asked else ("egl", "osmesa")


def _farm(name, model, size, workers, backend="") -> Farm:
    try:
        return Farm(name, model, size, workers, backend)
    except RenderingError as error:
        packages = PACKAGES.get(backend or name)
        hint = f"; apt-get install {packages}" if packages else ""
        how = f" through {backend}" if backend else ""
        raise RenderingError(f"{error}{how}{hint}") from error


def _warp(model: mujoco.MjModel, size: int):
    if importlib.util.find_spec("warp") is None:
        raise RenderingError(
            "renderer warp: MuJoCo Warp is not installed: pip install 'mjx_dex[warp]'"
        )
    # Imported here: it imports JAX, which workers do without.
    from mjx_dex.vision.rendering.warp import WarpRenderer

    try:
        return WarpRenderer(model, size)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RenderingError(f"renderer warp does not work here: {reason}") from error


def _has_nvidia_gpu() -> bool:
    import jax

    device = jax.devices()[0]
    return device.platform != "cpu" and "nvidia" in device.device_kind.lower()


def _first_of(*makers):
    """What the first maker makes that can.

    Raises:
        RenderingError: with the reasons of all, if none can.
    """
    reasons = []
    for make in makers:
        try:
            return make()
        except RenderingError as error:
            reasons.append(str(error))
    raise RenderingError("; ".join(reasons))
