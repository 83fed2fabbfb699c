"""What every renderer can be asked for."""

from typing import TYPE_CHECKING, Protocol, Union

import numpy as np

from mjx_dex.vision.rendering.posing import Fields

if TYPE_CHECKING:
    # Workers do without it.
    import jax

Array = Union[np.ndarray, "jax.Array"]


class Pending(Protocol):
    """Images that are being drawn."""

    def result(self) -> Array:
        """[worlds, cameras, size, size, 3] uint8, as soon as they are there.

        Raises:
            RenderingError: if they cannot be drawn.
        """


class Renderer(Protocol):
    """Draws one scene in many poses and looks, from all of its cameras."""

    name: str
    """One of ``RENDERERS``."""
    description: str
    """By what it draws, for people."""

    def submit(self, qpos: Array, fields: Fields) -> Pending:
        """Draw soon.

        Args:
            qpos: [worlds, 31] joint angles, and the object's pose.
            fields: [worlds, ...] of ``MjModel``: see ``appearance.model_fields``.
        """

    def render(self, qpos: Array, fields: Fields) -> Array:
        """Draw now: images [worlds, cameras, size, size, 3] uint8."""

    def close(self) -> None:
        """Release what it holds; images that are not drawn are forgotten."""
