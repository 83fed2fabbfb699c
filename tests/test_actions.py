"""From bins to joint targets, against arithmetic by hand."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mjx_dex.hand
from mjx_dex.config import replace
from mjx_dex.task import HandEnv, actions, make_env
from mjx_dex.types import EffectMemory

CALIBRATED = Path(mjx_dex.hand.__file__).with_name("calibrated.json")
A_WRJ1, A_WRJ0, A_FFJ1, A_THJ0 = 0, 1, 4, 19
WRJ0, FFJ1, FFJ0, LFJ1, LFJ0, THJ0 = 1, 4, 5, 17, 18, 23


@pytest.fixture(scope="module")
def ranges():
    """[20, 2] of the actuators, from the calibration file."""
    values = json.loads(CALIBRATED.read_text())["actuators"].values()
    return np.array([actuator["ctrlrange"] for actuator in values])


def targets_of(action, angles, hand):
    return actions.joint_targets(action, angles, hand, jnp.asarray(hand.ctrl_range))


def no_memory():
    return EffectMemory.empty()


class RecordingEngine:
    """Puts what it is asked for into the state, in place of physics."""

    name = "recording"

    def step(self, parameters, state, ctrl, force, timesteps):
        qvel = jnp.concatenate([ctrl, timesteps])
        return state.replace(qvel=qvel), jnp.zeros((), jnp.int32)


def recording_env(hand, config, **changes):
    changes = {"physics.substeps": 10, **changes}
    return HandEnv(hand, RecordingEngine(), replace(config, **changes))


def test_bins_are_evenly_spaced_with_both_ends():
    values = actions.decode(jnp.arange(11), 11)
    expected = [-1, -0.8, -0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8, 1]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_array_equal(actions.decode(jnp.arange(3), 3), [-1, 0, 1])


def test_numbers_are_clipped():
    values = actions.decode(jnp.array([-3.0, -0.25, 0.7, 1.5]), None)
    np.testing.assert_allclose(values, [-1.0, -0.25, 0.7, 1.0])


@pytest.mark.parametrize("num_bins", [11, None])
def test_random_actions_are_spread_evenly(num_bins):
    chosen = actions.random_action(jax.random.key(0), (20_000,), num_bins)
    values = np.asarray(actions.decode(chosen, num_bins))
    # Four standard errors of mean and variance of an even spread.
    variance = 1 / 3 if num_bins is None else np.var(np.linspace(-1, 1, 11))
    assert abs(values.mean()) < 4 * (variance / 20_000) ** 0.5
    assert abs(values.var() - variance) < 4 * variance / 20_000**0.5
    assert values.min() >= -1 and values.max() <= 1


def test_smoothing_of_three_actions():
    rng = np.random.default_rng(0)
    first, second, third = rng.uniform(-1, 1, (3, 20)).astype(np.float32)
    memory, smoothed = no_memory(), []
    for action in (first, second, third):
        value, memory = actions.smooth(action, memory, 0.3)
        smoothed.append(value)
    # Each past step counts 0.3 of the one after it; the weights add up to one.
    np.testing.assert_allclose(smoothed[0], first, atol=1e-6)
    expected = (0.3 * first + second) / 1.3
    np.testing.assert_allclose(smoothed[1], expected, atol=1e-6)
    expected = (0.09 * first + 0.3 * second + third) / 1.39
    np.testing.assert_allclose(smoothed[2], expected, atol=1e-6)


def test_smoothing_keeps_a_constant_action():
    action, memory = jnp.full(20, 0.6), no_memory()
    for _ in range(5):
        value, memory = actions.smooth(action, memory, 0.3)
        np.testing.assert_allclose(value, 0.6, atol=1e-6)


def test_smoothing_with_no_weight_on_the_past_changes_nothing():
    memory = no_memory()
    for value in (0.5, -1.0):
        smoothed, memory = actions.smooth(jnp.full(20, value), memory, 0.0)
        np.testing.assert_array_equal(smoothed, value)


@pytest.mark.parametrize("substeps", [5, 10, 20])
def test_what_is_left_of_an_action_after_a_time_does_not_depend_on_the_period(
    hand, config, started, substeps
):
    """Full actions for long, then none: 0.3 is left after 80 ms, 0.09 after 160 ms."""
    env = recording_env(
        hand,
        config,
        **{"physics.substeps": substeps, "task.action_targets": "absolute"},
    )
    aim = jax.jit(env.aim)
    memory = no_memory().replace(
        smoothed_action=jnp.full(20, 0.6), smoothing_weight=jnp.ones(())
    )
    state, left = started.replace(memory=memory), {}
    low, high = hand.ctrl_range.T
    for step in range(1, 160 // (8 * substeps) + 1):
        targets, memory = aim(state, jnp.full(20, 5))  # bin 5 is 0
        state = state.replace(memory=memory)
        left[8 * substeps * step] = (targets - (low + high) / 2) / ((high - low) / 2)
    for milliseconds in {80, 160} & set(left):
        expected = 0.6 * 0.3 ** (milliseconds / 80)
        np.testing.assert_allclose(left[milliseconds], expected, rtol=1e-5)
    assert 160 in left


def test_noise_reaches_actuators_at_the_size_of_table_8(hand, config, started):
    """0.1 and 0.03 of an action of 0.4 every step, 0.03 per episode; none is clipped.

    Smoothing before it leaves the noise alone; after it, 0.073 would be left of 0.1.
    """
    env = recording_env(
        hand,
        config,
        **{
            "task.action_targets": "absolute",
            "randomization.on": ("action_noise",),
        },
    )
    low, high = hand.ctrl_range.T
    deal = jax.jit(
        lambda key: env.deal(started, key, jnp.float32(1.0), env.adaptive.init())
    )

    def noisy(key):
        deal_key, step_key = jax.random.split(key)
        state = deal(deal_key)
        for k in range(4):
            state = state.replace(key=jax.random.fold_in(step_key, k))
            targets, memory = env.aim(state, jnp.full(20, 7))  # bin 7 is 0.4
            state = state.replace(memory=memory)
        value = (targets - (low + high) / 2) / ((high - low) / 2)
        own = state.draw.action_noise.correlated
        return value - own, own, actions.smoothed(memory)

    count = 4000
    keys = jax.random.split(jax.random.key(0), count)
    fresh, own, smoothed = jax.jit(jax.vmap(noisy))(keys)
    # 80,000 values: four and a half standard errors of their deviation.
    for values, deviation in ((fresh, np.hypot(0.1, 0.03 * 0.4)), (own, 0.03)):
        error = deviation / (2 * count * 20) ** 0.5
        assert abs(np.std(values) - deviation) < 4.5 * error
    assert abs(np.mean(fresh) - 0.4) < 4.5 * 0.1007 / (count * 20) ** 0.5
    # What effort is charged for has no noise in it.
    np.testing.assert_allclose(smoothed, 0.4, rtol=1e-5)


def test_a_whole_action_asks_for_half_the_range(hand, ranges):
    # The middle of every range, where neither end clips.
    angles = np.zeros(24, np.float32)
    for i, middle in enumerate(ranges.mean(1)):
        joints = np.flatnonzero(hand.actuator_joints[i])
        angles[joints] = middle / len(joints)
    for action in (-1.0, -0.5, 0.0, 1.0):
        targets = targets_of(jnp.full(20, action), angles, hand)
        expected = ranges.mean(1) + action * (ranges[:, 1] - ranges[:, 0]) / 2
        np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_targets_are_relative_to_the_joints(hand):
    angles = jnp.zeros(24).at[WRJ0].set(0.1).at[THJ0].set(-0.9)
    action = jnp.zeros(20).at[A_WRJ0].set(0.2).at[A_THJ0].set(-0.4)
    targets = targets_of(action, angles, hand)
    half_range = (0.4887 + 0.6981) / 2
    np.testing.assert_allclose(targets[A_WRJ0], 0.1 + 0.2 * half_range, atol=1e-6)
    half_range = 1.5708 / 2
    np.testing.assert_allclose(targets[A_THJ0], -0.9 - 0.4 * half_range, atol=1e-6)


def test_absolute_targets_do_not_depend_on_the_joints(hand, ranges):
    action = jnp.asarray(np.linspace(-1, 1, 20), jnp.float32)
    for angles in (jnp.zeros(24), jnp.full(24, 0.3)):
        targets = actions.joint_targets(
            action, angles, hand, jnp.asarray(hand.ctrl_range), relative=False
        )
        expected = ranges[:, 0] + (np.linspace(-1, 1, 20) + 1) / 2 * np.ptp(ranges, 1)
        np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_coupled_joints_are_summed(hand):
    angles = jnp.zeros(24).at[FFJ1].set(0.5).at[FFJ0].set(0.3)
    angles = angles.at[LFJ1].set(1.0).at[LFJ0].set(0.9)
    action = jnp.full(20, 0.2)
    targets = targets_of(action, angles, hand)
    np.testing.assert_allclose(targets[A_FFJ1], 0.8 + 0.2 * 1.5708, atol=1e-6)
    np.testing.assert_allclose(targets[14], 1.9 + 0.2 * 1.5708, atol=1e-6)


@pytest.mark.parametrize(("action", "end"), [(-1.0, 0), (1.0, 1)])
def test_targets_are_clipped_to_the_range(hand, ranges, action, end):
    angles = np.where(hand.actuator_joints.any(0), 2.0 * action, 0.0)
    targets = targets_of(jnp.full(20, action), jnp.asarray(angles), hand)
    np.testing.assert_allclose(targets, ranges[:, end], atol=1e-6)


@pytest.mark.parametrize("pitch", [-0.5, 0.0, 0.3])
def test_a_locked_wrist_is_sent_to_zero(hand, pitch):
    angles = jnp.zeros(24).at[WRJ0].set(pitch)
    action = jnp.asarray(np.linspace(-1, 1, 20), jnp.float32)
    targets = targets_of(action, angles, hand)
    locked = actions.lock_wrist(targets, hand.ctrl_range)
    assert locked[A_WRJ0] == 0
    others = np.arange(20) != A_WRJ0
    np.testing.assert_array_equal(locked[others], targets[others])


def test_a_locked_wrist_stays_within_its_drawn_range(hand):
    ranges = jnp.asarray(hand.ctrl_range).at[A_WRJ0].set(jnp.array([0.1, 0.6]))
    locked = actions.lock_wrist(jnp.zeros(20), ranges)
    assert locked[A_WRJ0] == np.float32(0.1)


def test_the_environment_smooths_then_aims(hand, config, started, ranges):
    env = recording_env(hand, config)
    state = started.replace(memory=no_memory())
    state = state.replace(
        physics=state.physics.replace(qpos=jnp.zeros(31).at[27].set(1))
    )
    half_range = (ranges[:, 1] - ranges[:, 0]) / 2
    act = jax.jit(env.act)
    state, _ = act(state, jnp.full(20, 6))  # bin 6 is 0.2
    expected = np.clip(0.2 * half_range, *ranges.T)
    np.testing.assert_allclose(state.physics.qvel[:20], expected, atol=1e-6)
    state, _ = act(state, jnp.full(20, 9))  # bin 9 is 0.8
    expected = np.clip((0.3 * 0.2 + 0.8) / 1.3 * half_range, *ranges.T)
    np.testing.assert_allclose(state.physics.qvel[:20], expected, atol=1e-6)
    # Ten physics steps of 8 ms each.
    np.testing.assert_allclose(state.physics.qvel[20:], [0.008] * 10, rtol=1e-6)


@pytest.mark.parametrize(("locked", "target"), [(True, 0.0), (False, 0.4887)])
def test_the_environment_locks_the_wrist_if_asked_to(
    hand, config, started, locked, target
):
    env = recording_env(hand, config, **{"task.locked_wrist": locked})
    state, _ = env.act(started, jnp.full(20, 10))
    # Up to the wrist's upper end, unless it is locked.
    qpos = started.physics.qpos[WRJ0]
    if not locked:
        target = min(target, float(qpos) + (0.4887 + 0.6981) / 2)
    np.testing.assert_allclose(state.physics.qvel[A_WRJ0], target, atol=1e-6)
    assert abs(state.physics.qvel[A_WRJ1]) > 0.1


def test_the_wrist_stays_straight_when_locked(config, started):
    pitch = {}
    for locked in (True, False):
        env = make_env(replace(config, **{"task.locked_wrist": locked}))
        act, state = jax.jit(env.act), started
        for _ in range(15):
            state, _ = act(state, jnp.full(20, 10))
        pitch[locked] = abs(float(state.physics.qpos[WRJ0]))
    assert pitch[True] < 0.07
    assert pitch[False] > 0.3
