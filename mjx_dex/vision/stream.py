"""Batches of images with the poses that they show, one after another.

Batch k is drawn from the seed and k alone: it is the same whoever renders it, with
however many workers, and wherever a run is resumed.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex.vision import appearance, states
from mjx_dex.vision.config import AppearanceConfig, StatesConfig
from mjx_dex.vision.losses import Pose
from mjx_dex.vision.scene import VisionScene

AHEAD = 3
"""Batches that are being rendered while one is learned from."""


class Batch(NamedTuple):
    """Scenes that were rendered."""

    images: np.ndarray | jax.Array
    """[n, cameras, H, W, 3] uint8."""
    poses: Pose
    """[n, ...]."""


class Scenes(NamedTuple):
    """Scenes to be rendered."""

    qpos: jax.Array
    """[n, 31]."""
    fields: dict[str, jax.Array]
    """[n, ...] see ``appearance.model_fields``."""
    poses: Pose
    """[n, ...]."""


def make_draw(
    scene: VisionScene,
    config: StatesConfig,
    looks: AppearanceConfig,
    number: int,
    held_out: bool = False,
) -> Callable[[jax.Array], Scenes]:
    """A jitted function from a key to ``number`` scenes.

    Args:
        scene: that is seen.
        config: which poses.
        looks: which looks.
        number: of scenes.
        held_out: take those states of a file that are otherwise never taken.
    """
    nominal, known = appearance.nominal(scene), None
    if config.path is not None:
        training, testing = states.split(states.load(config.path))
        # On the device, which would have to be waited for with every batch of them.
        known = jnp.asarray(testing if held_out else training)

    def draw_one(key, known):
        state, moved, look = jax.random.split(key, 3)
        if known is None:
            qpos = states.random_state(state, config, scene.hand)
        else:
            qpos = known[jax.random.randint(state, (), 0, len(known))]
        qpos = states.augment(moved, qpos, config)
        drawn = appearance.sample(look, looks, nominal)
        fields = appearance.model_fields(drawn, scene)
        return Scenes(qpos, fields, states.pose_of(qpos, scene.hand))

    draw_all = jax.jit(jax.vmap(draw_one, (0, None)))
    return lambda key: draw_all(jax.random.split(key, number), known)


def stream(
    draw: Callable[[jax.Array], Scenes],
    renderer,
    seed: int,
    first: int = 0,
    ahead: int = AHEAD,
) -> Iterator[Batch]:
    """Batches ``first``, ``first + 1`` and so on, rendered ahead of their use."""
    key = jax.random.key(seed)
    waiting, number = deque(), first
    while True:
        while len(waiting) <= ahead:
            scenes = draw(jax.random.fold_in(key, number))
            future = renderer.submit(scenes.qpos, scenes.fields)
            waiting.append((future, scenes.poses))
            number += 1
        future, poses = waiting.popleft()
        yield Batch(future.result(), poses)
