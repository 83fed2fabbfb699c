"""What hides a fingertip's marker: geometry in JAX, the same on every engine.

A small box sits on the back of each nail, weightless and touching nothing (C.2, note
16). A marker is hidden as far as another finger or the object reaches into its box.
"""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_dex import rotations
from mjx_dex.hand import Hand, names
from mjx_dex.hand.model import NAIL_BOXES, NUM_JOINTS
from mjx_dex.types import Scene

BISECTIONS = 10
"""Halvings of a finger's segment, 45 mm at most: 0.02 mm off at worst."""


class NailBoxes:
    """The boxes on the nails, and what may reach into them."""

    def __init__(self, hand: Hand):
        model = hand.model
        fingers = names.FINGERS
        self._bodies = model.site_bodyid[hand.fingertip_sites]
        boxes = [NAIL_BOXES[finger] for finger in fingers]
        self._center = _float([center for center, _ in boxes])
        self._half = _float([half for _, half in boxes])
        capsules = _finger_capsules(model)
        self._others = np.array(
            [[g for g, f in capsules if f != finger] for finger in fingers]
        )
        axis = np.zeros((model.ngeom, 3))
        for geom, _ in capsules:
            mujoco.mju_rotVecQuat(axis[geom], [0, 0, 1.0], model.geom_quat[geom])
        half_length = axis * model.geom_size[:, 1:2]
        self._geom_body = model.geom_bodyid
        self._ends = _float(
            np.stack([model.geom_pos - half_length, model.geom_pos + half_length], 1)
        )
        self._object_geoms = np.flatnonzero(
            model.geom_bodyid == model.body("object").id
        )
        self._is_ball = (
            model.geom_type[self._object_geoms] == mujoco.mjtGeom.mjGEOM_SPHERE
        )
        self._object_quat = _float(model.geom_quat[self._object_geoms])

    def depths(self, scene: Scene) -> jax.Array:
        """[5] how far anything reaches into the box on each nail [m]; may be < 0."""
        position = scene.body_position[self._bodies]
        quaternion = scene.body_quaternion[self._bodies]
        center = position + jax.vmap(rotations.rotate)(quaternion, self._center)
        to_box = jax.vmap(rotations.to_matrix)(quaternion).swapaxes(-1, -2)
        by_finger = self._fingers(scene, center, to_box)
        return jnp.maximum(by_finger, self._object(scene, center, to_box))

    def _fingers(self, scene, center, to_box) -> jax.Array:
        """[5] depth of the other fingers' capsules."""
        geoms = np.unique(self._others)
        body = self._geom_body[geoms]
        turn = jax.vmap(rotations.to_matrix)(scene.body_quaternion[body])
        ends = jnp.einsum("gij,gej->gei", turn, self._ends[geoms])
        ends += scene.body_position[body][:, None]
        others = np.searchsorted(geoms, self._others)
        radius = scene.geom_size[self._others, 0]
        ends = jnp.einsum(
            "fij,fgej->fgei", to_box, ends[others] - center[:, None, None]
        )
        distance = jax.vmap(jax.vmap(segment_to_box, (0, None)))(ends, self._half)
        return (radius - distance).max(1)

    def _object(self, scene, center, to_box) -> jax.Array:
        """[5] depth of the object."""
        pose = scene.physics.qpos[NUM_JOINTS:]
        offset = jnp.einsum("fij,fj->fi", to_box, pose[:3] - center)
        turn = rotations.to_matrix(pose[3:])
        depths = []
        for k, geom in enumerate(self._object_geoms):
            size = scene.geom_size[geom]
            if self._is_ball[k]:
                outside = jnp.maximum(jnp.abs(offset) - self._half, 0.0)
                depths.append(size[0] - jnp.linalg.norm(outside, axis=-1))
            else:
                axes = turn @ rotations.to_matrix(self._object_quat[k])
                depths.append(
                    jax.vmap(box_overlap, (0, None, 0, 0))(
                        self._half, size, to_box @ axes, offset
                    )
                )
        return jnp.stack(depths).max(0)


def segment_to_box(ends: jax.Array, half: jax.Array) -> jax.Array:
    """[] distance [m] of a segment [2, 3] from a box [3] around the origin.

    The squared distance along the segment is convex: its slope is bisected.
    """
    start, direction = ends[0], ends[1] - ends[0]

    def outside(t):
        point = start + t * direction
        return jnp.sign(point) * jnp.maximum(jnp.abs(point) - half, 0.0)

    low, high = jnp.zeros(()), jnp.ones(())
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        falling = outside(middle) @ direction < 0
        low, high = jnp.where(falling, middle, low), jnp.where(falling, high, middle)
    return jnp.linalg.norm(outside((low + high) / 2))


def box_overlap(
    half_a: jax.Array, half_b: jax.Array, axes: jax.Array, offset: jax.Array
) -> jax.Array:
    """[] overlap of two boxes along the axis that separates them best [m].

    Args:
        half_a: [3] half sizes of a box around the origin.
        half_b: [3] half sizes of the other one.
        axes: [3, 3] columns are the other one's axes.
        offset: [3] its centre.
    """
    edges = jnp.cross(jnp.eye(3)[:, None], axes.T[None]).reshape(9, 3)
    directions = jnp.concatenate([jnp.eye(3), axes.T, edges])
    length = jnp.linalg.norm(directions, axis=-1)
    reach = jnp.abs(directions) @ half_a + jnp.abs(directions @ axes) @ half_b
    overlap = (reach - jnp.abs(directions @ offset)) / jnp.maximum(length, 1e-6)
    # Parallel edges have no common normal; the faces' axes decide then.
    return jnp.where(length > 1e-3, overlap, jnp.inf).min()


def _finger_capsules(model: mujoco.MjModel) -> list[tuple[int, str]]:
    """(geom, finger) of every capsule that is a part of a finger."""
    capsules = []
    for geom in range(model.ngeom):
        name = model.geom(geom).name.removeprefix("robot0:C_")
        finger = name[:2].upper()
        is_capsule = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE
        if is_capsule and finger in names.FINGERS:
            capsules.append((geom, finger))
    return capsules


def _float(x) -> jax.Array:
    return jnp.asarray(x, jnp.float32)
