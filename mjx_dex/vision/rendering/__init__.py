"""Renderers: ``render(qpos, fields)`` to uint8 images [worlds, cameras, H, W, 3].

``gl`` and ``filament`` draw world after world in worker processes (``Farm``); ``warp``
draws all at once, in JAX. All read the same model fields.
"""

from mjx_dex.vision.rendering.choice import RENDERERS, make_renderer
from mjx_dex.vision.rendering.farm import Farm, RenderingError
from mjx_dex.vision.rendering.interface import Renderer

__all__ = ["RENDERERS", "Farm", "Renderer", "RenderingError", "make_renderer"]
