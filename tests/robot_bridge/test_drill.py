"""What goes wrong on purpose, in processes; the whole list is ``drill`` itself."""

import pytest

from robot_bridge.drill import EXERCISES, run

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
