"""What goes wrong on purpose, in processes; the whole list is ``drill`` itself."""

import pytest

from robot_bridge import drill
from robot_bridge.drill import EXERCISES, QUIET, outcome_of, run
from robot_bridge.guard import SILENCE

SOCKET = (
    "no joint angles",
    "driver killed",
    "driver stopped",
    "bridge killed",
    "bridge stopped",
    "inference stalled for 500 ms",
    "a second commander",
    "disk full",
)
ROS = (
    "NaN in joint angles",
    "mirrored axes",
    "driver killed",
    "bridge killed",
    "bridge stopped",
    "a second commander",
    "ROS master killed",
)
"""Those that only processes of their own can show; others are in test_sensing."""

SLACK = 0.3
"""What other tests on the same cores may take [s]."""


def check(name, bundle, ros):
    (exercise,) = [e for e in EXERCISES if e.name == name]
    outcome = run(exercise, bundle, ros)
    assert outcome.reason, outcome
    assert outcome.reaction <= exercise.limit + SLACK, outcome
    assert not outcome.moved_afterwards, outcome


@pytest.mark.parametrize("name", SOCKET)
def test_the_hand_is_held_and_stays_so(name, careful_path):
    check(name, careful_path, ros=False)


@pytest.mark.parametrize("name", ROS)
def test_the_same_through_ros(name, careful_path):
    check(name, careful_path, ros=True)


HELD = [{"to": "hold", "why": "no angles", "monotonic": 10.05}]


def judged(moves, held=(), guards=(), name="no joint angles"):
    """Outcome of a fault at 10 s, watched until 12 s."""
    (exercise,) = [e for e in EXERCISES if e.name == name]
    return outcome_of(exercise, 10.0, 12.0, list(moves), list(held), list(guards))


def test_a_reaction_ends_when_the_pose_to_hold_has_reached_the_hand():
    assert judged([10.01], HELD).reaction == pytest.approx(0.05)
    late = judged([10.01, 10.4], HELD)
    assert late.reaction == pytest.approx(0.4)
    assert not late.moved_afterwards and not late.is_good  # 400 ms of 150
    assert judged([10.08], HELD).is_good


def test_a_hand_that_moves_to_the_end_has_not_been_stopped():
    assert judged([10.01, 12.0 - QUIET + 0.01], HELD).moved_afterwards
    assert not judged([10.01, 12.0 - QUIET - 0.01], HELD).moved_afterwards
    unnoticed = judged([10.5, 11.9])
    assert unnoticed.reaction is None and not unnoticed.is_good


def test_a_hand_that_must_continue_does_so_to_the_end():
    name = "messages three times"
    assert judged([10.5, 11.9], name=name).is_good
    assert not judged([10.5], name=name).is_good
    assert not judged([10.5, 11.9], HELD, name=name).is_good


def test_the_guard_commands_a_pose_after_the_silence():
    stopped = ["the guard took over: the bridge was silent"]
    later = 10.0 + SILENCE
    assert judged([10.01, later], guards=stopped).reaction == pytest.approx(SILENCE)
    assert judged([10.01], guards=stopped).reaction is None
    killed = ["the guard took over: the bridge ended"]
    assert judged([10.02], guards=killed).reaction == pytest.approx(0.02)


def test_a_bundle_that_is_not_there_is_one_line(capsys):
    assert drill.main(["nothere"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is no bundle in nothere")


def test_a_hand_that_cannot_start_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glass")
    assert drill.main(["near.dex", "--only", "clock"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: MUJOCO_GL=glass does not work here")
