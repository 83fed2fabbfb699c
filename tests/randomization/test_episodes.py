"""Randomization in the environment: per world, per episode, through auto-reset."""

import copy
import itertools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy import stats

from mjx_dex import trees
from mjx_dex.config import BankConfig, replace
from mjx_dex.physics.engine import DERIVED_FIELDS
from mjx_dex.randomization.adaptive import NO_PROBE
from mjx_dex.randomization.menu import EFFECTS, SETTLED
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


# --- episodes of one start ---

EPISODES = 2000
SIGNIFICANCE = 1e-4
"""A right distribution fails a test one time in ten thousand; the keys are fixed."""


@pytest.fixture(scope="module")
def of_one_start(config):
    """A start with a prism that may be a block, and [EPISODES] draws dealt from it."""
    changes = {
        "object.shape": "prism",
        "randomization.preset": "extras",
        "randomization.on": ("object_shape",),
    }
    env = make(config, **changes)
    adaptive = env.adaptive.init()
    start = jax.jit(env.begin)(jax.random.key(5), adaptive)
    keys = jax.random.split(jax.random.key(6), EPISODES)
    limit = jnp.float32(1.0)
    deal = jax.jit(jax.vmap(lambda key: env.deal(start, key, limit, adaptive).draw))
    return env, start, jax.tree.map(np.asarray, deal(keys))


def test_episodes_of_one_start_have_the_same_object_and_other_physics(of_one_start):
    _, start, draws = of_one_start
    for effect, values in vars(draws.physics).items():
        of_start = np.asarray(getattr(start.draw.physics, effect))
        if effect in SETTLED:
            np.testing.assert_array_equal(
                values, np.broadcast_to(of_start, len(values))
            )
        else:
            several = np.concatenate([values, of_start[None]]).reshape(EPISODES + 1, -1)
            # Of 2001 float32 numbers a few may be equal by chance.
            assert len(np.unique(several, axis=0)) > EPISODES - 10, effect
    assert start.draw.physics.object_size != 1
    sizes = draws.parameters.geom_size
    np.testing.assert_array_equal(sizes, sizes[:1].repeat(EPISODES, 0))


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        ("object_mass", stats.uniform(0.5, 1.0)),
        ("link_mass", stats.uniform(0.5, 1.0)),
        ("surface_friction", stats.uniform(0.7, 0.6)),
        ("joint_damping", stats.loguniform(0.3, 3.0)),
        ("actuator_gain", stats.loguniform(0.75, 1.5)),
        ("joint_limit", stats.norm(0, 0.15)),
        ("gravity", stats.norm(0, 0.4)),
    ],
)
def test_physics_of_dealt_episodes_is_distributed_as_in_table_1(
    of_one_start, effect, expected
):
    _, _, draws = of_one_start
    values = getattr(draws.physics, effect).reshape(EPISODES, -1)
    p = stats.kstest(values.ravel().astype(float), expected.cdf).pvalue
    assert p > SIGNIFICANCE


def test_physics_of_dealt_episodes_is_what_mujoco_makes_of_the_draw(of_one_start, hand):
    env, _, draws = of_one_start
    nominal = env._hand.model
    body = nominal.body("object").id
    for k in range(5):
        drawn = jax.tree.map(lambda x, k=k: np.float64(x[k]), draws)
        factors, given = drawn.physics, drawn.parameters
        model = copy.copy(nominal)
        model.geom_size[:] = given.geom_size
        mass = np.concatenate([[1.0], factors.link_mass, [factors.object_mass]])
        model.body_mass[:] *= mass
        if factors.object_shape:  # a cube of 57 mm and 78 g
            model.body_inertia[body] = 0.078 * 0.057**2 / 6
        model.body_inertia[body] *= factors.object_size**2
        model.body_inertia[:] *= mass[:, None]
        mujoco.mj_setConst(model, mujoco.MjData(model))
        np.testing.assert_allclose(given.body_mass, model.body_mass, rtol=1e-6)
        np.testing.assert_allclose(
            given.body_inertia, model.body_inertia, rtol=1e-6, atol=1e-12
        )
        for name in DERIVED_FIELDS:
            np.testing.assert_allclose(
                getattr(given.derived, name), getattr(model, name), rtol=1e-4, atol=1e-6
            )
    # Constants of the start would not do.
    weights = draws.parameters.derived.dof_invweight0
    assert (np.ptp(weights, axis=0) / weights.mean(0)).min() > 0.005


@pytest.mark.parametrize("count", [0, 1, 4, 37, 40])
def test_dealing_in_blocks_is_dealing_to_everyone(everything, count):
    """Forty environments in blocks of three: the same draws, but for rounding."""
    worlds, starts = 40, 8
    several = BankedEnvironments(everything, worlds, BankConfig(starts, 1))
    adaptive = everything.adaptive.init()
    begin = jax.jit(jax.vmap(everything.begin, (0, None)))
    ready = begin(jax.random.split(jax.random.key(0), starts), adaptive)
    before = begin(jax.random.split(jax.random.key(1), worlds), adaptive)
    before = before.replace(goal_angle_limit=jnp.linspace(0.5, 1.0, worlds))
    chosen = np.random.default_rng(count).permutation(worlds)[:count]
    ended = jnp.zeros(worlds, bool).at[chosen].set(True)
    key = jax.random.key(2)

    def deal_everyone(before, ended):
        pick_key, episode_key = jax.random.split(key)
        picks = jax.random.permutation(pick_key, starts)[jnp.arange(worlds) % starts]
        dealt = jax.vmap(everything.deal, (0, 0, 0, None))(
            jax.tree.map(lambda x: x[picks], ready),
            jax.random.split(episode_key, worlds),
            before.goal_angle_limit,
            adaptive,
        )
        return jax.vmap(trees.where)(ended, dealt, before)

    found = jax.jit(several._deal)(before, ended, ready, key, adaptive)
    expected = jax.jit(deal_everyone)(before, ended)
    data = jax.random.key_data
    for x, y in zip(
        jax.tree.leaves(found.replace(key=data(found.key))),
        jax.tree.leaves(expected.replace(key=data(expected.key))),
        strict=True,
    ):
        # Batches of other sizes are summed in another order.
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(data(found.key), data(expected.key))
    changed = (data(found.key) != data(before.key)).any(1)
    np.testing.assert_array_equal(changed, ended)


def test_an_episode_is_drawn_at_the_bound_that_it_probes(config):
    """All bounds half way out; sizes, which stay with the start, and masses."""
    effects = ("object_size", "object_mass", "gravity")
    changes = {
        "randomization.on": effects,
        "randomization.adaptive.enabled": True,
        "randomization.adaptive.probing": 0.5,
    }
    env = make(config, **changes)
    adaptive = env.adaptive.init()
    adaptive = adaptive.replace(levels=jnp.full_like(adaptive.levels, 0.5))

    def episode(key):
        begin_key, deal_key = jax.random.split(key)
        start = env.begin(begin_key, adaptive)
        dealt = env.deal(start, deal_key, jnp.float32(1.0), adaptive)
        return start.probe, dealt.probe, dealt.draw.physics

    count = 20_000
    keys = jax.random.split(jax.random.key(7), count)
    of_start, probe, draws = jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(keys))
    # In the menu's order: size and mass have two bounds, gravity one.
    assert [name for name in EFFECTS if name in effects] == list(effects)
    size_low, size_high, mass_low, mass_high, gravity = range(5)
    bounds = {
        size_low: (draws.object_size, 0.975),
        size_high: (draws.object_size, 1.025),
        mass_low: (draws.object_mass, 0.75),
        mass_high: (draws.object_mass, 1.25),
    }
    for bound, (values, expected) in bounds.items():
        np.testing.assert_allclose(values[probe == bound], expected, rtol=1e-6)
        assert (np.abs(values[probe != bound] - expected) > 1e-6).mean() > 0.999
    is_settled = np.isin(of_start, (size_low, size_high))
    np.testing.assert_array_equal(probe[is_settled], of_start[is_settled])
    assert (probe[~is_settled] != of_start[~is_settled]).mean() > 0.3
    # Every bound in a tenth of all episodes; four and a half standard errors.
    for bound in (size_low, size_high, mass_low, mass_high, gravity):
        share, error = (probe == bound).mean(), (0.1 * 0.9 / count) ** 0.5
        assert abs(share - 0.1) < 4.5 * error, bound
    assert set(probe) == {NO_PROBE, *range(5)}


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
