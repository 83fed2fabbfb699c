"""Which values are believed, and what is said about the others."""

import numpy as np
import pytest

from robot_bridge import rotations
from robot_bridge.messages import Sample, Snapshot
from robot_bridge.safety import Event, Limits
from robot_bridge.sensing import Sensing
from robot_bridge.simulation.faults import Disturbance, Faults
from robot_bridge.simulation.hand import SimulatedHand
from robot_bridge.simulation.imperfections import CLEAN


class Feed:
    """A simulated hand's messages every 8 ms, and what sensing makes of them."""

    def __init__(self, manifest, hand):
        self.hand, self.now, self.faults = hand, 100.0, Faults()
        self.sensing = Sensing(manifest, hand.info, Limits())
        self.samples = {}

    def run(self, seconds, **changes):
        """``changes`` by channel: what is told in its place; None: nothing."""
        for _ in range(round(seconds / 0.008)):
            self.hand.step(0.008)
            self.now += 0.008
            for channel, value in self.hand.messages.items():
                change = changes.get(channel, lambda value: value)
                if change is None:
                    continue
                told = self.faults.pass_on(
                    channel, change(value.copy()), self.now, self.now
                )
                for disturbed, stamp in told:
                    self.samples[channel] = Sample(disturbed, self.now, stamp)
            self.sensing.update(Snapshot(**self.samples))

    def said(self, moving=True):
        return {f.name: f for f in self.sensing.faults(self.now, moving)}


@pytest.fixture(scope="module")
def shared(bundle):
    return SimulatedHand(bundle.manifest, CLEAN, seed=5)


@pytest.fixture
def feed(bundle, shared):
    # The middles of all ranges: a cupped hand, moving while the object settles.
    shared.reset()
    shared.command(shared._rest_targets(), 1.0)
    feed = Feed(bundle.manifest, shared)
    feed.run(0.4)
    return feed


def test_a_good_hand_is_believed(feed):
    assert feed.sensing.missing == ""
    assert feed.said() == {}
    reading = feed.sensing.reading()
    np.testing.assert_allclose(reading.joint_angles, feed.hand.joint_angles, atol=0.05)


def test_poses_arrive_in_the_trainings_frames(feed, hand):
    position, world = feed.sensing.reading().object_position, feed.hand.object_pose
    expected = hand.frame_rotation @ (world[:3] - hand.frame_position)
    np.testing.assert_allclose(position, expected, atol=2e-3)
    turn = rotations.multiply(
        feed.sensing.reading().object_orientation, rotations.conjugate(world[3:])
    )
    assert rotations.angle(turn) < 0.03


@pytest.mark.parametrize(
    ("channel", "seconds", "fault", "event"),
    [
        ("joints", 0.06, "joint angles stale", Event.FAULT),
        ("joints", 0.52, "joint angles lost", Event.DANGER),
        ("markers", 0.27, "markers stale", Event.FAULT),
        ("object", 0.27, "object pose stale", Event.FAULT),
    ],
)
def test_silence_is_noticed(feed, channel, seconds, fault, event):
    feed.run(seconds - 0.024, **{channel: None})
    assert fault not in feed.said()
    feed.run(0.032, **{channel: None})
    assert feed.said()[fault].event is event
    assert "ms" in feed.said()[fault].message or " s" in feed.said()[fault].message


def test_one_lost_fingertip_is_borne_for_a_second(feed):
    def lose(markers):
        markers[4] = np.nan
        return markers

    feed.run(0.9, markers=lose)
    assert feed.said(moving=False) == {}
    before = feed.sensing.reading().fingertips[1]
    feed.run(0.16, markers=lose)
    assert "marker MF stale" in feed.said()
    np.testing.assert_array_equal(feed.sensing.reading().fingertips[1], before)


@pytest.mark.parametrize("channel", ["joints", "object"])
def test_what_is_not_a_number_is_not_believed(feed, channel):
    def spoil(value):
        value[3] = np.nan
        return value

    feed.run(0.016, **{channel: spoil})
    assert feed.said() == {}
    feed.run(0.016, **{channel: spoil})
    (fault,) = feed.said().values()
    assert "3 absurd values" in fault.message or "4 absurd" in fault.message
    assert "not a number" in fault.message
    reading = feed.sensing.reading()
    assert np.isfinite(reading.joint_angles).all()
    assert np.isfinite(reading.object_position).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pose: pose + 0.3 * np.eye(7)[0], "the object jumped 30"),
        (lambda pose: pose + 2.0 * np.eye(7)[1], "m away"),
        (lambda pose: pose * [1, 1, 1, 1.2, 1.2, 1.2, 1.2], "length 1.20"),
    ],
)
def test_an_impossible_object_is_not_believed(feed, change, message):
    before = feed.sensing.reading().object_position
    feed.run(0.024, object=change)
    (fault,) = feed.said().values()
    assert message in fault.message
    np.testing.assert_allclose(feed.sensing.reading().object_position, before)


def test_an_angle_far_beyond_its_limit_is_not_believed(feed):
    feed.run(0.024, joints=lambda angles: angles + 3.0)
    (fault,) = feed.said().values()
    assert "beyond its limit" in fault.message


def test_frozen_numbers_are_noticed_while_the_hand_moves(feed):
    feed.faults.add(Disturbance("freeze", "joints"))
    feed.run(0.28)
    assert "joint angles frozen" in feed.said()
    assert "joint angles frozen" not in feed.said(moving=False)


def test_base_markers_off_their_places_are_not_believed(feed):
    def displace(markers):
        markers[0] += 0.02
        return markers

    feed.run(0.04, markers=displace)
    assert "off their places" in feed.said()["base markers absurd"].message


def test_mirrored_motion_capture_is_named(bundle, feed):
    fresh = Feed(bundle.manifest, feed.hand)
    fresh.faults.add(Disturbance("mirror"))
    fresh.run(0.6)
    fault = fresh.said(moving=False)["fingertips disagree"]
    assert "coordinates are mirrored" in fault.message


def test_swapped_markers_are_named(bundle, feed):
    fresh = Feed(bundle.manifest, feed.hand)
    fresh.faults.add(Disturbance("swap", "markers"))
    fresh.run(0.6)
    fault = fresh.said(moving=False)["fingertips disagree"]
    assert "the markers of FF and RF are swapped" in fault.message


def test_a_wrong_joint_map_shows_at_the_fingertips(bundle, feed):
    def exchange(angles):
        first, middle = bundle.joints.index("rh_FFJ3"), bundle.joints.index("rh_MFJ3")
        angles[[first, middle]] = angles[[middle, first]] + [0.5, -0.5]
        return angles

    feed.run(0.6, joints=exchange)
    message = feed.said(moving=False)["fingertips disagree"].message
    assert "FF by" in message and "swapped" not in message


def test_a_link_that_gets_slower_is_noticed_though_nothing_is_missing(feed):
    feed.faults.add(Disturbance("delay", amount=0.2))
    feed.run(0.2)
    assert feed.said() == {}
    feed.run(0.3)
    assert "joint angles stale" in feed.said()


def test_a_marker_in_the_origin_is_not_seen(feed):
    def lose(markers):
        markers[5] = 0.0
        return markers

    before = feed.sensing.tips[2].value
    feed.run(0.1, markers=lose)
    np.testing.assert_array_equal(feed.sensing.tips[2].value, before)
    assert feed.said(moving=False) == {}


def test_a_hidden_marker_is_no_evidence_against_it(feed):
    def displace(markers):
        markers[3] += 0.03
        return markers

    def hide(markers):
        markers[3] = np.nan
        return markers

    feed.run(0.1, markers=displace)
    feed.run(0.8, markers=hide)
    assert feed.said(moving=False) == {}


@pytest.mark.parametrize("kind", ["duplicate", "reorder", "drop"])
def test_what_networks_do_is_borne(feed, kind):
    feed.faults.add(Disturbance(kind, amount=0.1))
    feed.run(1.0)
    assert feed.said(moving=False) == {}


def test_messages_out_of_order_are_dropped(feed):
    newer = Sample(feed.hand.messages["joints"], feed.now + 0.01, feed.now + 0.01)
    older = Sample(newer.value + 0.1, feed.now + 0.02, feed.now - 0.1)
    feed.sensing.update(Snapshot(joints=newer))
    feed.sensing.update(Snapshot(joints=older))
    np.testing.assert_array_equal(feed.sensing.reading().joint_angles, newer.value)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_is_borne(feed, step):
    feed.faults.add(Disturbance("clock", amount=step))
    feed.run(0.5)
    assert feed.said(moving=False) == {}


def test_an_old_pose_is_as_old_as_it_says(feed):
    pose = Sample(feed.hand.messages["object"], feed.now + 0.01, feed.now + 0.01, 0.2)
    feed.sensing.update(Snapshot(object=pose))
    assert feed.sensing.object.age(feed.now + 0.01) == pytest.approx(0.2)
    assert feed.sensing.object.age(feed.now + 0.08) > Limits().object_age


def test_a_dropped_object_is_seen_to_be(feed):
    assert not feed.sensing.is_dropped
    fallen = feed.hand._to_mocap(np.array([1.0, 0.9, -0.2]))
    feed.run(0.016, object=lambda pose: np.concatenate([fallen, pose[3:]]))
    assert feed.sensing.is_dropped


def test_unknown_disturbances_are_refused():
    with pytest.raises(ValueError, match="'smear' is not one of"):
        Disturbance("smear")
    with pytest.raises(ValueError, match="'smell' is no channel"):
        Disturbance("drop", "smell")
