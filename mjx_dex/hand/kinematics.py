"""Forward kinematics of the hand in JAX, the same for every engine.

Engines disagree about what ``site_xpos`` means after a step (MuJoCo's is one substep
old, MJX-Warp's likewise), so sensing never asks them: positions come from ``qpos``.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_dex import rotations
from mjx_dex.hand.model import NUM_JOINTS, Hand


@dataclass(frozen=True)
class Level:
    """Bodies at one depth of the tree, computed together."""

    bodies: np.ndarray
    """[n] body ids."""
    parents: np.ndarray
    """[n] index of each body's parent in the level above."""
    joints: np.ndarray
    """[n] the body's hinge joint, or NUM_JOINTS for a body fixed to its parent."""


class Kinematics:
    """Where the hand's bodies and fingertips are, for given joint angles."""

    def __init__(self, hand: Hand):
        model = hand.model
        self._axis = _hinge_axes(model)
        self._position, self._quaternion = model.body_pos, model.body_quat
        self._levels = _levels(model)
        self._tip_body = model.site_bodyid[hand.fingertip_sites]
        self._tip_position = jnp.asarray(
            model.site_pos[hand.fingertip_sites], jnp.float32
        )
        self._num_bodies = model.nbody

    def body_poses(self, joint_angles: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Poses of the hand's bodies in the world.

        Args:
            joint_angles: [24] [rad].

        Returns:
            Positions [nbody, 3] [m] and quaternions [nbody, 4]; the object's row is
            not filled in.
        """
        # One entry more, always zero: the angle of bodies that have no joint.
        angles = jnp.concatenate([joint_angles, jnp.zeros(1)])
        positions = jnp.zeros((self._num_bodies, 3))
        quaternions = jnp.tile(jnp.array(rotations.IDENTITY), (self._num_bodies, 1))
        parent_position, parent_quaternion = positions[:1], quaternions[:1]
        for level in self._levels:
            parent_position, parent_quaternion = jax.vmap(_place)(
                parent_position[level.parents],
                parent_quaternion[level.parents],
                jnp.asarray(self._position[level.bodies], jnp.float32),
                jnp.asarray(self._quaternion[level.bodies], jnp.float32),
                jnp.asarray(self._axis[level.joints], jnp.float32),
                angles[level.joints],
            )
            positions = positions.at[level.bodies].set(parent_position)
            quaternions = quaternions.at[level.bodies].set(parent_quaternion)
        return positions, quaternions

    def fingertips(self, positions: jax.Array, quaternions: jax.Array) -> jax.Array:
        """[5, 3] fingertip markers in the world [m], for ``body_poses``."""
        offsets = jax.vmap(rotations.rotate)(
            quaternions[self._tip_body], self._tip_position
        )
        return positions[self._tip_body] + offsets


def _place(parent_position, parent_quaternion, position, quaternion, axis, angle):
    """Pose of one body from its parent's; the hinge passes through its origin."""
    fixed = rotations.multiply(parent_quaternion, quaternion)
    hinge = rotations.from_axis_angle(axis, angle)
    return (
        parent_position + rotations.rotate(parent_quaternion, position),
        rotations.multiply(fixed, hinge),
    )


def _hinge_axes(model: mujoco.MjModel) -> np.ndarray:
    """[NUM_JOINTS + 1, 3] axes, and a last one for "no joint"."""
    if np.any(model.jnt_pos[:NUM_JOINTS]):
        raise ValueError("the hand's joints must lie in their bodies' origins")
    return np.vstack([model.jnt_axis[:NUM_JOINTS], [[0.0, 0.0, 1.0]]])


def _levels(model: mujoco.MjModel) -> list[Level]:
    free = model.jnt_bodyid[NUM_JOINTS:]
    joint_of = {int(body): j for j, body in enumerate(model.jnt_bodyid[:NUM_JOINTS])}
    levels, above = [], [0]
    while above:
        children = [
            body
            for body in range(1, model.nbody)
            if model.body_parentid[body] in above and body not in free
        ]
        if children:
            parents = [above.index(model.body_parentid[body]) for body in children]
            joints = [joint_of.get(body, NUM_JOINTS) for body in children]
            levels.append(Level(*map(np.array, (children, parents, joints))))
        above = children
    return levels
