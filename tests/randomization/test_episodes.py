"""Randomization in the environment: per world, per episode, through auto-reset."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.config import replace
from mjx_dex.task import BankedEnvironments, make_env

WORLDS = 2
HOLD = jnp.full((WORLDS, 20), 5)


def make(config, **changes):
    changes = {"num_envs": WORLDS, "task.start_steps": 1, **changes}
    return make_env(replace(config, **changes))


@pytest.fixture(scope="module", params=["native", "mjx", "warp"])
def played(request, config):
    """States before and after both worlds were dropped, and a step in free fall."""
    # Neither pushes nor jitter, so that free fall shows gravity alone.
    changes = {"engine": request.param, "randomization.preset": "no_unmodeled"}
    env = make(config, **changes)
    worlds = BankedEnvironments(env, WORLDS, replace(config.bank, size=4, starting=2))
    step = jax.jit(worlds.step)
    state, _ = jax.jit(worlds.reset)(jax.random.key(0))
    dropped = at_height(state, -1.0)
    restarted, time_step = step(dropped, HOLD)
    assert time_step.terminated.all()
    falling, _ = step(at_height(restarted, 0.6), HOLD)
    return state, restarted, falling


def at_height(state, height):
    """Objects at rest, upright, at a height [m]."""
    physics = state.worlds.physics
    qpos = physics.qpos.at[:, 26].set(height)
    qpos = qpos.at[:, 27:].set(jnp.array([1.0, 0, 0, 0]))
    physics = physics.replace(qpos=qpos, qvel=jnp.zeros_like(physics.qvel))
    return state.replace(worlds=state.worlds.replace(physics=physics))


def drawn(draw, effect):
    value = getattr(draw.physics, effect, None)
    value = getattr(draw, effect) if value is None else value
    rows = [np.asarray(x).reshape(WORLDS, -1) for x in jax.tree.leaves(value)]
    return np.concatenate(rows, axis=1)


VARYING = (
    "object_size",
    "link_mass",
    "object_mass",
    "surface_friction",
    "joint_damping",
    "actuator_gain",
    "joint_limit",
    "gravity",
    "correlated_noise",
    "marker_placement",
)


@pytest.mark.parametrize("effect", VARYING)
def test_two_worlds_of_a_batch_have_different_draws(played, effect):
    for state in played:
        first, second = drawn(state.worlds.draw, effect)
        assert (first != second).any()


@pytest.mark.parametrize("effect", VARYING)
def test_two_episodes_of_a_world_have_different_draws(played, effect):
    before, after, _ = (drawn(state.worlds.draw, effect) for state in played)
    assert (before != after).any(axis=1).all()


def test_a_draw_lasts_for_its_episode(played):
    _, restarted, falling = played
    jax.tree.map(
        np.testing.assert_array_equal, falling.worlds.draw, restarted.worlds.draw
    )


def test_the_engine_runs_each_episode_by_its_own_draw(played):
    _, restarted, falling = played
    added = np.asarray(restarted.worlds.draw.physics.gravity)
    gravity = added + np.array([0, 0, -9.81])
    velocity = np.asarray(falling.worlds.physics.qvel)[:, 24:27]
    np.testing.assert_allclose(velocity, 0.08 * gravity, rtol=1e-3, atol=1e-4)
    assert np.ptp(velocity[:, 2]) > 1e-3


def test_parameters_are_those_of_the_draw(played):
    for state in played:
        draw = state.worlds.draw
        mass = np.asarray(draw.parameters.body_mass)[:, -1]
        np.testing.assert_allclose(mass, 0.078 * draw.physics.object_mass, rtol=1e-6)


# --- on native ---


@pytest.fixture(scope="module")
def everything(config):
    return make(config, **{"randomization.preset": "extras"})


@pytest.fixture(scope="module")
def episode(everything):
    """A randomized episode after some steps: [(state, observation)]."""
    state, observation = jax.jit(everything.reset)(jax.random.key(1))
    step, seen = jax.jit(everything.step), [(state, observation)]
    for k in range(12):
        action = jax.random.randint(jax.random.key(k), (20,), 0, 11)
        state, time_step = step(state, action)
        seen.append((state, time_step.observation))
    return seen


def test_the_value_network_sees_no_noise_bit_for_bit(config, everything, episode):
    noiseless = make(config)
    randomized, plain = jax.jit(everything.observe), jax.jit(noiseless.observe)
    for state, observation in episode:
        _, noisy = randomized(state)
        _, expected = plain(state)
        np.testing.assert_array_equal(noisy.value, expected.value)
        # As it was observed while stepping: compiled along with everything else.
        np.testing.assert_allclose(observation.value, expected.value, atol=1e-5)
        assert (np.abs(noisy.policy - expected.policy) > 1e-4).any()


def test_rewards_come_from_true_poses(everything, episode):
    for (before, _), (after, _) in itertools.pairwise(episode):
        gained = before.angle_to_goal - after.angle_to_goal
        assert abs(float(gained)) < 1.0
        orientation = np.asarray(after.physics.qpos[27:31])
        w = abs(float(orientation @ np.asarray(after.goal)))
        np.testing.assert_allclose(
            after.angle_to_goal, 2 * np.arccos(min(w, 1.0)), atol=2e-3
        )


def test_ablations_are_paired(config):
    """The same key: the same start, goal and draws, but for what was switched off."""
    states = []
    for off in ((), ("backlash", "uncorrelated_noise")):
        env = make(config, **{"randomization.preset": "all", "randomization.off": off})
        states.append(jax.jit(env.reset)(jax.random.key(4))[0])
    whole, without = states
    np.testing.assert_allclose(without.goal, whole.goal, atol=1e-6)
    np.testing.assert_allclose(without.physics.qpos, whole.physics.qpos, atol=1e-5)
    for effect in ("physics", "correlated_noise", "marker_placement", "action_noise"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8),
            getattr(without.draw, effect),
            getattr(whole.draw, effect),
        )
    assert (whole.draw.backlash > 0).all()
    np.testing.assert_array_equal(without.draw.backlash, 0)


def test_noise_delay_and_backlash_are_not_applied_to_starts(everything):
    begun = jax.jit(everything.begin)(jax.random.key(0), everything.adaptive.init())
    assert (begun.draw.backlash == 0).all()
    assert not begun.draw.action_delay.any()
    assert begun.draw.timestep_jitter == 0
    assert begun.draw.random_push.probability == 0


def test_targets_reach_as_far_as_the_drawn_limits(config, hand):
    env = make(
        config, **{"randomization.preset": "none", "randomization.on": ("joint_limit",)}
    )
    state, _ = jax.jit(env.reset)(jax.random.key(2))
    aim = jax.jit(env.aim)
    qpos = state.physics.qpos.at[:24].set(10.0)
    beyond = state.replace(physics=state.physics.replace(qpos=qpos))
    targets, _ = aim(beyond, jnp.full(20, 10))
    shift = (
        np.asarray(state.draw.parameters.jnt_range[:24, 1])
        - hand.model.jnt_range[:24, 1]
    )
    expected = hand.ctrl_range[:, 1] + hand.actuator_joints @ shift
    np.testing.assert_allclose(targets, expected, atol=1e-5)
    assert np.abs(shift).max() > 0.1
