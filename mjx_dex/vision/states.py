"""Which poses of hand and object are drawn: from a policy or at random, then varied."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex import rotations
from mjx_dex.hand import Hand
from mjx_dex.hand.model import NUM_JOINTS
from mjx_dex.vision.config import StatesConfig
from mjx_dex.vision.losses import Pose

OVER_PALM = (1.0, 0.87, 0.21)
"""Where random objects are on average [m], world frame."""

BENT = 0.25
"""How far random joints are from a cupped hand: standard deviation, of their range."""

HELD_OUT = 0.05
"""Share of a file's states that are for test sets alone."""

POSITION = slice(NUM_JOINTS, NUM_JOINTS + 3)
QUATERNION = slice(NUM_JOINTS + 3, NUM_JOINTS + 7)


def random_state(key: jax.Array, config: StatesConfig, hand: Hand) -> jax.Array:
    """[31] joint angles around a cupped hand, and an object over the palm.

    For nets that are trained before there is a policy. Fingers may reach into the
    object; nobody sees it.
    """
    bend, place, axis, turn = jax.random.split(key, 4)
    low, high = jnp.asarray(hand.model.jnt_range[:NUM_JOINTS], jnp.float32).T
    angles = jnp.asarray(hand.rest_angles, jnp.float32)
    angles += BENT * (high - low) * jax.random.normal(bend, (NUM_JOINTS,))
    position = jnp.array(OVER_PALM) + config.spread * jax.random.normal(place, (3,))
    if config.max_rotation >= 180.0:
        quaternion = rotations.random(turn)
    else:
        angle = jnp.deg2rad(config.max_rotation) * jax.random.uniform(turn)
        quaternion = rotations.from_axis_angle(rotations.random_axis(axis), angle)
    return jnp.concatenate([jnp.clip(angles, low, high), position, quaternion])


def augment(key: jax.Array, qpos: jax.Array, config: StatesConfig) -> jax.Array:
    """Move the object of a state [31] (appendix D.2).

    As it is, or turned by 90 degrees one way about one of its main axes, or moved and
    turned a little. The paper says neither about how many axes nor how little.
    """
    which, quarter, jitter = jax.random.split(key, 3)
    position, quaternion = qpos[POSITION], qpos[QUATERNION]
    chance = jax.random.uniform(which)
    axis, sign = jax.random.split(quarter)
    turn = rotations.from_axis_angle(
        jnp.eye(3)[jax.random.randint(axis, (), 0, 3)],
        jnp.pi / 2 * jax.random.rademacher(sign, (), jnp.float32),
    )
    turned = rotations.multiply(quaternion, turn)
    offset, about, by = jax.random.split(jitter, 3)
    tilt = rotations.from_axis_angle(
        rotations.random_axis(about),
        jnp.deg2rad(config.rotation_jitter) * jax.random.normal(by),
    )
    jittered = rotations.multiply(quaternion, tilt)
    moved = position + config.position_jitter * jax.random.normal(offset, (3,))
    is_kept = chance < config.as_is
    is_turned = ~is_kept & (chance < config.as_is + config.quarter_turns)
    position = jnp.where(is_kept | is_turned, position, moved)
    quaternion = jnp.where(is_kept, quaternion, jnp.where(is_turned, turned, jittered))
    return qpos.at[POSITION].set(position).at[QUATERNION].set(quaternion)


def pose_of(qpos: jax.Array, hand: Hand) -> Pose:
    """The object's pose in a state [31], as ``Sensors`` has it."""
    position = jnp.asarray(hand.frame_rotation, jnp.float32) @ (
        qpos[POSITION] - jnp.asarray(hand.frame_position, jnp.float32)
    )
    return Pose(position, qpos[QUATERNION])


def split(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States to train on and the last ones, to test on."""
    number = max(1, round(HELD_OUT * len(states)))
    return states[:-number], states[-number:]


def load(path: str) -> np.ndarray:
    """States [n, 31] of ``python -m mjx_dex.vision.collect``, still on disk.

    Raises:
        ValueError: if the file is not there, cut off, too short or of something else.
    """
    try:
        states = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"states.path: cannot read {path}: {error}") from error
    if states.ndim != 2 or states.shape[1] != QUATERNION.stop:
        raise ValueError(
            f"states.path: {path} holds an array of shape {states.shape}; states are "
            f"[n, {QUATERNION.stop}]"
        )
    if len(states) < 2:
        raise ValueError(
            f"states.path: {path} holds {len(states)} states; one to train on and one "
            "to test on are needed"
        )
    return states
