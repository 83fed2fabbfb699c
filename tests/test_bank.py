"""Many environments that restart from a bank of started episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.config import BankConfig, replace
from mjx_dex.randomization import AdaptiveState
from mjx_dex.task import BankedEnvironments, make_env

NUM_ENVS, SIZE, STARTING, START_STEPS = 4, 4, 2, 3
HOLD = jnp.full((NUM_ENVS, 20), 5)


@pytest.fixture(scope="module")
def bank(env, config) -> BankedEnvironments:
    assert (config.bank.size, config.bank.starting) == (SIZE, STARTING)
    assert config.task.start_steps == START_STEPS
    return BankedEnvironments(env, NUM_ENVS, config.bank)


@pytest.fixture(scope="module")
def step(bank):
    return jax.jit(bank.step)


@pytest.fixture(scope="module")
def observe(env):
    return jax.jit(lambda states: jax.vmap(env.observe)(states)[1])


@pytest.fixture(scope="module")
def reset(bank):
    """State and observation."""
    return jax.jit(bank.reset)(jax.random.key(0))


@pytest.fixture(scope="module")
def fresh(reset):
    state, _ = reset
    return state


def drop(state, worlds):
    """Put the objects of some worlds below the hand."""
    physics = state.worlds.physics
    qpos = physics.qpos.at[jnp.array(worlds), 26].set(-1.0)
    physics = physics.replace(qpos=qpos)
    return state.replace(worlds=state.worlds.replace(physics=physics))


def rows(tree, index):
    return [
        np.asarray(jax.random.key_data(x) if x.dtype.name.startswith("key") else x)[
            index
        ]
        for x in jax.tree.leaves(tree)
    ]


def assert_same(first, second, index=...):
    for a, b in zip(rows(first, index), rows(second, index), strict=True):
        np.testing.assert_array_equal(a, b)


def slot_of(physics, index, ready) -> list[int]:
    """Slots of the bank that hold this world's pose."""
    same = (ready.physics.qpos == physics.qpos[index]).all(axis=1)
    return [int(i) for i in np.flatnonzero(same)]


# --- reset ---


def test_reset_fills_the_bank_with_started_episodes(fresh):
    assert fresh.stored >= SIZE
    np.testing.assert_array_equal(fresh.ready.episode_steps, START_STEPS)
    assert (fresh.ready.physics.qpos[:, 26] > 0.04).all()
    poses = np.asarray(fresh.ready.physics.qpos)
    assert len(np.unique(poses, axis=0)) == SIZE


def test_reset_deals_every_world_an_episode_of_the_bank(observe, reset):
    state, observation = reset
    for i in range(NUM_ENVS):
        assert slot_of(state.worlds.physics, i, state.ready)
    np.testing.assert_array_equal(state.worlds.episode_steps, 0)
    np.testing.assert_array_equal(state.worlds.goals_met, 0)
    expected = observe(state.worlds).value
    np.testing.assert_allclose(observation.value, expected, atol=1e-6)


def test_reset_leaves_some_worlds_starting(fresh):
    assert fresh.starting.episode_steps.shape == (STARTING,)
    assert (fresh.starting.episode_steps < START_STEPS).all()


def test_more_starting_environments_than_slots_are_refused():
    with pytest.raises(ValueError, match=r"starting \(5\) must not exceed size \(4\)"):
        BankConfig(size=4, starting=5)


def test_shapes_of_actions_are_the_environments(bank):
    assert bank.action_shape == (20, 11)
    assert bank.num_envs == NUM_ENVS


# --- worlds that end ---

ENDED, ALIVE = [1, 3], [0, 2]


@pytest.fixture(scope="module")
def ended(fresh, step):
    """State and time step after two of the worlds were dropped."""
    return step(drop(fresh, ENDED), HOLD)


def test_a_world_that_ends_takes_an_episode_of_the_bank(fresh, ended):
    state, time_step = ended
    np.testing.assert_array_equal(time_step.terminated, [False, True, False, True])
    for i in ENDED:
        assert slot_of(state.worlds.physics, i, fresh.ready)
        assert state.worlds.episode_steps[i] == 0
        assert state.worlds.steps_on_goal[i] == 0
        assert state.worlds.memory.smoothing_weight[i] == 0
    for i in ALIVE:
        assert not slot_of(state.worlds.physics, i, fresh.ready)
        assert state.worlds.episode_steps[i] == 1


def test_other_worlds_continue_as_if_nothing_had_ended(fresh, ended, step):
    state, time_step = ended
    expected_state, expected = step(fresh, HOLD)
    assert not (expected.terminated | expected.truncated).any()
    for i in ALIVE:
        assert_same(state.worlds, expected_state.worlds, i)
        assert_same(time_step, expected, i)
    assert_same(state.ready, expected_state.ready)
    assert_same(state.starting, expected_state.starting)


def test_a_truncated_world_takes_an_episode_too(fresh, step):
    worlds = fresh.worlds
    timer = worlds.steps_on_goal.at[2].set(99)
    worlds = worlds.replace(steps_on_goal=timer)
    assert worlds.angle_to_goal[2] > 0.8
    state, time_step = step(fresh.replace(worlds=worlds), HOLD)
    np.testing.assert_array_equal(time_step.truncated, [False, False, True, False])
    assert slot_of(state.worlds.physics, 2, fresh.ready)
    assert state.worlds.steps_on_goal[2] == 0


def test_observations_differ_from_the_last_ones_exactly_where_a_world_ended(ended):
    _, time_step = ended
    for network in ("policy", "value"):
        before = getattr(time_step.last_observation, network)
        after = getattr(time_step.observation, network)
        differs = (before != after).any(axis=1)
        np.testing.assert_array_equal(differs, [False, True, False, True])


def test_the_last_observation_is_of_the_old_episode(observe, ended):
    state, time_step = ended
    expected = observe(state.worlds).value
    np.testing.assert_allclose(time_step.observation.value, expected, atol=1e-6)
    # Dropped 1 m below the floor; the base marker ref1 is at 0.169 m, its z axis down.
    depth = time_step.last_observation.policy[:, 17]
    assert (depth[jnp.array(ENDED)] > 1.1).all()
    assert (depth[jnp.array(ALIVE)] < 0.1).all()
    assert (time_step.observation.policy[:, 17] < 0.1).all()


def test_a_restarted_world_keeps_its_place_in_the_curriculum(fresh, step):
    limits = jnp.array([0.9, 1.0, 1.1, 1.2])
    state = fresh.replace(worlds=fresh.worlds.replace(goal_angle_limit=limits))
    after, _ = step(drop(state, ENDED), HOLD)
    np.testing.assert_array_equal(after.worlds.goal_angle_limit, limits)


@pytest.fixture(scope="module")
def deals(fresh, step):
    """(slot, goal, key) of every world in eight steps that each ends all of them."""
    state, found = fresh, []
    for _ in range(8):
        ready = state.ready
        state, _ = step(drop(state, range(NUM_ENVS)), HOLD)
        for i in range(NUM_ENVS):
            (slot,) = slot_of(state.worlds.physics, i, ready)
            goal = tuple(np.asarray(state.worlds.goal[i]))
            key = tuple(np.asarray(jax.random.key_data(state.worlds.key[i])))
            found.append((slot, goal, key))
    return found


def test_restarted_worlds_are_dealt_from_all_of_the_bank(deals):
    # One of the slots would be missed with a probability of 4 (3/4)^32 = 4e-4.
    assert {slot for slot, _, _ in deals} == set(range(SIZE))


def test_worlds_dealt_the_same_episode_get_goals_of_their_own(deals):
    # 32 deals of 6 started episodes at most: many were dealt more than once.
    assert len({goal for _, goal, _ in deals}) == len(deals)
    assert len({key for _, _, key in deals}) == len(deals)


# --- the bank is renewed ---


def changed_slots(before, after) -> list[int]:
    differs = (before.ready.physics.qpos != after.ready.physics.qpos).any(axis=1)
    return [int(i) for i in np.flatnonzero(differs)]


def with_ages(state, ages):
    """Starting worlds that have taken so many random actions."""
    starting = state.starting.replace(episode_steps=jnp.array(ages, jnp.int32))
    return state.replace(starting=starting, stored=jnp.zeros((), jnp.int32))


def test_started_worlds_replace_the_oldest_slots_in_order(fresh, step):
    # Both get through every three steps, one step apart: slot after slot.
    state, seen = with_ages(fresh, [2, 1]), []
    for _ in range(9):
        before = state
        state, _ = step(before, HOLD)
        seen.append(changed_slots(before, state))
    assert seen == [[0], [1], [], [2], [3], [], [0], [1], []]
    assert state.stored == 6


def test_worlds_that_get_started_together_take_slots_of_their_own(fresh, step):
    state, seen = with_ages(fresh, [2, 2]), []
    for _ in range(4):
        before = state
        state, _ = step(before, HOLD)
        seen.append(changed_slots(before, state))
    assert seen == [[0, 1], [], [], [2, 3]]


def test_only_worlds_that_had_all_their_random_actions_are_stored(fresh, step):
    state = with_ages(fresh, [2, 0])
    after, _ = step(state, HOLD)
    np.testing.assert_array_equal(after.ready.episode_steps, START_STEPS)
    # The stored one begins anew at its start, the other one goes on.
    np.testing.assert_array_equal(after.starting.episode_steps, [0, 1])
    heights = after.starting.physics.qpos[:, 26]
    np.testing.assert_allclose(heights[0], 0.21, rtol=1e-6)
    assert heights[1] < 0.21


def test_what_is_stored_is_the_started_world(env, fresh, step):
    state = with_ages(fresh, [2, 0])
    after, _ = step(state, HOLD)
    first = jax.tree.map(lambda x: x[0], state.starting)
    moved, _ = jax.jit(env.act)(first, env.random_action(first))
    np.testing.assert_array_equal(after.ready.physics.qpos[0], moved.physics.qpos)


def test_a_dropped_start_begins_anew_and_is_not_stored(fresh, step):
    state = with_ages(fresh, [2, 2])
    physics = state.starting.physics
    physics = physics.replace(qpos=physics.qpos.at[0, 26].set(-1.0))
    state = state.replace(starting=state.starting.replace(physics=physics))
    after, _ = step(state, HOLD)
    # The other one, which got through, takes the first slot.
    assert changed_slots(state, after) == [0]
    assert after.stored == 1
    np.testing.assert_array_equal(after.starting.episode_steps, 0)
    assert (after.ready.physics.qpos[:, 26] > 0.04).all()


def test_every_start_is_another_one(fresh, step):
    state, starts = with_ages(fresh, [2, 1]), []
    for _ in range(6):
        state, _ = step(state, HOLD)
        new = state.starting.episode_steps == 0
        starts += [tuple(q) for q in np.asarray(state.starting.physics.qpos)[new]]
    assert len(starts) == 4
    assert len(set(starts)) == 4


def test_steps_are_functions_of_their_state(fresh, step):
    first, second = step(fresh, HOLD), step(fresh, HOLD)
    assert_same(first, second)


def test_a_bank_that_cannot_be_filled_is_an_error(config):
    # Nothing holds the ball: it is dropped long before the random actions end.
    hopeless = replace(
        config,
        **{
            "object.shape": "sphere",
            "object.start_position": (0.7, 0.4, 0.1),
            "task.start_steps": 5,
        },
    )
    worlds = BankedEnvironments(make_env(hopeless), 2, hopeless.bank)
    state, _ = jax.jit(worlds.reset)(jax.random.key(0))
    with pytest.raises(ValueError, match=r"0 of bank\.size 4.*task\.start_steps"):
        worlds.check(state)


# --- what outlives the environments ---


def progress_of(fresh, limits):
    """Of two devices, whose environments have ``limits`` [2, NUM_ENVS]."""
    counts = jnp.arange(fresh.adaptive.goals.size, dtype=float)
    counts = counts.reshape(fresh.adaptive.goals.shape)
    adaptive = [AdaptiveState(counts / 100, k * counts, counts) for k in (1, 3)]
    return [
        fresh.replace(
            worlds=fresh.worlds.replace(goal_angle_limit=jnp.asarray(limits[k])),
            adaptive=adaptive[k],
        )
        for k in (0, 1)
    ], counts


LIMITS = np.float32([[0.9, 0.8, 1.5, 2.0], [1.0, 1.2, 0.8, 3.0]])


@pytest.fixture(scope="module")
def progress(bank, fresh):
    states, _ = progress_of(fresh, LIMITS)
    return bank.progress(jax.tree.map(lambda x, y: jnp.stack([x, y]), *states))


def test_progress_is_of_all_devices_together(fresh, progress):
    _, counts = progress_of(fresh, LIMITS)
    np.testing.assert_array_equal(progress.goal_angle_limits, LIMITS.ravel())
    np.testing.assert_allclose(progress.adaptive.levels, counts / 100)
    np.testing.assert_allclose(progress.adaptive.goals, 4 * counts)
    np.testing.assert_allclose(progress.adaptive.episodes, 2 * counts)


def test_as_many_environments_keep_their_own_limits(bank, progress):
    dealt = bank.distribute_progress(progress, 2)
    np.testing.assert_array_equal(dealt.goal_angle_limits, LIMITS)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        # Eight limits, sorted: 0.8 0.8 0.9 1.0 1.2 1.5 2.0 3.0; four of them, evenly.
        (1, [[0.8, 1.0, 1.5, 3.0]]),
        # Sixteen, each twice, dealt in turn to four devices.
        (4, [[0.8, 0.9, 1.2, 2.0]] * 2 + [[0.8, 1.0, 1.5, 3.0]] * 2),
    ],
)
def test_other_numbers_have_the_same_distribution(bank, progress, devices, expected):
    dealt = bank.distribute_progress(progress, devices)
    np.testing.assert_allclose(dealt.goal_angle_limits, expected)
    # Counts are of all devices together, bounds are known to all.
    np.testing.assert_allclose(dealt.adaptive.goals.sum(0), progress.adaptive.goals)
    assert (dealt.adaptive.goals[1:] == 0).all()
    levels = jnp.stack([progress.adaptive.levels] * devices)
    np.testing.assert_array_equal(dealt.adaptive.levels, levels)


def test_environments_begin_with_what_was_reached(bank, progress):
    dealt = jax.tree.map(lambda x: x[0], bank.distribute_progress(progress, 2))
    state, _ = jax.jit(bank.reset)(jax.random.key(0), dealt)
    np.testing.assert_array_equal(state.worlds.goal_angle_limit, LIMITS[0])
    jax.tree.map(np.testing.assert_array_equal, state.adaptive, dealt.adaptive)
