"""Goal orientations, against SciPy's rotations and statistics.

Keys are fixed, so nothing here is random from one run to the next; bounds are five
standard errors, or a p-value of 0.001.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from mjx_dex.config import GoalConfig
from mjx_dex.task import goals

N = 20_000
ORIENTATION = Rotation.from_rotvec([0.3, -1.1, 2.0])


def draw(config: GoalConfig, limit: float = 0.8, seed: int = 0) -> Rotation:
    """N goals for an object in ``ORIENTATION``."""
    orientation = jnp.asarray(ORIENTATION.as_quat(scalar_first=True), jnp.float32)
    keys = jax.random.split(jax.random.key(seed), N)
    draw_goal = functools.partial(goals.draw_goal, config=config)
    quaternions = jax.jit(jax.vmap(draw_goal, (0, None, None)))(
        keys, orientation, limit
    )
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1, atol=1e-6)
    return Rotation.from_quat(np.asarray(quaternions), scalar_first=True)


@pytest.fixture(scope="module")
def face_up() -> Rotation:
    return draw(GoalConfig(distribution="face_up"))


@pytest.fixture(scope="module")
def near_turns() -> np.ndarray:
    """[N, 3] rotation vectors from the object to 'near' goals of 0.45 to 1.5 rad."""
    goal = draw(GoalConfig(distribution="near", angles=(0.45, 0.8)), limit=1.5)
    return (goal * ORIENTATION.inv()).as_rotvec()


def looks_uniform(sample, low: float, high: float) -> bool:
    return stats.kstest(sample, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def looks_isotropic(vectors: np.ndarray) -> bool:
    """Archimedes: every coordinate of a point on the sphere is uniform."""
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    correlations = np.corrcoef(directions.T) - np.eye(3)
    return all(
        looks_uniform(coordinate, -1, 1) for coordinate in directions.T
    ) and np.abs(correlations).max() < 5 / np.sqrt(N)


def test_uniform_goals_cover_all_rotations_evenly():
    goal = draw(GoalConfig(distribution="uniform"))

    def cdf(angle):
        """Of the turn of a uniform rotation: its density is (1 - cos a) / pi."""
        return (angle - np.sin(angle)) / np.pi

    assert stats.kstest(goal.magnitude(), cdf).pvalue > 1e-3
    assert looks_isotropic(goal.as_rotvec())
    # The same seen from the object, whose orientation must not matter.
    remaining = goal * ORIENTATION.inv()
    assert stats.kstest(remaining.magnitude(), cdf).pvalue > 1e-3
    # Entries of a uniform rotation matrix have mean 0 and variance 1/3.
    means = goal.as_matrix().mean(axis=0)
    assert np.abs(means).max() < 5 * np.sqrt(1 / 3 / N)


def test_face_up_goals_have_a_face_up(face_up):
    up = face_up.inv().apply([0.0, 0.0, 1.0])
    # Up, in the cube's frame, is one of its six axes.
    np.testing.assert_allclose(np.abs(up).max(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.sort(np.abs(up), axis=1)[:, :2], 0, atol=1e-5)


def test_face_up_goals_have_each_face_up_as_often(face_up):
    up = face_up.inv().apply([0.0, 0.0, 1.0]).round().astype(int)
    _, counts = np.unique(up, axis=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_face_up_goals_have_any_heading(face_up):
    up = face_up.inv().apply([0.0, 0.0, 1.0]).round()
    for face in np.vstack([np.eye(3), -np.eye(3)]):
        chosen = face_up[(up == face).all(axis=1)]
        # Heading of an axis that lies flat when this face is up.
        flat = chosen.apply(np.roll(face, 1))
        assert looks_uniform(np.arctan2(flat[:, 1], flat[:, 0]), -np.pi, np.pi)


def test_a_cube_has_24_rotations():
    quaternions = goals._CUBE_ROTATIONS
    assert quaternions.shape == (24, 4)
    ours = Rotation.from_quat(quaternions, scalar_first=True)
    group = Rotation.create_group("O")
    apart = np.array([(ours * other.inv()).magnitude() for other in group])
    assert apart.shape == (24, 24)
    # Each of the group's rotations is one of ours, and no two are the same one.
    assert ((apart < 1e-6).sum(axis=0) == 1).all()
    assert ((apart < 1e-6).sum(axis=1) == 1).all()


def test_near_goals_are_turned_by_an_angle_within_bounds(near_turns):
    turns = np.linalg.norm(near_turns, axis=1)
    assert turns.min() > 0.45 - 1e-5
    assert turns.max() < 1.5 + 1e-5
    assert looks_uniform(turns, 0.45, 1.5)


def test_near_goals_are_turned_about_any_axis(near_turns):
    assert looks_isotropic(near_turns)


def test_near_goals_angle_and_axis_are_independent(near_turns):
    turns = np.linalg.norm(near_turns, axis=1)
    axes = near_turns / turns[:, None]
    for coordinate in axes.T:
        correlation = stats.pearsonr(turns, coordinate).statistic
        assert abs(correlation) < 5 / np.sqrt(N)


@pytest.mark.parametrize("distribution", ["uniform", "face_up", "near"])
def test_goals_are_a_function_of_their_key(distribution):
    config = GoalConfig(distribution=distribution)
    first, second, other = (draw(config, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.as_quat(), second.as_quat())
    assert (first * other.inv()).magnitude().min() > 0


@pytest.mark.parametrize(
    ("limit", "met", "failed", "expected"),
    [
        (1.3, True, False, 1.4),
        (1.3, False, True, 1.1),
        (1.3, False, False, 1.3),
        (3.1, True, False, np.pi),
        (0.85, False, True, 0.8),
        (0.8, False, True, 0.8),
    ],
)
def test_the_curriculum_widens_narrows_and_stops(limit, met, failed, expected):
    config = GoalConfig(
        distribution="near", angles=(0.45, 0.8), widening=0.1, narrowing=0.2
    )
    after = goals.next_angle_limit(
        jnp.asarray(limit), jnp.asarray(met), jnp.asarray(failed), config
    )
    np.testing.assert_allclose(after, expected, rtol=1e-6)


def test_the_limit_stays_by_default():
    config = GoalConfig(distribution="near")
    for met in (True, False):
        after = goals.next_angle_limit(
            jnp.asarray(1.3), jnp.asarray(met), jnp.asarray(not met), config
        )
        np.testing.assert_allclose(after, 1.3, rtol=1e-6)
