"""Goals: which, when met, when a trial ends."""

import numpy as np
import pytest

from mjx_dex.task import goals as theirs
from robot_bridge import rotations
from robot_bridge.goals import CUBE_ROTATIONS, GoalRules, Goals, draw

HERE = np.array([1.0, 0.0, 0.0, 0.0])


def rules(**changes):
    standard = {
        "distribution": "near",
        "angles": (0.5, 0.9),
        "tolerance": 0.4,
        "seconds": 8.0,
        "count": 3,
    }
    return GoalRules(**{**standard, **changes})


def test_a_bundle_has_them(bundle):
    found = GoalRules.of(bundle.manifest, count=7)
    assert (found.count, found.tolerance, found.seconds) == (7, 0.4, 80.0)


def test_near_goals_are_as_far_as_asked():
    generator = np.random.default_rng(0)
    here = rotations.random(generator)
    turns = [
        rotations.angle(
            rotations.multiply(
                draw(rules(), generator, here), rotations.conjugate(here)
            )
        )
        for _ in range(500)
    ]
    assert 0.5 <= min(turns) < 0.51
    assert 0.89 < max(turns) <= 0.9


def test_uniform_goals_are_uniform():
    """The turn of a uniform rotation has density (1 - cos t) / pi: mean pi/2 + 2/pi."""
    generator = np.random.default_rng(0)
    turns = [
        rotations.angle(draw(rules(distribution="uniform"), generator, HERE))
        for _ in range(3000)
    ]
    # Its standard deviation is 0.65, so that of the mean of 3,000 is 0.012.
    assert np.mean(turns) == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.05)


def test_face_up_goals_have_an_axis_upright():
    generator = np.random.default_rng(0)
    for _ in range(50):
        goal = draw(rules(distribution="face_up"), generator, HERE)
        upright = np.abs(rotations.to_matrix(goal)[2])
        np.testing.assert_allclose(np.sort(upright), [0, 0, 1], atol=1e-9)


def test_the_cubes_rotations_are_the_environments():
    np.testing.assert_allclose(
        sorted(map(tuple, CUBE_ROTATIONS)),
        sorted(map(tuple, theirs._CUBE_ROTATIONS)),
        atol=1e-6,
    )


def test_a_goal_is_met_within_the_tolerance_and_the_next_is_set():
    goals = Goals(rules(), np.random.default_rng(0), HERE, now=10.0)
    first = goals.goal
    axis = rotations.random_axis(np.random.default_rng(1))
    beside = rotations.multiply(rotations.from_axis_angle(axis, 0.41), first)
    assert goals.judge(beside, 11.0) == ""
    assert (goals.met, goals.angle) == (0, pytest.approx(0.41))
    within = rotations.multiply(rotations.from_axis_angle(axis, 0.39), first)
    # The other sign is the same orientation.
    assert goals.judge(-within, 12.0) == ""
    assert goals.met == 1
    assert not np.allclose(goals.goal, first)
    assert 0.5 <= goals.angle <= 0.9


def test_a_trial_ends_when_time_is_out_since_the_last_goal():
    goals = Goals(rules(), np.random.default_rng(0), HERE, now=10.0)
    assert goals.judge(HERE, 17.9) == ""
    assert goals.judge(goals.goal, 17.95) == ""
    assert goals.judge(HERE, 25.9) == ""
    assert goals.judge(HERE, 25.95) == "out of time"


def test_a_trial_is_complete_after_all_goals():
    goals = Goals(rules(count=2), np.random.default_rng(0), HERE, now=0.0)
    assert goals.judge(goals.goal, 1.0) == ""
    assert goals.judge(goals.goal, 2.0) == "completed"
