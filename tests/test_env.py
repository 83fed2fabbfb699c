"""One environment, against reward and episode rules worked out with SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mjx_dex.config import replace
from mjx_dex.task import HandEnv

HOLD = jnp.full(20, 5)
"""The bins of no action at all."""
BROKEN = 2
"""The world of the batch that is made to blow up."""


def to_scipy(quaternion) -> Rotation:
    return Rotation.from_quat(np.asarray(quaternion), scalar_first=True)


def angle_left(state, goal) -> float:
    orientation = to_scipy(state.physics.qpos[27:31])
    return (to_scipy(goal) * orientation.inv()).magnitude()


def with_goal_at(state, turn: float):
    """``state`` with a goal ``turn`` [rad] about the vertical from where it is."""
    goal = Rotation.from_rotvec([0, 0, turn]) * to_scipy(state.physics.qpos[27:31])
    return state.replace(
        goal=jnp.asarray(goal.as_quat(scalar_first=True), jnp.float32),
        angle_to_goal=jnp.asarray(turn, jnp.float32),
    )


def with_height(state, height: float):
    qpos = state.physics.qpos.at[26].set(height)
    return state.replace(physics=state.physics.replace(qpos=qpos))


def counters(state, **values):
    return state.replace(**{k: jnp.asarray(v, jnp.int32) for k, v in values.items()})


def assert_same(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def world(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


@pytest.fixture(scope="module")
def reset(env):
    return jax.jit(env.reset)


@pytest.fixture(scope="module")
def judge(env):
    """Reward and rules for two states, as if no contact had been lost between them."""
    return jax.jit(lambda state, moved: env.judge(state, moved, jnp.int32(0)))


@pytest.fixture(scope="module")
def batch(reset):
    """Four started worlds."""
    states = [reset(jax.random.key(seed))[0] for seed in range(1, 5)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@pytest.fixture(scope="module")
def batch_actions():
    return jax.random.randint(jax.random.key(2), (4, 20), 0, 11)


@pytest.fixture(scope="module")
def batch_step(env):
    return jax.jit(jax.vmap(env.step))


# --- reward ---


def test_reward_is_the_angle_gained(env_step, started):
    state = with_goal_at(started, 2.0)
    goal, rng = state.goal, np.random.default_rng(0)
    gains = []
    for _ in range(5):
        before = angle_left(state, goal)
        state, time_step = env_step(state, jnp.asarray(rng.integers(0, 11, 20)))
        gains.append(before - angle_left(state, goal))
        np.testing.assert_allclose(time_step.reward, gains[-1], atol=2e-6)
        np.testing.assert_array_equal(state.goal, goal)
        assert not time_step.terminated
        assert not time_step.truncated
    assert np.abs(gains).max() > 0.01


def test_a_met_goal_earns_five(env_step, started):
    state = with_goal_at(started, 0.3)
    after, time_step = env_step(state, HOLD)
    gain = 0.3 - angle_left(after, state.goal)
    np.testing.assert_allclose(time_step.reward, gain + 5, atol=2e-6)
    assert time_step.metrics["goals"] == 1
    assert after.goals_met == 1


@pytest.mark.parametrize(("turn", "met"), [(0.39, True), (0.41, False)])
def test_a_goal_is_met_within_0_4_rad(judge, started, turn, met):
    state = with_goal_at(started, turn)
    _, time_step = judge(state, state)
    assert time_step.metrics["goals"] == met
    np.testing.assert_allclose(time_step.reward, 5.0 * met, atol=2e-6)


def test_a_drop_costs_twenty_and_terminates(env_step, started):
    state = with_height(with_goal_at(started, 2.0), 0.0)
    after, time_step = env_step(state, HOLD)
    gain = 2.0 - angle_left(after, state.goal)
    np.testing.assert_allclose(time_step.reward, gain - 20, atol=2e-6)
    assert time_step.terminated
    assert not time_step.truncated
    assert time_step.metrics["drops"] == 1
    assert time_step.metrics["broken_worlds"] == 0


@pytest.mark.parametrize(("height", "dropped"), [(0.039, True), (0.041, False)])
def test_dropped_is_below_4_cm(judge, started, height, dropped):
    state = with_height(with_goal_at(started, 2.0), height)
    _, time_step = judge(state, state)
    assert time_step.terminated == dropped


# --- goals and time ---


def test_a_met_goal_is_replaced_at_once(env, env_step, started):
    state = counters(with_goal_at(started, 0.2), steps_on_goal=60)
    after, time_step = env_step(state, HOLD)
    assert (to_scipy(after.goal) * to_scipy(state.goal).inv()).magnitude() > 0.1
    # What remains is measured to the new goal: a switch earns and costs nothing.
    np.testing.assert_allclose(
        after.angle_to_goal, angle_left(after, after.goal), atol=2e-6
    )
    remaining = time_step.observation.policy[18:22]
    np.testing.assert_allclose(
        to_scipy(remaining).magnitude(), angle_left(after, after.goal), atol=2e-6
    )
    expected = env.observe(after)[1].value
    np.testing.assert_allclose(time_step.observation.value, expected, atol=1e-6)


def test_a_met_goal_restarts_the_timer(env_step, started):
    state = counters(with_goal_at(started, 0.2), steps_on_goal=60, episode_steps=200)
    after, _ = env_step(state, HOLD)
    assert after.steps_on_goal == 0
    assert after.episode_steps == 201


def test_the_timer_runs_while_the_goal_is_not_met(env_step, started):
    state = counters(with_goal_at(started, 2.0), steps_on_goal=60, episode_steps=200)
    after, _ = env_step(state, HOLD)
    assert after.steps_on_goal == 61
    assert after.episode_steps == 201


@pytest.mark.parametrize(("steps_before", "cut"), [(98, False), (99, True)])
def test_eight_seconds_without_the_goal_truncate(env_step, started, steps_before, cut):
    # 8 s are 100 control steps of 80 ms.
    state = with_goal_at(started, 2.0)
    state = counters(state, steps_on_goal=steps_before, episode_steps=150, goals_met=2)
    _, time_step = env_step(state, HOLD)
    assert time_step.truncated == cut
    assert not time_step.terminated
    assert time_step.metrics["timeouts"] == cut
    assert time_step.metrics["completions"] == 0
    assert time_step.metrics["episodes"] == cut
    assert time_step.metrics["episode_goals"] == (2 if cut else 0)
    assert time_step.metrics["episode_steps"] == (151 if cut else 0)


def test_a_goal_met_at_the_last_moment_counts(env_step, started):
    state = counters(with_goal_at(started, 0.2), steps_on_goal=99)
    after, time_step = env_step(state, HOLD)
    assert time_step.metrics["goals"] == 1
    assert not time_step.truncated
    assert after.steps_on_goal == 0


@pytest.mark.parametrize(("met_before", "complete"), [(48, False), (49, True)])
def test_fifty_goals_complete_the_episode(env_step, started, met_before, complete):
    state = counters(with_goal_at(started, 0.2), goals_met=met_before)
    _, time_step = env_step(state, HOLD)
    assert time_step.truncated == complete
    assert not time_step.terminated
    assert time_step.metrics["completions"] == complete
    assert time_step.metrics["timeouts"] == 0
    assert time_step.metrics["episode_goals"] == (50 if complete else 0)
    np.testing.assert_allclose(time_step.reward, 5, atol=0.2)


def test_a_drop_is_no_truncation_even_at_the_last_moment(env_step, started):
    state = counters(with_height(with_goal_at(started, 2.0), 0.0), steps_on_goal=99)
    _, time_step = env_step(state, HOLD)
    assert time_step.terminated
    assert not time_step.truncated
    assert time_step.metrics["timeouts"] == 0
    assert time_step.metrics["episodes"] == 1


@pytest.fixture(scope="module")
def judge_near(hand, config):
    """``judge`` with a curriculum over 'near' goals."""
    near = {"distribution": "near", "widening": 0.1, "narrowing": 0.2}
    changes = {f"task.goal.{name}": value for name, value in near.items()}
    env = HandEnv(hand, None, replace(config, **changes))
    return jax.jit(lambda state, moved: env.judge(state, moved, jnp.int32(0)))


@pytest.mark.parametrize(
    ("turn", "height", "goals_met", "expected"),
    [
        (0.2, 0.2, 0, 1.4),  # met
        (2.0, 0.0, 0, 1.1),  # dropped before the first goal
        (2.0, 0.0, 3, 1.3),  # dropped after some goals
        (2.0, 0.2, 0, 1.3),  # nothing happened
    ],
)
def test_the_curriculum_follows_the_episode(
    judge_near, started, turn, height, goals_met, expected
):
    state = counters(with_goal_at(started, turn), goals_met=goals_met)
    state = with_height(state, height).replace(goal_angle_limit=jnp.asarray(1.3))
    after, time_step = judge_near(state, state)
    np.testing.assert_allclose(after.goal_angle_limit, expected, rtol=1e-6)
    np.testing.assert_allclose(
        time_step.metrics["goal_angle_limit"], expected, rtol=1e-6
    )
    if turn < 0.4:
        assert 0.45 - 1e-5 < after.angle_to_goal < expected + 1e-5


# --- steps are functions ---


def test_a_step_is_a_function_of_its_state(env_step, started):
    state = with_goal_at(started, 0.2)
    action = jax.random.randint(jax.random.key(3), (20,), 0, 11)
    first = env_step(state, action)
    # Another world in between must leave nothing behind.
    env_step(with_height(state, 0.3), HOLD)
    assert_same(first, env_step(state, action))


def test_the_next_goal_depends_on_the_key(env_step, started):
    state = with_goal_at(started, 0.2)
    goals = [
        env_step(state.replace(key=jax.random.key(seed)), HOLD)[0].goal
        for seed in (1, 2)
    ]
    assert (goals[0] != goals[1]).any()


def test_a_worlds_goals_differ_from_one_to_the_next(env_step, started):
    first, _ = env_step(with_goal_at(started, 0.2), HOLD)
    second, _ = env_step(with_goal_at(first, 0.2), HOLD)
    assert (to_scipy(first.goal) * to_scipy(second.goal).inv()).magnitude() > 0.1


def test_actions_move_the_hand(env_step, started):
    low, _ = env_step(started, jnp.zeros(20, int))
    high, _ = env_step(started, jnp.full(20, 10))
    moved = high.physics.qpos[:24] - low.physics.qpos[:24]
    assert (moved[jnp.array([0, 1, 3, 8])] > 0.02).all()


# --- reset ---


class CountingEngine:
    """Counts its steps in ``qvel``, and drops objects that are upside down."""

    name = "counting"

    def step(self, parameters, state, ctrl, force, timesteps):
        up = 1 - 2 * (state.qpos[28] ** 2 + state.qpos[29] ** 2)
        height = jnp.where(up < 0, -1.0, state.qpos[26])
        state = state.replace(
            qpos=state.qpos.at[26].set(height), qvel=state.qvel.at[0].add(1)
        )
        return state, jnp.zeros((), jnp.int32)


@pytest.fixture(scope="module")
def counted(hand, config):
    """Sixteen resets where about half of all starts are dropped, after 7 actions."""
    env = HandEnv(hand, CountingEngine(), replace(config, **{"task.start_steps": 7}))
    keys = jax.random.split(jax.random.key(4), 16)
    return jax.jit(jax.vmap(env.reset))(keys)[0]


def test_an_episode_begins_after_start_steps_actions(counted):
    np.testing.assert_array_equal(counted.physics.qvel[:, 0], 7)


def test_dropped_starts_are_discarded(counted):
    assert (counted.physics.qpos[:, 26] > 0.04).all()
    up = [to_scipy(q).apply([0, 0, 1])[2] for q in counted.physics.qpos[:, 27:31]]
    assert (np.array(up) >= 0).all()


def test_episodes_begin_with_nothing_counted_and_nothing_remembered(counted):
    for name in ("goals_met", "steps_on_goal", "episode_steps"):
        np.testing.assert_array_equal(getattr(counted, name), 0)
    # But for the first observation, which the policy has been shown.
    for name, value in vars(counted.memory).items():
        if name not in ("fingertip_reading", "object_reading", "readings"):
            np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(counted.memory.readings, 1)
    np.testing.assert_allclose(counted.goal_angle_limit, 0.8)


def test_episodes_begin_in_different_orientations_with_different_goals(counted):
    orientations = np.asarray(counted.physics.qpos[:, 27:31])
    assert len(np.unique(orientations, axis=0)) == 16
    assert len(np.unique(np.asarray(counted.goal), axis=0)) == 16
    for i in range(16):
        left = angle_left(world(counted, i), counted.goal[i])
        np.testing.assert_allclose(counted.angle_to_goal[i], left, atol=2e-6)


def test_reset_is_a_function_of_its_key(reset):
    assert_same(reset(jax.random.key(5)), reset(jax.random.key(5)))
    (first, _), (second, _) = (reset(jax.random.key(seed)) for seed in (5, 6))
    assert (first.physics.qpos != second.physics.qpos).any()


def test_reset_observes_the_state_it_returns(env, reset):
    state, observation = reset(jax.random.key(7))
    _, expected = env.observe(state)
    np.testing.assert_allclose(observation.policy, expected.policy, atol=1e-6)
    np.testing.assert_allclose(observation.value, expected.value, atol=1e-6)


def test_starts_take_random_actions(batch):
    joints = np.asarray(batch.physics.qpos[:, :24])
    assert (np.ptp(joints, axis=0) > 1e-4).all()


# --- worlds that blow up ---


@pytest.fixture(
    scope="module", params=[("qpos", 0), ("qpos", 28), ("qvel", 5), ("qvel", 29)]
)
def blown_up(request, batch, batch_step, batch_actions, tmp_path_factory):
    """A batch's step with a NaN in one world, and the same without."""
    field, index = request.param
    values = getattr(batch.physics, field).at[BROKEN, index].set(jnp.nan)
    broken = batch.replace(physics=batch.physics.replace(**{field: values}))
    with pytest.MonkeyPatch.context() as patch:
        # MuJoCo writes a warning to a file in the working folder.
        patch.chdir(tmp_path_factory.mktemp("log"))
        with_nan = jax.block_until_ready(batch_step(broken, batch_actions))
    return with_nan, batch_step(batch, batch_actions)


def test_a_world_with_a_nan_terminates_and_is_counted(blown_up):
    (_, time_step), (_, healthy) = blown_up
    expected = [i == BROKEN for i in range(4)]
    np.testing.assert_array_equal(time_step.metrics["broken_worlds"], expected)
    assert time_step.terminated[BROKEN]
    assert not time_step.truncated[BROKEN]
    assert time_step.reward[BROKEN] == 0
    np.testing.assert_array_equal(healthy.metrics["broken_worlds"], 0)


def test_a_world_with_a_nan_leaves_only_finite_numbers(blown_up):
    (state, time_step), _ = blown_up
    for leaf in jax.tree.leaves(time_step):
        assert np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(state.replace(key=jnp.zeros(()))):
        assert np.isfinite(leaf).all()


def test_a_world_with_a_nan_does_not_touch_the_others(blown_up):
    with_nan, without = blown_up
    for i in range(4):
        if i != BROKEN:
            assert_same(world(with_nan, i), world(without, i))


def test_a_world_that_blew_up_works_again(blown_up, batch, batch_step, batch_actions):
    _, expected = blown_up
    assert_same(batch_step(batch, batch_actions), expected)


# --- physics parameters ---


def test_physics_parameters_stay_with_their_world(batch, batch_step):
    gravity = jnp.asarray([[0, 0, -9.81], [0, 0, 0], [0, 0, 9.81], [9.81, 0, 0]])
    velocity = jnp.asarray([0.3, -0.2, 0.1])

    def fall(gravity):
        """How far four objects in the air move in one control step, [4, 3]."""
        parameters = batch.draw.parameters.replace(gravity=gravity)
        qpos = batch.physics.qpos.at[:, 26].set(1.0)
        qvel = jnp.zeros((4, 30)).at[:, 24:27].set(velocity)
        physics = batch.physics.replace(qpos=qpos, qvel=qvel)
        state = batch.replace(
            draw=batch.draw.replace(parameters=parameters), physics=physics
        )
        after, _ = batch_step(state, jnp.full((4, 20), 5))
        np.testing.assert_array_equal(after.draw.parameters.gravity, gravity)
        return np.asarray(after.physics.qpos[:, 24:27] - qpos[:, 24:27])

    # Euler's method, 10 steps of 8 ms: 0.008^2 g (1 + 2 + ... + 10).
    expected = 0.08 * velocity + 0.008**2 * 55 * np.asarray(gravity)
    np.testing.assert_allclose(fall(gravity), expected, atol=1e-6)
    # The same worlds with others' gravity: nothing is left of the first call.
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(fall(gravity[order]), expected[order], atol=1e-6)


def test_a_heavier_hand_in_one_world_changes_only_that_world(
    batch, batch_step, batch_actions
):
    nominal = batch.draw.parameters
    heavy = nominal.replace(body_mass=nominal.body_mass.at[1].multiply(3.0))
    heavy_batch = batch.replace(draw=batch.draw.replace(parameters=heavy))
    changed, _ = batch_step(heavy_batch, batch_actions)
    expected, _ = batch_step(batch, batch_actions)
    for i in range(4):
        same = (changed.physics.qpos[i] == expected.physics.qpos[i]).all()
        assert same == (i != 1)


def test_steps_are_the_same_alone_and_in_a_batch(
    env_step, batch, batch_step, batch_actions
):
    together, _ = batch_step(batch, batch_actions)
    for i in range(4):
        alone, _ = env_step(world(batch, i), batch_actions[i])
        # XLA rounds targets differently in a batch.
        np.testing.assert_allclose(
            alone.physics.qpos, together.physics.qpos[i], atol=1e-5
        )
