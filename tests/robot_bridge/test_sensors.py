"""Calibration of joint sensors (B.5), from a sweep of a hand whose sensors are bent."""

import dataclasses
import json

import numpy as np
import pytest

from robot_bridge import replay, run, sensors
from robot_bridge.kinematics import Chain
from robot_bridge.recording import read
from robot_bridge.sensors import SensorMaps, fit, load_maps
from robot_bridge.simulation import imperfections
from robot_bridge.simulation.hand import SimulatedHand

BENT = dataclasses.replace(
    imperfections.CLEAN,
    joint_nonlinearity=0.04,
    joint_noise=0.001,
    marker_noise=0.0005,
    marker_shift=0.001,
)


@pytest.fixture(scope="module")
def swept(careful_path, tmp_path_factory):
    """A recording of two minutes of sweeping."""
    file = tmp_path_factory.mktemp("swept") / "sweep.mcap"
    arguments = ["--transport", "lockstep", "--sweep", "120", "--record", str(file)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(imperfections.PRESETS, "unseen", BENT)
        command = [str(careful_path), *arguments, "--imperfections", "unseen"]
        assert run.main([*command, "--force", "0.8"]) == 0
    return file


@pytest.fixture(scope="module")
def calibrated(swept, tmp_path_factory):
    """What the command makes of it."""
    out = tmp_path_factory.mktemp("sensors") / "sensors.json"
    assert sensors.main([str(swept), str(out)]) == 0
    return out


def test_a_sweep_goes_through_most_of_every_range_without_an_object(swept, bundle):
    entries = list(read(swept))
    looks = [e["samples"] for topic, e in entries if topic == "look"]
    angles = np.array([s["joints"]["value"] for s in looks if "joints" in s])
    low, high = np.quantile(angles, [0.01, 0.99], axis=0)
    trained = np.array([[a["low"], a["high"]] for a in bundle.manifest["actuators"]])
    single = [
        n for n, a in enumerate(bundle.manifest["actuators"]) if len(a["joints"]) < 2
    ]
    for n in single:
        joint = bundle.joints.index(bundle.actuators[n])
        share = (high - low)[joint] / np.ptp(trained[n])
        assert share > 0.4, bundle.actuators[n]
    whys = [e["why"] for topic, e in entries if topic == "event" and e["to"] == "hold"]
    assert whys == ["completed"]


def test_a_sweep_is_replayed_bit_for_bit(swept):
    found = replay.replay(swept)
    assert (found.ticks, found.different) == (1500, 0)


def test_angles_come_nearer_to_the_truth(calibrated, swept, careful_path):
    from robot_bridge import bundle

    loaded = bundle.load(careful_path)
    hand = SimulatedHand(loaded.manifest, BENT)
    raw, driver, _ = sensors.samples_of(swept, loaded.manifest)
    maps = load_maps(calibrated, loaded.joints)
    truth = np.stack(
        [np.interp(raw[:, k], hand._values[k], hand._knots[k]) for k in range(24)], 1
    )
    before = np.sqrt(np.mean((driver - truth) ** 2))
    after = np.sqrt(np.mean((maps(raw) - truth) ** 2))
    assert before > 0.02
    assert after < 0.6 * before


def test_fingertips_are_where_they_are_seen(swept, calibrated, bundle, capsys):
    """On samples that the fit never saw."""
    raw, driver, tips = sensors.samples_of(swept, bundle.manifest)
    hand = bundle.manifest["hand"]
    chain = Chain(hand["chain"], hand["tips"], bundle.joints)
    found = fit(raw, driver, tips, chain, np.tile([0.0, 1.5], (24, 1)))
    assert (found.after < 0.5 * found.before).sum() >= 4
    assert found.after.max() < 0.004


def test_the_simulated_hand_reads_its_sensors_by_it(calibrated, bundle):
    hand = SimulatedHand(bundle.manifest, BENT)
    hand.step(0.1)
    before = np.abs(hand.messages["joints"] - hand.joint_angles).mean()
    hand.sensor_maps = load_maps(calibrated, bundle.joints)
    hand.step(0.008)
    after = np.abs(hand.messages["joints"] - hand.joint_angles).mean()
    assert after < before


def test_maps_are_linear_between_points_and_beyond():
    maps = SensorMaps(np.array([[0.0, 1.0, 3.0]]), np.array([[0.0, 2.0, 3.0]]))
    found = maps(np.array([[-1.0], [0.5], [1.0], [2.0], [5.0]]))
    np.testing.assert_allclose(found[:, 0], [-2.0, 1.0, 2.0, 2.5, 4.0])


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"maps": {"rh_FFJ1": [1]}})])
def test_other_files_are_refused(content, tmp_path, bundle):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json is no calibration of sensors"):
        load_maps(tmp_path / "x.json", bundle.joints)


def test_too_few_samples_are_refused(bundle):
    few = np.zeros((5, 24)), np.zeros((5, 24)), np.zeros((5, 5, 3))
    with pytest.raises(ValueError, match="5 samples are too few"):
        fit(*few, chain=None, limits=np.zeros((24, 2)))
