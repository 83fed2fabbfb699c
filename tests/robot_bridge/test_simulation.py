"""The simulated hand: its controller, its imperfections, what it says."""

import dataclasses

import numpy as np
import pytest

from robot_bridge import rotations
from robot_bridge.kinematics import fit_frame
from robot_bridge.simulation.hand import MOCAP_POSITION, MOCAP_QUATERNION, SimulatedHand
from robot_bridge.simulation.imperfections import CLEAN, UNSEEN


@pytest.fixture(scope="module")
def clean(bundle):
    return SimulatedHand(bundle.manifest, CLEAN)


def flawed(bundle, **changes):
    return SimulatedHand(bundle.manifest, dataclasses.replace(CLEAN, **changes))


def test_a_hand_goes_where_it_is_told(clean, bundle):
    clean.reset()
    index = bundle.actuators.index("rh_FFJ3")
    joint = bundle.joints.index("rh_FFJ3")
    for target in (0.3, 0.8):
        targets = clean._rest_targets()
        targets[index] = target
        clean.command(targets, 1.0)
        clean.step(1.5)
        assert clean.joint_angles[joint] == pytest.approx(target, abs=0.15)


def test_its_thumb_bends_to_positive_angles(clean, bundle):
    """As Shadow's does, and the policy's model does not."""
    clean.reset()
    targets = clean._rest_targets()
    targets[bundle.actuators.index("rh_THJ1")] = 1.2
    clean.command(targets, 1.0)
    clean.step(1.5)
    assert clean.joint_angles[bundle.joints.index("rh_THJ1")] > 0.8
    assert clean._data.qpos[23] < -0.8


def test_without_force_it_is_limp(clean):
    clean.reset()
    clean.command(clean._rest_targets() + 0.3, 0.0)
    clean.step(0.2)
    np.testing.assert_array_equal(clean._data.ctrl, 0.0)


def test_nan_makes_one_joint_limp_and_moves_none(clean):
    clean.reset()
    targets = clean._rest_targets()
    targets[3] = np.nan
    clean.command(targets, 1.0)
    clean.step(0.5)
    assert clean._data.ctrl[3] == 0.0
    assert np.isfinite(clean._data.qpos).all()
    assert np.abs(clean._data.ctrl).max() > 0


def test_the_same_seed_is_the_same_hand_and_another_is_not(bundle):
    def poses(seed):
        hand = SimulatedHand(bundle.manifest, UNSEEN, seed)
        hand.step(0.3)
        return np.concatenate([hand.messages["joints"], hand.object_pose])

    np.testing.assert_array_equal(poses(1), poses(1))
    assert np.abs(poses(1) - poses(2)).max() > 0.01


def test_markers_are_seen_in_motion_captures_frame(clean):
    clean.reset()
    clean.step(0.2)
    seen = clean.messages["markers"]
    known = clean._data.site_xpos[clean._base_sites]
    _, _, error = fit_frame(seen[:3], known)
    assert error < 1e-9
    turn = rotations.to_matrix(MOCAP_QUATERNION)
    back = seen[:3] @ turn.T + MOCAP_POSITION
    np.testing.assert_allclose(back, known, atol=1e-6)
    # A mirrored or unturned frame would show.
    assert np.abs(seen[:3] - known).max() > 0.1


def test_commands_and_sensors_are_late(bundle):
    hand = flawed(bundle, command_delay=0.03, sensor_delay=0.04)
    hand.command(hand._rest_targets() + 0.2, 1.0)
    hand.step(0.029)
    before = hand.set_points.copy()
    hand.step(0.011)
    assert np.abs(hand.set_points - before).max() > 0.1
    told = []
    for _ in range(30):
        hand.step(0.008)
        told.append((hand.messages["joints"], hand.joint_angles))
    said, true = (np.array(x) for x in zip(*told, strict=True))
    np.testing.assert_allclose(said[5:], true[:-5], atol=1e-12)


def test_play_leaves_joints_short_of_their_targets(bundle):
    def shortfall(backlash):
        hand = flawed(bundle, backlash=backlash)
        hand._play = np.full(20, backlash)
        hand.command(hand._rest_targets() * 0.8, 1.0)
        hand.step(1.5)
        angles = hand._task.actuator_angles(hand.joint_angles)
        return np.abs(angles - hand.set_points)[[4, 7, 10, 13]].mean()

    assert shortfall(0.3) > shortfall(0.0) + 0.05


def test_lost_markers_come_back(bundle):
    hand = flawed(bundle, marker_losses=2.0, marker_loss_time=0.1)
    lost = []
    for _ in range(1000):
        hand.step(0.008)
        lost.append(np.isnan(hand.messages["markers"][3:, 0]))
    # Lost for 0.1 s after 0.5 s seen, on average: a sixth of the time. Some 67 losses
    # of exponential length: a standard error of 0.02.
    assert np.mean(lost) == pytest.approx(1 / 6, abs=0.07)
    assert not np.isnan(hand.messages["markers"][:3]).any()


def test_bent_sensors_read_something_else(bundle):
    hand = flawed(bundle, joint_nonlinearity=0.05)
    hand.step(0.1)
    errors = hand.messages["joints"] - hand.joint_angles
    assert 0.005 < np.abs(errors).mean() < 0.15


def test_noise_is_as_large_as_it_says(bundle):
    hand = flawed(bundle, marker_noise=0.002, joint_noise=0.01)
    base, errors = [], []
    for _ in range(400):
        hand.step(0.008)
        base.append(hand.messages["markers"][:3])
        errors.append(hand.messages["joints"] - hand.joint_angles)
    assert np.std(base, axis=0).mean() == pytest.approx(0.002, rel=0.1)
    assert np.std(errors) == pytest.approx(0.01, rel=0.1)


def test_a_trial_begins_with_the_object_in_the_hand(clean):
    orientations = []
    for _ in range(5):
        clean.reset()
        assert not clean.is_dropped
        orientations.append(clean.object_pose[3:])
    assert np.ptp(orientations, axis=0).max() > 0.3
