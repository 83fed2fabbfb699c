"""What the guard does once it has taken over; that it does, is in test_drill."""

import io
import os
import sys
import types

import numpy as np
import pytest

from robot_bridge import guard
from robot_bridge.messages import Sample, Snapshot
from robot_bridge.task import Task


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Hand:
    """Notes what it is told, and when."""

    def __init__(self, clock):
        self.clock, self.told = clock, []

    def send(self, command):
        self.told.append((self.clock.now - 100.0, command))


@pytest.fixture
def hand():
    return Hand(Clock())


POSE = np.linspace(0, 0.5, 20)


def test_it_holds_the_pose_and_lets_go_of_it_little_by_little(hand):
    guard.take_over(hand, POSE, 1.0, "a test", hand.clock)
    times, forces = [], []
    for when, command in hand.told:
        times.append(when)
        forces.append(command.force)
        if command.force > 0:
            np.testing.assert_array_equal(command.targets, POSE)
    assert times[0] == 0.0
    assert forces[0] == 1.0
    # Again and again at first, then 30% after 2 s and nothing after 10 s.
    assert sum(when < 0.5 for when in times) == 1 + guard.REPEATS
    assert (times[-2], forces[-2]) == (pytest.approx(2.0), 0.3)
    assert (times[-1], forces[-1]) == (pytest.approx(10.0), 0.0)


def test_it_is_never_stronger_than_the_bridge_was(hand):
    guard.take_over(hand, POSE, 0.2, "a test", hand.clock)
    assert [command.force for _, command in hand.told][:2] == [0.2, 0.2]
    assert max(command.force for _, command in hand.told) == 0.2


def test_without_a_known_pose_the_hand_is_limp_at_once(hand):
    guard.take_over(hand, None, 1.0, "a test", hand.clock)
    assert all(command.force == 0.0 for _, command in hand.told)


def test_a_terminal_that_is_gone_does_not_stop_it(hand, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(sys, "stderr", Gone())
    guard.take_over(hand, POSE, 1.0, "a test", hand.clock)
    assert hand.told[-1][1].force == 0.0


def test_the_measured_pose_is_within_limits_or_not_known(bundle):
    task = Task(bundle.manifest)
    limits = task.range
    angles = np.full(24, 0.2)
    snapshot = Snapshot(joints=Sample(angles, 0.0, 0.0))
    pose = guard.measured_pose(snapshot, task, limits)
    assert pose[bundle.actuators.index("rh_FFJ0")] == pytest.approx(0.4)
    assert (pose >= limits[:, 0]).all() and (pose <= limits[:, 1]).all()
    assert guard.measured_pose(Snapshot(), task, limits) is None
    broken = Snapshot(joints=Sample(np.full(24, np.nan), 0.0, 0.0))
    assert guard.measured_pose(broken, task, limits) is None


def test_what_the_guard_says_is_read_by_lines(monkeypatch):
    """Wherever the pipe happens to cut them: this once ended a bridge."""
    ends = os.pipe()
    process = types.SimpleNamespace(
        stdin=types.SimpleNamespace(fileno=lambda: -1),
        stdout=os.fdopen(ends[0], "rb"),
        poll=lambda: None,
    )
    monkeypatch.setattr(guard.subprocess, "Popen", lambda *_, **__: process)
    monkeypatch.setattr(guard.os, "set_blocking", lambda *_: None)
    watching = guard.Guard([])
    heard = []
    for piece in (b"rea", b"dy", b"\n", b"\n", b"it is gone\nor"):
        os.write(ends[1], piece)
        heard.append(watching.heard())
    assert heard == ["", "", "ready", "ready", "it is gone"]
    process.stdout.close()
    os.close(ends[1])


def test_what_cannot_be_guarded_is_one_line(capsys):
    assert guard.main(["nothere", "--socket", "nowhere"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is no bundle in nothere")
