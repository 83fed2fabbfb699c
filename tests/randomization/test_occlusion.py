"""Occlusion's geometry against MuJoCo's, which has no part in it."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mjx_dex.config import ObjectConfig
from mjx_dex.hand import build_hand, names
from mjx_dex.hand.kinematics import Kinematics
from mjx_dex.hand.model import NAIL_BOXES
from mjx_dex.physics import initial_state
from mjx_dex.randomization.occlusion import NailBoxes, box_overlap, segment_to_box
from mjx_dex.types import Scene

BOX, CAPSULE, SPHERE = (
    mujoco.mjtGeom.mjGEOM_BOX,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_SPHERE,
)
FAR = 0.3
"""Distances are measured up to here [m]."""


def distance(first, second) -> float:
    """MuJoCo's distance [m] of two geoms (type, size, position, matrix)."""
    spec = mujoco.MjSpec()
    for kind, size, position, matrix in (first, second):
        w, x, y, z = np.roll(Rotation.from_matrix(matrix).as_quat(), 1)
        spec.worldbody.add_geom(type=kind, size=size, pos=position, quat=(w, x, y, z))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return mujoco.mj_geomDistance(model, data, 0, 1, FAR, None)


def test_distance_of_a_segment_from_a_box():
    rng = np.random.default_rng(0)
    half = rng.uniform(0.002, 0.01, (300, 3))
    ends = rng.uniform(-0.025, 0.025, (300, 2, 3))
    found = jax.vmap(segment_to_box)(jnp.asarray(ends), jnp.asarray(half))
    along = np.linspace(0, 1, 4001)[:, None]
    for k in range(300):
        points = ends[k, 0] + along * (ends[k, 1] - ends[k, 0])
        outside = np.maximum(np.abs(points) - half[k], 0)
        expected = np.linalg.norm(outside, axis=1).min()
        np.testing.assert_allclose(found[k], expected, atol=3e-5)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((0.025, 0, 0), 0.005),  # half sizes 10 and 20 mm along x
        ((0.035, 0, 0), -0.005),
        ((0, 0.0, -0.029), 0.001),
        ((0.025, 0.0299, 0), 0.0001),
    ],
)
def test_overlap_of_aligned_boxes(offset, expected):
    half = jnp.full(3, 0.01), jnp.full(3, 0.02)
    found = box_overlap(*half, jnp.eye(3), jnp.array(offset, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_boxes_overlap_where_mujoco_says_that_they_do():
    rng = np.random.default_rng(1)
    axes = Rotation.random(200, random_state=rng).as_matrix()
    offsets = rng.uniform(-0.045, 0.045, (200, 3))
    half_a, half_b = (0.004, 0.008, 0.012), (0.03, 0.025, 0.02)
    found = jax.vmap(box_overlap, (None, None, 0, 0))(
        jnp.array(half_a), jnp.array(half_b), jnp.asarray(axes), jnp.asarray(offsets)
    )
    seen = set()
    for k in range(200):
        first = (BOX, half_a, np.zeros(3), np.eye(3))
        expected = distance(first, (BOX, half_b, offsets[k], axes[k]))
        if abs(expected) > 2e-4:  # MuJoCo's own convex distance has a tolerance
            assert (found[k] > 0) == (expected < 0), (found[k], expected)
            seen.add(expected < 0)
    assert seen == {True, False}


def random_scene(hand, rng):
    """Joints anywhere within their limits, the object near a fingertip."""
    model, data = hand.model, mujoco.MjData(hand.model)
    low, high = model.jnt_range[:24].T
    data.qpos[:24] = rng.uniform(low, high)
    mujoco.mj_kinematics(model, data)
    tip = data.site_xpos[rng.choice(hand.fingertip_sites)]
    data.qpos[24:27] = tip + rng.uniform(-0.045, 0.045, 3)
    data.qpos[27:31] = rng.normal(size=4)
    data.qpos[27:31] /= np.linalg.norm(data.qpos[27:31])
    mujoco.mj_kinematics(model, data)
    return data


def to_scene(hand, qpos):
    positions, quaternions = Kinematics(hand).body_poses(qpos[:24])
    physics = initial_state(hand.model).replace(qpos=qpos)
    size = jnp.asarray(hand.model.geom_size, jnp.float32)
    return Scene(positions, quaternions, size, physics)


def by_mujoco(hand, data):
    """[5] depth of the other fingers and of the object in each nail's box [m]."""
    model, nearest = hand.model, []
    for finger, site in zip(names.FINGERS, hand.fingertip_sites, strict=True):
        body = model.site_bodyid[site]
        center, half = NAIL_BOXES[finger]
        turn = data.xmat[body].reshape(3, 3)
        nail = (BOX, half, data.xpos[body] + turn @ center, turn)
        distances = []
        for geom in range(model.ngeom):
            name = model.geom(geom).name
            is_finger = name[9:11].upper() in names.FINGERS
            is_finger &= model.geom_type[geom] == CAPSULE
            is_other = is_finger and name[9:11].upper() != finger
            if is_other or name.startswith("object"):
                matrix = data.geom_xmat[geom].reshape(3, 3)
                size, position = model.geom_size[geom], data.geom_xpos[geom]
                other = (model.geom_type[geom], size, position, matrix)
                distances.append(distance(nail, other))
        nearest.append(min(distances))
    return -np.array(nearest)


@pytest.mark.parametrize("shape", ["block", "prism", "sphere"])
def test_nails_are_reached_where_mujoco_says_that_they_are(shape, config):
    hand = build_hand(config.hand, ObjectConfig(shape=shape), config.physics)
    boxes, rng = NailBoxes(hand), np.random.default_rng(2)
    depths = jax.jit(lambda qpos: boxes.depths(to_scene(hand, qpos)))
    reached = 0
    for _ in range(25):
        data = random_scene(hand, rng)
        expected = by_mujoco(hand, data)
        found = np.asarray(depths(jnp.asarray(data.qpos, jnp.float32)))
        clear = np.abs(expected) > 3e-4
        np.testing.assert_array_equal(found[clear] > 0, expected[clear] > 0)
        reached += (expected > 3e-4).sum()
    assert 10 < reached < 115


def test_a_fingers_own_parts_do_not_hide_its_marker(hand):
    # A flat hand, the object far away: nothing is near any nail.
    qpos = initial_state(hand.model).qpos.at[24].set(5.0)
    depths = NailBoxes(hand).depths(to_scene(hand, qpos))
    assert (depths < 0).all()


def test_a_larger_object_reaches_further(hand):
    model, data = hand.model, mujoco.MjData(hand.model)
    mujoco.mj_kinematics(model, data)
    tip = data.site_xpos[hand.fingertip_sites[1]]
    # The nail looks down here: the object comes up to it from below.
    body = model.site_bodyid[hand.fingertip_sites[1]]
    center = data.xpos[body] + data.xmat[body].reshape(3, 3) @ NAIL_BOXES["MF"][0]
    assert np.linalg.norm(center - tip) < 0.01
    qpos = initial_state(model).qpos.at[24:27].set(jnp.asarray(center))
    qpos = qpos.at[26].add(-0.04)
    boxes, scene = NailBoxes(hand), to_scene(hand, qpos)
    larger = scene.replace(geom_size=scene.geom_size.at[-1].mul(1.05))
    grown = boxes.depths(larger)[1] - boxes.depths(scene)[1]
    np.testing.assert_allclose(grown, 0.05 * 0.0285, atol=1e-6)
