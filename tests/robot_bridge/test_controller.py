"""Refusals, holding, and what the hand is told."""

import dataclasses

import jax
import numpy as np
import pytest

from mjx_dex.learning.distributions import Gaussian
from robot_bridge.controller import Command, Controller, Options, RefusedError
from robot_bridge.goals import GoalRules
from robot_bridge.messages import Sample
from robot_bridge.safety import Fault, Limits, State
from robot_bridge.simulation.hand import SimulatedHand
from robot_bridge.simulation.imperfections import CLEAN
from robot_bridge.transports.lockstep import Lockstep

PERIOD = 0.08


@pytest.fixture(scope="module")
def shared(careful):
    return SimulatedHand(careful.manifest, CLEAN, seed=3)


@pytest.fixture(scope="session")
def careful(careful_path):
    from robot_bridge import bundle

    return bundle.load(careful_path)


class Rig:
    """A controller on a hand in lockstep."""

    def __init__(self, bundle, hand, **options):
        self.hand, self.transport = hand, Lockstep(hand)
        hand.reset()
        rules = GoalRules.of(bundle.manifest)
        self.controller = Controller(bundle, hand.info, rules, Options(**options))
        self.others, self.now = (), hand.time

    def tick(self, times=1):
        for _ in range(times):
            due = self.now + PERIOD
            while self.transport.now() < due - 1e-9:
                self.transport.wait_until(min(due, self.transport.now() + 0.01))
                self.look()
            self.now = due
            thought = self.controller.tick(due)
            self.tell()
            self.controller.finish_tick(due, self.transport.now())
        return thought

    def look(self, **changes):
        snapshot = dataclasses.replace(self.transport.latest(), **changes)
        self.controller.look(snapshot, self.transport.now(), self.others)

    def tell(self):
        if self.controller.outgoing is not None:
            self.transport.send(self.controller.outgoing)
            self.controller.sent(self.controller.outgoing)

    def until_running(self):
        self.tick(14)
        assert self.controller.is_trusted(self.now)
        self.controller.obey("arm", self.now)
        assert self.controller.state is State.ARMED
        self.tell()
        self.tick(3)
        self.controller.obey("start", self.now)
        assert self.controller.state is State.RUNNING
        return self


@pytest.fixture
def rig(careful, shared):
    return Rig(careful, shared).until_running()


def test_from_first_sound_to_running(careful, shared):
    rig = Rig(careful, shared)
    assert rig.controller.state is State.CONNECT
    rig.tick(2)
    assert rig.controller.state is State.CHECK
    assert rig.controller.command is None
    rig.controller.obey("arm", rig.now)
    assert rig.controller.state is State.CHECK
    rig.tick(12)
    rig.controller.obey("arm", rig.now)
    assert rig.controller.command.force == Limits().armed_force
    here = rig.controller.here()
    np.testing.assert_allclose(rig.controller.command.targets, here)
    rig.controller.obey("start", rig.now)
    thought = rig.tick()
    assert rig.controller.command.force == 1.0
    assert set(thought["action"]) <= {4, 5, 6}


def test_faults_hold_the_measured_pose_and_nothing_follows(rig):
    rig.tick(5)
    rig.others = (Fault("test", "a test of the brakes"),)
    rig.look()
    assert rig.controller.state is State.HOLD
    assert rig.controller.why == "a test of the brakes"
    held = rig.controller.command
    np.testing.assert_allclose(held.targets, rig.controller.here(), atol=0.02)
    rig.others = ()
    rig.tick(10)
    assert rig.controller.state is State.HOLD
    assert rig.controller.command is held


def test_after_a_hold_a_person_arms_and_the_policy_begins_anew(rig):
    rig.tick(5)
    rig.controller.obey("hold", rig.now)
    assert rig.controller.why == "stopped by the operator"
    rig.controller.obey("start", rig.now)
    assert rig.controller.state is State.HOLD
    rig.tick(14)
    rig.controller.obey("arm", rig.now)
    rig.controller.obey("start", rig.now)
    assert rig.controller.state is State.RUNNING
    assert rig.controller.goals.met == 0
    assert not np.any(rig.controller._carry[0])


def test_nobody_arms_a_hand_with_something_wrong(rig):
    rig.controller.obey("hold", rig.now)
    rig.transport.wait_until(rig.now + 0.1)
    # No look in between: what is known of the joints is old.
    rig.controller.obey("arm", rig.transport.now())
    assert rig.controller.state is State.HOLD


def test_lost_joint_angles_make_it_limp(rig):
    frozen = rig.transport.latest().joints
    for _ in range(60):
        rig.transport.wait_until(rig.transport.now() + 0.01)
        rig.look(joints=frozen)
    assert rig.controller.state is State.LIMP
    assert rig.controller.command == Command(None, 0.0)


def test_a_hot_motor_makes_it_limp(rig):
    rig.look(danger="rh_FFJ3: Temperature 61 (limit 57)")
    assert rig.controller.state is State.LIMP


def test_a_policy_that_is_no_number_is_never_sent(rig, monkeypatch):
    before = rig.controller.command
    bad = np.full((20, 11), np.nan)
    monkeypatch.setattr(rig.controller._policy, "step", lambda carry, o: (carry, bad))
    rig.tick()
    assert rig.controller.state is State.HOLD
    assert "not a number" in rig.controller.why
    assert np.isfinite(rig.controller.command.targets).all()
    assert rig.controller.command is not before


def test_three_late_ticks_hold(rig):
    for number in range(3):
        assert rig.controller.state is State.RUNNING, number
        rig.controller.tick(rig.now)
        rig.controller.finish_tick(rig.now, rig.now + 0.1)
    assert rig.controller.state is State.HOLD
    assert "3 ticks in a row were late, the last done 100 ms" in rig.controller.why


def test_a_fault_never_makes_the_hand_stronger(careful, shared):
    rig = Rig(careful, shared, force=0.8)
    rig.tick(14)
    rig.controller.obey("arm", rig.now)
    rig.others = (Fault("test", "something"),)
    rig.look()
    assert rig.controller.state is State.HOLD
    assert rig.controller.command.force == Limits().armed_force
    gentle = Rig(careful, shared, force=0.2).until_running()
    gentle.tick(2)
    gentle.controller.obey("hold", gentle.now)
    assert gentle.controller.command.force == 0.2


def test_when_the_guard_has_taken_over_nothing_is_sent(rig):
    rig.tick(2)
    rig.others = (Fault("recorder", "full"), Fault("guard", "the guard took over"))
    rig.look()
    assert rig.controller.state is State.HOLD
    assert rig.controller.outgoing is None
    rig.tick(14)
    rig.controller.obey("arm", rig.now)
    assert rig.controller.state is State.HOLD


def test_a_hand_that_was_not_well_for_a_second_is_not_armed(rig):
    rig.controller.obey("hold", rig.now)
    rig.others = (Fault("test", "something"),)
    rig.tick(3)
    rig.others = ()
    rig.tick(3)
    rig.controller.obey("arm", rig.now)
    assert rig.controller.state is State.HOLD
    rig.tick(12)
    rig.controller.obey("arm", rig.now)
    assert rig.controller.state is State.ARMED


def test_silent_controllers_are_noticed(rig):
    old = rig.transport.latest().set_points
    for _ in range(60):
        rig.transport.wait_until(rig.transport.now() + 0.01)
        rig.look(set_points=old)
    assert rig.controller.state is State.HOLD
    assert "controllers have not said what they follow for 0.5 s" in rig.controller.why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force": 5.0}, "--force 5"),
        ({"force": np.nan}, "--force nan"),
        ({"speed": -1.0}, "--speed -1"),
        ({"speed": np.nan}, "--speed nan"),
        ({"limits": Limits(object_age=np.nan)}, "--pose-age nan"),
    ],
)
def test_what_no_hand_should_be_told_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_a_second_commander_is_named(rig):
    rig.tick(3)
    for _ in range(3):
        rig.transport.wait_until(rig.transport.now() + 0.01)
        points = rig.hand.set_points.copy()
        points[3] += 0.6
        now = rig.transport.now()
        rig.look(set_points=Sample(points, now, now))
    assert rig.controller.state is State.HOLD
    assert "rh_FFJ3 follows a target" in rig.controller.why


def test_what_a_hand_followed_before_is_nobodys_target(careful, shared):
    """The first command may arrive late: it still follows the last bridge's."""
    rig = Rig(careful, shared)
    rig.tick(14)
    before = rig.hand.set_points + 0.6

    def follow_it():
        rig.transport.wait_until(rig.transport.now() + 0.01)
        now = rig.transport.now()
        rig.look(set_points=Sample(before.copy(), now, now))

    follow_it()
    rig.controller.obey("arm", rig.transport.now())
    rig.tell()
    for _ in range(6):
        follow_it()
    assert rig.controller.state is State.ARMED
    # But not for ever.
    for _ in range(6):
        rig.tell()
    for _ in range(6):
        follow_it()
    assert "that this bridge did not send" in rig.controller.why


def test_targets_keep_a_margin_from_the_robots_limits(careful, shared):
    margin = Rig(careful, shared, limits=Limits(margin=0.3)).until_running()
    margin.tick(5)
    limits = [shared.info.limits[name] for name in ("rh_FFJ2", "rh_FFJ1")]
    low, high = np.sum(limits, axis=0) + np.array([0.3, -0.3])
    index = careful.actuators.index("rh_FFJ0")
    assert low <= margin.controller.command.targets[index] <= high
    # A joint whose range is narrower than two margins is left with its middle.
    hub = careful.actuators.index("rh_THJ3")
    assert margin.controller.command.targets[hub] == pytest.approx(0.0, abs=1e-9)


def test_a_limit_of_speed_is_kept(careful, shared):
    slow = Rig(careful, shared, speed=0.1).until_running()
    previous = slow.controller.command.targets
    for _ in range(10):
        slow.tick()
        change = np.abs(slow.controller.command.targets - previous).max()
        assert change <= 0.1 * PERIOD + 1e-9
        previous = slow.controller.command.targets


def test_the_most_likely_action_is_always_the_same(bundle):
    hand = SimulatedHand(bundle.manifest, CLEAN)
    rules = GoalRules.of(bundle.manifest)
    outputs = np.random.default_rng(0).standard_normal((20, 11))
    likely = Controller(bundle, hand.info, rules, Options(most_likely=True))
    np.testing.assert_array_equal(likely._choose(outputs), outputs.argmax(-1))
    drawn = Controller(bundle, hand.info, rules, Options())
    counts = np.zeros((20, 11))
    for _ in range(4000):
        counts[np.arange(20), drawn._choose(outputs)] += 1
    probabilities = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    # Four standard errors of a share of 4,000.
    limit = 4 * np.sqrt(probabilities * (1 - probabilities) / 4000)
    assert (np.abs(counts / 4000 - probabilities) < limit + 1e-3).all()


def test_numbers_are_drawn_as_in_training(bundle):
    control = {**bundle.manifest["control"], "bins": None}
    manifest = {**bundle.manifest, "control": control}
    gaussian = dataclasses.replace(bundle, manifest=manifest)
    hand = SimulatedHand(bundle.manifest, CLEAN)
    rules = GoalRules.of(bundle.manifest)
    # Deviations from the least one up to a hundred times that.
    outputs = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
    outputs[:, 1] *= 2
    drawn = Controller(gaussian, hand.info, rules, Options())
    ours = np.array([drawn._choose(outputs) for _ in range(20_000)])
    keys = jax.random.split(jax.random.key(0), 20_000)
    theirs = jax.vmap(Gaussian().sample, (0, None))(keys, outputs)
    scale = np.std(theirs, axis=0)
    # Five standard errors of means and of deviations.
    np.testing.assert_allclose(
        (ours.mean(0) - np.mean(theirs, 0)) / scale, 0, atol=5 * (2 / 20_000) ** 0.5
    )
    np.testing.assert_allclose(ours.std(0) / scale, 1, atol=5 / 20_000**0.5)
    likely = Controller(gaussian, hand.info, rules, Options(most_likely=True))
    np.testing.assert_array_equal(likely._choose(outputs), outputs[:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": "left"}, "trained for a right hand, and simulated-0 is a left one"),
        ({"mode": "trajectory"}, "in trajectory mode"),
    ],
)
def test_another_hand_is_refused(bundle, change, message):
    info = SimulatedHand(bundle.manifest, CLEAN).info
    other = dataclasses.replace(info, **change)
    with pytest.raises(RefusedError, match=message):
        Controller(bundle, other, GoalRules.of(bundle.manifest), Options())


def test_limits_that_disagree_are_refused(bundle):
    info = SimulatedHand(bundle.manifest, CLEAN).info
    limits = {**info.limits, "rh_THJ2": (-0.3, 0.3)}
    other = dataclasses.replace(info, limits=limits)
    with pytest.raises(
        RefusedError, match=r"rh_THJ2: .* -0\.524 to 0\.524 rad, .*0\.3"
    ):
        Controller(bundle, other, GoalRules.of(bundle.manifest), Options())


def test_a_missing_joint_is_named(bundle):
    info = SimulatedHand(bundle.manifest, CLEAN).info
    limits = {k: v for k, v in info.limits.items() if k != "rh_LFJ5"}
    other = dataclasses.replace(info, limits=limits)
    with pytest.raises(RefusedError, match="no joint rh_LFJ5"):
        Controller(bundle, other, GoalRules.of(bundle.manifest), Options())
