"""Renderers: ``render(qpos, fields)`` to uint8 images [worlds, cameras, H, W, 3].

``gl`` and ``filament`` draw world after world in worker processes (``Farm``); ``warp``
draws all at once, in JAX. All read the same model fields.
"""

from mjx_dex.vision.rendering.choice import RENDERERS, make_renderer
from mjx_dex.vision.rendering.farm import Farm, RenderingError

__all__ = ["RENDERERS", "Farm", "RenderingError", "make_renderer"]
