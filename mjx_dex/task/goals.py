"""Goal orientations: their distributions, and the curriculum over them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex import rotations
from mjx_dex.config import GoalConfig


def draw_goal(
    key: jax.Array, orientation: jax.Array, angle_limit: jax.Array, config: GoalConfig
) -> jax.Array:
    """Draw a goal quaternion [4].

    Args:
        key: random key.
        orientation: [4] the object's, which 'near' goals start from.
        angle_limit: [] largest turn to a 'near' goal [rad].
        config: which distribution.
    """
    if config.distribution == "near":
        return _near(key, orientation, config.angles[0], angle_limit)
    return _uniform(key) if config.distribution == "uniform" else _face_up(key)


def next_angle_limit(
    limit: jax.Array, met: jax.Array, failed: jax.Array, config: GoalConfig
) -> jax.Array:
    """Widen an environment's 'near' goals when it meets one, narrow them if it fails.

    Args:
        limit: [] largest turn so far [rad].
        met: [] bool, a goal was just met.
        failed: [] bool, an episode ended before its first goal.
        config: ``widening``, ``narrowing`` and the bounds.
    """
    change = config.widening * met - config.narrowing * failed
    return jnp.clip(limit + change, config.angles[1], jnp.pi)


def _uniform(key: jax.Array) -> jax.Array:
    return rotations.random(key)


def _near(key, orientation, angle_min, angle_max) -> jax.Array:
    axis_key, angle_key = jax.random.split(key)
    turn = jax.random.uniform(angle_key, minval=angle_min, maxval=angle_max)
    step = rotations.from_axis_angle(rotations.random_axis(axis_key), turn)
    return rotations.normalize(rotations.multiply(step, orientation))


def _face_up(key: jax.Array) -> jax.Array:
    """A heading drawn uniformly, times one of the cube's 24 rotations (robogym)."""
    pose_key, heading_key = jax.random.split(key)
    pose = jax.random.choice(pose_key, jnp.asarray(_CUBE_ROTATIONS))
    heading = jax.random.uniform(heading_key, minval=-jnp.pi, maxval=jnp.pi)
    turn = rotations.from_axis_angle(jnp.array([0.0, 0.0, 1.0]), heading)
    return rotations.multiply(turn, pose)


def _cube_rotations() -> np.ndarray:
    """[24, 4] rotations that map a cube onto itself, one sign each.

    Up to scale they are the quaternions whose entries are one of: a single 1, two of
    +-1, or four of +-1.
    """
    found = {}
    for entries in itertools.product((-1, 0, 1), repeat=4):
        quaternion = np.array(entries, np.float32)
        if np.count_nonzero(quaternion) in (1, 2, 4):
            leading = quaternion[np.nonzero(quaternion)[0][0]]
            unit = quaternion * leading / np.linalg.norm(quaternion)
            found[tuple(unit)] = unit
    return np.array(list(found.values()))


_CUBE_ROTATIONS = _cube_rotations()
