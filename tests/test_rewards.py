import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.config import RewardConfig, replace
from mjx_dex.task import make_env
from mjx_dex.task.rewards import reward

HAPPENED = {
    "progress": jnp.float32(0.25),
    "met": jnp.array(True),
    "dropped": jnp.array(False),
    "timed_out": jnp.array(True),
    "angle": jnp.float32(0.3),
    "distance": jnp.float32(0.02),
    "action": jnp.array([0.5] * 10 + [-1.0] * 10),
}
NOTHING = RewardConfig(**dict.fromkeys(RewardConfig.__dataclass_fields__, 0.0))


def test_the_papers_reward_is_the_default():
    assert reward(RewardConfig(), **HAPPENED) == pytest.approx(0.25 + 5)
    dropped = HAPPENED | {"met": jnp.array(False), "dropped": jnp.array(True)}
    assert reward(RewardConfig(), **dropped) == pytest.approx(0.25 - 20)


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("progress", 0.25),
        ("success", 1.0),
        ("drop", 0.0),
        ("timeout", 1.0),
        ("closeness", 1 / 0.4),
        ("distance", 0.02),
        ("effort", (0.25 + 1) / 2),
    ],
)
def test_each_term_has_its_weight(term, value):
    weights = dataclasses.replace(NOTHING, **{term: -3.0})
    assert reward(weights, **HAPPENED) == pytest.approx(-3 * value, rel=1e-5)


def test_every_weight_is_tested():
    marks = test_each_term_has_its_weight.pytestmark[0]
    assert {term for term, _ in marks.args[1]} == set(RewardConfig.__dataclass_fields__)


def test_the_environment_gives_the_terms(config, env, started):
    """The reward of one step, from the world before and after it."""
    weights = {"closeness": 2.0, "distance": 10.0, "effort": -0.5, "progress": 0.0}
    shaped = make_env(
        replace(config, **{f"task.reward.{k}": v for k, v in weights.items()})
    )
    action = jnp.full(20, 8)  # bin 8 is 0.6, and the first action comes through whole
    after, time_step = shaped.step(started, action)
    moved = np.asarray(after.physics.qpos[24:26]) - [1.01, 0.9]
    assert np.linalg.norm(moved) > 1e-3
    expected = 2 / (float(after.angle_to_goal) + 0.1)
    expected += 10 * np.linalg.norm(moved) - 0.5 * 0.6**2
    np.testing.assert_allclose(time_step.reward, expected, rtol=1e-4)


def test_time_that_is_over_is_rewarded_as_asked(config, started):
    weights = {"task.reward.timeout": -7.0, "task.reward.progress": 0.0}
    env = make_env(replace(config, **weights))
    late = started.replace(steps_on_goal=jnp.int32(99))
    _, time_step = env.step(late, jnp.full(20, 5))
    assert time_step.truncated
    assert time_step.reward == -7
