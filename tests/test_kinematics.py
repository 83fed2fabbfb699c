"""Forward kinematics and the sensing frame, against MuJoCo C and robogym."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mjx_dex.hand import build_hand
from mjx_dex.hand.kinematics import Kinematics

FINGERS = ("ff", "mf", "rf", "lf", "th")
N = 8

# robogym's fingertips in the frame of its base markers, all joints at 0. Its frame is
# left-handed (y = x cross z); ours is right-handed, so y has the other sign.
ROBOGYM_FINGERTIPS = [
    (0.072, 0.257, 0.033),
    (0.05, 0.261, 0.033),
    (0.028, 0.257, 0.033),
    (0.005, 0.25, 0.033),
    (0.1472206, 0.1583763, 0.02),
]
ROBOGYM_MARKERS = {
    "ref0": (0.961, 1.025, 0.169),
    "ref1": (1.039, 1.025, 0.169),
    "ref2": (1.039, 1.025, 0.091),
}


@pytest.fixture(scope="module")
def angles(hand):
    """[N, 24] half as far again as the joints can turn."""
    rng = np.random.default_rng(0)
    return 1.5 * rng.uniform(*hand.model.jnt_range[:24].T, (N, 24))


@pytest.fixture(scope="module")
def truth(hand, angles):
    """MuJoCo's own data for every row of ``angles``."""
    found = []
    for row in angles:
        data = mujoco.MjData(hand.model)
        data.qpos[:24] = row
        mujoco.mj_kinematics(hand.model, data)
        found.append(data)
    return found


@pytest.fixture(scope="module")
def kinematics(hand):
    return Kinematics(hand)


def test_body_poses_are_mujocos(kinematics, angles, truth):
    positions, quaternions = jax.jit(jax.vmap(kinematics.body_poses))(
        jnp.asarray(angles, jnp.float32)
    )
    # The last body is the object, which is not a part of the hand.
    expected = np.stack([data.xpos[:-1] for data in truth])
    np.testing.assert_allclose(positions[:, :-1], expected, atol=1e-5)
    turns = np.asarray(quaternions[:, 1:-1]).reshape(-1, 4)
    expected = np.stack([data.xquat[1:-1] for data in truth]).reshape(-1, 4)
    error = Rotation.from_quat(turns) * Rotation.from_quat(expected).inv()
    assert error.magnitude().max() < 1e-5


def test_fingertips_are_mujocos_in_the_order_of_fingers(kinematics, angles, truth):
    tips = jax.jit(
        jax.vmap(lambda row: kinematics.fingertips(*kinematics.body_poses(row)))
    )(jnp.asarray(angles, jnp.float32))
    expected = [
        [data.site(f"robot0:S_{finger}tip").xpos for finger in FINGERS]
        for data in truth
    ]
    np.testing.assert_allclose(tips, expected, atol=1e-5)


def test_kinematics_do_without_an_object(config, kinematics, angles):
    bare = Kinematics(build_hand(config.hand, None, config.physics))
    row = jnp.asarray(angles[0], jnp.float32)
    positions, quaternions = bare.body_poses(row)
    expected, _ = kinematics.body_poses(row)
    np.testing.assert_array_equal(positions, expected[:-1])
    assert bare.fingertips(positions, quaternions).shape == (5, 3)


def test_base_markers_are_where_robogyms_are(hand):
    data = mujoco.MjData(hand.model)
    mujoco.mj_kinematics(hand.model, data)
    for name, position in ROBOGYM_MARKERS.items():
        np.testing.assert_allclose(data.site(name).xpos, position, atol=1e-5)


def test_base_markers_do_not_move_with_the_wrist(truth):
    for data in truth:
        for name, position in ROBOGYM_MARKERS.items():
            np.testing.assert_allclose(data.site(name).xpos, position, atol=1e-5)


def test_the_sensing_frame_is_right_handed(hand):
    axes = hand.frame_rotation
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(axes), 1)


def sense(env, started, **changes):
    physics = started.physics.replace(**changes)
    return env.sense(env.scene(started.replace(physics=physics)))


def test_fingertips_are_sensed_in_the_base_markers_frame(env, started):
    qpos = jnp.zeros(31).at[27].set(1)
    tips = sense(env, started, qpos=qpos).fingertips
    expected = np.array(ROBOGYM_FINGERTIPS) * [1, -1, 1]
    np.testing.assert_allclose(tips, expected, atol=2e-5)


def test_the_object_is_sensed_in_the_base_markers_frame(env, started):
    qpos = np.asarray(started.physics.qpos)
    sensed = sense(env, started).object_position
    origin, *others = (
        np.array(ROBOGYM_MARKERS[name]) for name in ("ref1", "ref0", "ref2")
    )
    x, z = ((p - origin) / np.linalg.norm(p - origin) for p in others)
    offset = qpos[24:27] - origin
    expected = [offset @ x, offset @ np.cross(z, x), offset @ z]
    np.testing.assert_allclose(sensed, expected, atol=2e-6)


def test_angles_and_velocities_are_sensed_as_they_are(env, started):
    qpos, qvel = jnp.arange(31.0), -jnp.arange(30.0)
    sensors = sense(env, started, qpos=qpos, qvel=qvel)
    np.testing.assert_array_equal(sensors.joint_angles, np.arange(24))
    np.testing.assert_array_equal(sensors.object_orientation, [27, 28, 29, 30])
    np.testing.assert_array_equal(sensors.joint_velocities, -np.arange(24))
    np.testing.assert_array_equal(sensors.object_velocity, [-24, -25, -26])
    np.testing.assert_array_equal(sensors.object_angular_velocity, [-27, -28, -29])
