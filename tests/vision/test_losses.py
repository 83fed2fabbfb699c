"""Losses against each other, and against SciPy's rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mjx_dex import rotations
from mjx_dex.vision.losses import CORNERS, LOSSES, Pose, Scales, rotation_error


@pytest.fixture(scope="module")
def poses():
    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(64, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    positions = (0.01, -0.02, 0.08) + 0.008 * rng.normal(size=(64, 3))
    return Pose(jnp.asarray(positions), jnp.asarray(quaternions))


@pytest.fixture(scope="module")
def scales(poses):
    return Scales.of(poses, half_size=0.0285)


def outputs_for(loss, pose, scales):
    """What a perfect net puts out, by hand."""
    position = (pose.position - scales.position_mean) / scales.position_deviation
    x, y, z, w = np.asarray(pose.quaternion)[[1, 2, 3, 0]]
    matrix = Rotation.from_quat([x, y, z, w]).as_matrix()
    if loss == "rotation_6d":
        # Of any length and not orthogonal: the same rotation.
        six = np.stack([2.0 * matrix[:, 0], matrix[:, 1] + 0.3 * matrix[:, 0]])
        w, x, y, z = np.asarray(scales.quaternion_mean)
        mean = Rotation.from_quat([x, y, z, w]).as_matrix()
        six = (six - mean[:, :2].T) / (2 * scales.quaternion_deviation)
        return jnp.concatenate([position, six.ravel()])
    if loss == "keypoints":
        offset = (pose.position - scales.position_mean) / scales.half_size
        return (CORNERS @ matrix.T + offset).ravel()
    quaternion = pose.quaternion * (1 if pose.quaternion[0] >= 0 else -1)
    scaled = (quaternion - scales.quaternion_mean) / scales.quaternion_deviation
    return jnp.concatenate([position, scaled])


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_outputs_have_no_error_and_are_the_pose(name, poses, scales):
    loss = LOSSES[name]
    for i in range(16):
        pose = jax.tree.map(lambda x, i=i: x[i], poses)
        outputs = outputs_for(name, pose, scales)
        assert outputs.shape == (loss.outputs,)
        assert loss.error(outputs, pose, scales) < 1e-8
        found = loss.decode(outputs, scales)
        np.testing.assert_allclose(found.position, pose.position, atol=1e-6)
        assert rotation_error(found.quaternion, pose.quaternion) < 0.1
        assert loss.error(outputs + 0.1, pose, scales) > 1e-4


def test_small_turns_cost_about_as_much_in_every_loss_of_numbers(scales):
    """Of orientations within 45 degrees no loss may be about positions alone."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(200, 3))
    vectors *= rng.uniform(0, np.pi / 4, (200, 1)) / np.linalg.norm(
        vectors, axis=1, keepdims=True
    )
    quaternions = jax.vmap(rotations.from_rotation_vector)(jnp.asarray(vectors))
    poses = Pose(jnp.zeros((200, 3)) + 0.01 * rng.normal(size=(200, 3)), quaternions)
    narrow = Scales.of(poses, half_size=0.0285)
    shares = {}
    for name in ("mse", "sign_invariant", "rotation_6d"):
        loss = LOSSES[name]
        nothing = jnp.zeros(loss.outputs)

        def cost(pose, loss=loss, nothing=nothing):
            return loss.outputs * loss.error(nothing, pose, narrow)

        still = poses.replace(position=jnp.tile(narrow.position_mean, (200, 1)))
        shares[name] = float(
            jax.vmap(cost)(still).mean() / jax.vmap(cost)(poses).mean()
        )
    # Four unit variances of seven; nine entries of a matrix that has three freedoms.
    assert shares["mse"] == pytest.approx(4 / 7, abs=0.02)
    assert shares["sign_invariant"] == pytest.approx(4 / 7, abs=0.02)
    assert 0.5 < shares["rotation_6d"] < 0.8


def test_the_sign_of_a_quaternion_does_not_count_where_it_should_not(poses, scales):
    pose = jax.tree.map(lambda x: x[0], poses)
    negative = pose.replace(quaternion=-pose.quaternion)
    outputs = jax.random.normal(jax.random.key(0), (24,))
    for loss in LOSSES.values():
        errors = [
            loss.error(outputs[: loss.outputs], p, scales) for p in (pose, negative)
        ]
        np.testing.assert_allclose(*errors, rtol=1e-5)


def test_near_half_a_turn_only_the_squared_error_jumps(scales):
    """Two poses a degree apart, on both sides of a real part of zero."""
    axis = np.array([0.6, 0.0, 0.8])
    near = [
        Pose(scales.position_mean, rotations.from_axis_angle(axis, np.deg2rad(angle)))
        for angle in (179.5, 180.5)
    ]
    for name, loss in LOSSES.items():
        outputs = outputs_for(name, near[0], scales)
        error = loss.error(outputs, near[1], scales)
        assert (error > 0.5) == (name == "mse")


def test_a_mirrored_hand_of_keypoints_is_still_a_rotation(scales):
    mirrored = (CORNERS * (1, 1, -1)).ravel()
    found = LOSSES["keypoints"].decode(mirrored, scales)
    np.testing.assert_allclose(np.linalg.norm(found.quaternion), 1, atol=1e-6)


def test_rotation_error_is_the_angle_in_degrees():
    a = rotations.from_axis_angle(np.array([0, 0, 1.0]), 0.3)
    b = rotations.from_axis_angle(np.array([0, 0, 1.0]), 0.3 + np.deg2rad(20))
    np.testing.assert_allclose(rotation_error(a, b), 20, rtol=1e-5)
    np.testing.assert_allclose(rotation_error(a, -b), 20, rtol=1e-5)


def test_matrices_become_their_quaternions():
    every = Rotation.random(200, random_state=0)
    special = Rotation.from_euler("xyz", [[180, 0, 0], [0, 180, 0], [0, 0, 180]], True)
    for turn in (*every, *special):
        found = rotations.from_matrix(jnp.asarray(turn.as_matrix()))
        expected = turn.as_quat()[[3, 0, 1, 2]]
        assert abs(found @ expected) > 1 - 1e-5
