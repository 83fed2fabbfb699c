"""Signal effects, against trajectories worked out by hand and known statistics."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from mjx_dex.config import replace
from mjx_dex.randomization import action, forces, observation, timing
from mjx_dex.task import HandEnv
from mjx_dex.types import (
    ActionErrors,
    EffectMemory,
    LossDraw,
    MarkerShifts,
    PushDraw,
    SensorErrors,
    Sensors,
)

KEY = jax.random.key(0)
KEYS = 20_000
ERRORS = 4.5
"""Standard errors that a mean may be off; the keys are fixed."""
SIGNIFICANCE = 1e-4
FIRST = 100.0
"""What is read at step 0: not 0, which is what an empty memory holds."""
EVEN, ODD = slice(0, 20, 2), slice(1, 20, 2)
NO_LOSS = LossDraw(jnp.zeros(()), jnp.zeros(()))
BASE = np.array([[0.078, 0, 0], [0, 0, 0], [0, 0, 0.078]])
"""The base markers in their own frame, rounded [m]."""
TIP, OBJECT = np.array([0.05, 0.26, 0.03]), np.array([0.06, 0.18, 0.10])


def over_keys(function, keys=KEYS):
    """``function`` of many keys, compiled; NumPy arrays of float64."""
    many = jax.random.split(jax.random.key(1), keys)
    found = jax.jit(jax.vmap(function))(many)
    return jax.tree.map(lambda x: np.asarray(x, float), found)


def assert_moments(values, mean, deviation):
    """Means and standard deviations of Gaussian columns, within their errors."""
    n = len(values)
    assert (np.abs(values.mean(0) - mean) <= ERRORS * deviation / n**0.5).all()
    error = deviation / (2 * n) ** 0.5
    assert (np.abs(values.std(0) - deviation) <= ERRORS * error).all()


def read_at(step) -> Sensors:
    """True sensors that show at which step they were read."""
    value = FIRST + jnp.asarray(step, jnp.float32)
    half = value / 200
    zero = jnp.zeros(())
    return Sensors(
        fingertips=jnp.full((5, 3), value),
        object_position=jnp.full(3, value),
        object_orientation=jnp.stack([jnp.cos(half), jnp.sin(half), zero, zero]),
        joint_angles=jnp.full(24, value),
        joint_velocities=jnp.full(24, value),
        object_velocity=jnp.full(3, value),
        object_angular_velocity=jnp.full(3, value),
    )


def read_in_turn(effect, draws, contexts=None):
    """Sensors that an effect passes on at steps 0, 1, ..., each remembered."""
    memory, read = EffectMemory.empty(), []
    for step, draw in enumerate(draws):
        context = contexts[step] if contexts else {}
        key = jax.random.fold_in(KEY, step)
        sensors, memory = effect(key, read_at(step), draw, memory, **context)
        memory = observation.remember(sensors, memory)
        read.append(sensors)
    return read


def seen_at(read):
    """[steps, 5] the step that each fingertip's reading is from."""
    fingertips = np.stack([sensors.fingertips for sensors in read])
    assert (fingertips == fingertips[:, :, :1]).all()
    return fingertips[:, :, 0] - FIRST


def loss(probability, steps):
    return LossDraw(jnp.float32(probability), jnp.float32(steps))


# --- action delay ---


def test_delayed_actuators_run_one_action_behind_and_the_others_do_not():
    delayed = jnp.arange(20) % 2 == 0
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 20)).astype(np.float32)
    memory, before = EffectMemory.empty(), np.zeros(20)
    for now in actions:
        out, memory = action.action_delay(KEY, jnp.asarray(now), delayed, memory)
        np.testing.assert_array_equal(out[EVEN], before[EVEN])
        np.testing.assert_array_equal(out[ODD], now[ODD])
        before = now


def test_without_delay_actions_pass_at_once():
    memory = EffectMemory.empty()
    for value in (0.3, -1.0, 0.7):
        given = jnp.full(20, value)
        out, memory = action.action_delay(KEY, given, jnp.zeros(20, bool), memory)
        np.testing.assert_array_equal(out, given)


# --- backlash ---


def with_backlash(actions, closing, opening):
    """What all actuators, which are alike, make of a sequence: outputs and slacks."""
    memory, out, slack = EffectMemory.empty(), [], []
    draw = jnp.tile(jnp.array([closing, opening]), (20, 1))
    for value in actions:
        passed, memory = action.backlash(KEY, jnp.full(20, value), draw, memory)
        assert (passed == passed[0]).all()
        out.append(passed[0])
        slack.append(memory.slack[0])
    return np.array(out), np.array(slack)


def test_backlash_takes_up_slack_then_passes_a_share_then_everything():
    # 2.5 steps a unit: 0.4 a step. The third step needs 0.2 of its 0.4: half is left.
    out, slack = with_backlash([1.0] * 5, closing=7.0, opening=2.5)
    np.testing.assert_allclose(out, [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(slack, [0.4, 0.8, 1, 1, 1], atol=1e-6)


def test_small_actions_take_up_less_slack():
    # Half actions of 0.2 a step; 1.0 is reached exactly, so nothing is left over.
    out, slack = with_backlash([0.5] * 6, closing=7.0, opening=2.5)
    np.testing.assert_allclose(out, [0, 0, 0, 0, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(slack, [0.2, 0.4, 0.6, 0.8, 1, 1], atol=1e-6)


def test_reversals_cross_all_slack_at_their_own_pace():
    # Opening 2.5 steps a unit, closing 1.25: an action of -0.8 moves 0.64.
    actions = [1.0] * 3 + [-0.8] * 5 + [0.75] * 8
    out, slack = with_backlash(actions, closing=1.25, opening=2.5)
    opened = [0, 0, 0.5]
    # 1 -> 0.36 -> -0.28 -> -0.92; then 0.08 of 0.64 is lost, an eighth.
    closed = [0, 0, 0, 0.875 * -0.8, -0.8]
    # 0.3 a step: -0.7, -0.4, -0.1, 0.2, 0.5, 0.8; then 0.2 of 0.3, two thirds.
    reopened = [0] * 6 + [0.75 / 3, 0.75]
    np.testing.assert_allclose(out, opened + closed + reopened, atol=1e-5)
    expected = [0.4, 0.8, 1, 0.36, -0.28, -0.92, -1, -1]
    expected += [-0.7, -0.4, -0.1, 0.2, 0.5, 0.8, 1, 1]
    np.testing.assert_allclose(slack, expected, atol=1e-5)


def test_the_increment_in_the_share_is_not_clipped():
    # One step of 4 units through 1 unit of slack: a quarter is lost. The printed
    # formula's clipped increment would lose everything.
    out, slack = with_backlash([1.0, -1.0, -1.0], closing=0.5, opening=0.25)
    # Then 2 units of slack with a step of 2: all of it, and nothing after.
    np.testing.assert_allclose(out, [0.75, 0, -1], atol=1e-6)
    np.testing.assert_allclose(slack, [1, -1, -1], atol=1e-6)


def test_no_action_leaves_slack_as_it_is():
    out, slack = with_backlash([1.0, 0, 0, 1.0, 0, 1.0, 0, 1.0], 2.5, 2.5)
    np.testing.assert_allclose(out, [0, 0, 0, 0, 0, 0.5, 0, 1], atol=1e-6)
    np.testing.assert_allclose(slack, [0.4, 0.4, 0.4, 0.8, 0.8, 1, 1, 1], atol=1e-6)


def test_backlash_is_the_formula_for_each_actuator():
    rng = np.random.default_rng(1)
    draw = rng.uniform(0.1, 6, (20, 2))
    memory, s = EffectMemory.empty(), np.zeros(20)
    lag = np.repeat(rng.uniform(-1, 1, (8, 20)), 5, axis=0)
    shares = []
    for a in np.clip(lag + rng.normal(0, 0.1, lag.shape), -1, 1):
        out, memory = action.backlash(
            KEY, jnp.asarray(a, jnp.float32), jnp.asarray(draw, jnp.float32), memory
        )
        step = a / np.where(a < 0, draw[:, 0], draw[:, 1])
        alpha = 1 - np.clip(np.abs(np.sign(a) - s) / np.abs(step), 0, 1)
        s = np.clip(s + step, -1, 1)
        np.testing.assert_allclose(out, alpha * a, atol=1e-4)
        np.testing.assert_allclose(memory.slack, s, atol=1e-5)
        shares.append(alpha)
    shares = np.array(shares)
    between = (shares > 0.01) & (shares < 0.99)
    assert (shares == 0).any()
    assert (shares == 1).any()
    assert between.sum() > 20


def test_no_backlash_is_no_change_bit_for_bit():
    rng, memory = np.random.default_rng(2), EffectMemory.empty()
    apply = jax.jit(action.backlash)
    for _ in range(20):
        given = rng.uniform(-1, 1, 20).astype(np.float32)
        given[:4] = 0, 1, -1, 1e-9
        out, memory = apply(KEY, jnp.asarray(given), jnp.zeros((20, 2)), memory)
        np.testing.assert_array_equal(out, given)


# --- action noise ---


def noisy_actions(given, correlated=0.0, additive=0.0, multiplicative=0.0):
    """[KEYS, 20] of one action; the episode's noise is the same for all."""
    draw = ActionErrors(
        jnp.broadcast_to(jnp.asarray(correlated, jnp.float32), 20),
        jnp.float32(additive),
        jnp.float32(multiplicative),
    )
    given, memory = jnp.asarray(given, jnp.float32), EffectMemory.empty()
    return over_keys(lambda key: action.action_noise(key, given, draw, memory)[0])


@pytest.fixture(scope="module")
def given():
    return np.linspace(-1, 1, 20).astype(np.float32)


def test_no_action_noise_is_no_change_bit_for_bit(given):
    found = noisy_actions(given)
    np.testing.assert_array_equal(found, np.tile(given, (KEYS, 1)))


def test_correlated_action_noise_is_the_same_in_every_step(given):
    offset = np.linspace(0.03, -0.03, 20)
    found = noisy_actions(given, correlated=offset)
    assert (found == found[0]).all()
    np.testing.assert_allclose(found[0], given + offset, atol=1e-6)


def test_additive_action_noise_does_not_depend_on_the_action(given):
    found = noisy_actions(given, additive=0.1)
    assert_moments(found, given, 0.1)
    correlation = np.corrcoef(found.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / KEYS**0.5


def test_multiplicative_action_noise_scales_with_the_action(given):
    found = noisy_actions(given, multiplicative=0.03)
    assert_moments(found, given, 0.03 * np.abs(given))
    # Each action has a factor of its own.
    correlation = np.corrcoef(found.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / KEYS**0.5


def test_kinds_of_action_noise_add_up(given):
    found = noisy_actions(given, correlated=0.2, additive=0.1, multiplicative=0.3)
    # Drawn independently: variances add.
    assert_moments(found, given + 0.2, np.hypot(0.1, 0.3 * given))


# --- marker dropout ---


@pytest.mark.parametrize(("steps", "frozen"), [(2.5, 3), (3.0, 3), (0.4, 1)])
def test_a_lost_marker_is_frozen_for_the_readings_that_its_loss_lasts(steps, frozen):
    draws = [loss(0, steps)] * 2 + [loss(1, steps)] + [loss(0, steps)] * 6
    seen = seen_at(read_in_turn(observation.marker_dropout, draws))
    expected = np.arange(9)
    expected[2 : 2 + frozen] = 1
    np.testing.assert_array_equal(seen, np.tile(expected[:, None], 5))


def test_markers_that_are_always_lost_repeat_the_first_reading():
    seen = seen_at(read_in_turn(observation.marker_dropout, [loss(1, 2.5)] * 9))
    np.testing.assert_array_equal(seen, 0)


def test_markers_that_are_never_lost_are_live():
    seen = seen_at(read_in_turn(observation.marker_dropout, [loss(0, 12.5)] * 5))
    np.testing.assert_array_equal(seen, np.tile(np.arange(5)[:, None], 5))


def test_each_marker_has_its_own_countdown():
    memory = EffectMemory.empty().replace(
        dropout_left=jnp.array([0.0, 1.0, 1.5, 2.5, 9.0]),
        fingertip_reading=jnp.full((5, 3), FIRST - 1),
        readings=jnp.int32(4),
    )
    seen = []
    for step in range(4):
        sensors, memory = observation.marker_dropout(
            KEY, read_at(step), NO_LOSS, memory
        )
        seen.append(sensors.fingertips[:, 0] - FIRST)
        left = np.maximum(np.array([0, 1, 1.5, 2.5, 9]) - 1 - step, 0)
        np.testing.assert_array_equal(memory.dropout_left, left)
    expected = [
        [0, 0, -1, -1, -1],
        [1, 1, 1, -1, -1],
        [2, 2, 2, 2, -1],
        [3, 3, 3, 3, -1],
    ]
    np.testing.assert_array_equal(seen, expected)


def frozen_share(effect, draw, look, chains, steps=600, skipped=100):
    """[chains, steps, ...] bool: readings that were not live, after a while."""

    def step(memory, turn):
        number, key = turn
        sensors, memory = effect(key, read_at(number), draw, memory)
        memory = observation.remember(sensors, memory)
        return memory, look(sensors) != FIRST + number

    def chain(key):
        turns = jnp.arange(steps, dtype=jnp.float32), jax.random.split(key, steps)
        _, frozen = jax.lax.scan(step, EffectMemory.empty(), turns)
        return frozen[skipped:]

    keys = jax.random.split(jax.random.key(2), chains)
    return np.asarray(jax.jit(jax.vmap(chain))(keys))


def renewal(probability, mean, variance, readings):
    """Share of frozen readings, and its error, by the renewal theorem.

    Losses take ``mean`` readings on average; live ones between two of them, of which
    there may be none, are geometric.
    """
    live, live_variance = (
        (1 - probability) / probability,
        (1 - probability) / probability**2,
    )
    cycle = live + mean
    error = (live**2 * variance + mean**2 * live_variance) / cycle**3 / readings
    return mean / cycle, error**0.5


def test_markers_are_frozen_as_often_as_renewal_theory_says():
    # 12.5 steps freeze 13 readings; of 12 or 12.5 the share would be 12 errors off.
    probability = 0.0177
    frozen = frozen_share(
        observation.marker_dropout,
        loss(probability, 12.5),
        lambda sensors: sensors.fingertips[:, 0],
        chains=3000,
    )
    share, error = renewal(probability, 13, 0, frozen.size)
    np.testing.assert_allclose(frozen.mean(), share, atol=ERRORS * error)
    # Independent markers: freezing together is as rare as chance has it.
    correlation = np.corrcoef(frozen.mean(1).T) - np.eye(5)
    assert np.abs(correlation).max() < 5 / 3000**0.5


# --- marker occlusion ---


def test_a_hidden_marker_repeats_what_was_read_last():
    away, near = -0.004, 0.0003
    hidden = np.array(
        [[0, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 1, 0, 1]]
    )
    depths = [{"depths": jnp.where(row == 1, near, away)} for row in hidden]
    draws = [jnp.float32(0.0001)] * 4
    seen = seen_at(read_in_turn(observation.marker_occlusion, draws, depths))
    expected = [[0, 0, 0, 0, 0], [1, 0, 1, 1, 0], [2, 0, 1, 2, 2], [3, 3, 1, 3, 2]]
    np.testing.assert_array_equal(seen, expected)


def test_a_marker_is_hidden_from_the_drawn_depth_on():
    depths = [{"depths": jnp.array([-0.01, 0.0, 0.0009, 0.0011, 0.01])}] * 2
    draws = [jnp.float32(0.001)] * 2
    seen = seen_at(read_in_turn(observation.marker_occlusion, draws, depths))
    np.testing.assert_array_equal(seen[1], [1, 1, 1, 0, 0])


def test_hiding_and_losing_markers_changes_nothing_else():
    depths = [{"depths": jnp.full(5, 0.01)}] * 2
    hidden = read_in_turn(observation.marker_occlusion, [jnp.float32(0)] * 2, depths)
    lost = read_in_turn(observation.marker_dropout, [loss(1, 9)] * 2)
    for sensors in (hidden[1], lost[1]):
        np.testing.assert_array_equal(sensors.fingertips, FIRST)
        restored = sensors.replace(fingertips=read_at(1).fingertips)
        jax.tree.map(np.testing.assert_array_equal, restored, read_at(1))


# --- object tracking loss ---


def test_a_lost_object_keeps_its_whole_pose_and_nothing_else():
    # Times left: 1.3, 0.3, and over.
    memory = EffectMemory.empty().replace(
        tracking_loss_left=jnp.float32(2.3),
        object_reading=jnp.array([7.0, 8.0, 9.0, 0.6, 0.8, 0.0, 0.0]),
        readings=jnp.int32(1),
    )
    for step in range(4):
        true = read_at(step)
        sensors, memory = observation.object_tracking_loss(KEY, true, NO_LOSS, memory)
        expected = true
        if step < 2:
            expected = true.replace(
                object_position=jnp.array([7.0, 8.0, 9.0]),
                object_orientation=jnp.array([0.6, 0.8, 0.0, 0.0]),
            )
        jax.tree.map(np.testing.assert_array_equal, sensors, expected)


def test_an_object_that_is_always_lost_stays_as_it_was_read_first():
    draws = [loss(1, 3)] * 6
    for sensors in read_in_turn(observation.object_tracking_loss, draws):
        np.testing.assert_array_equal(sensors.object_position, FIRST)
        first = read_at(0).object_orientation
        np.testing.assert_array_equal(sensors.object_orientation, first)


def test_an_object_that_is_never_lost_is_live():
    draws = [loss(0, 3)] * 4
    for step, sensors in enumerate(
        read_in_turn(observation.object_tracking_loss, draws)
    ):
        jax.tree.map(np.testing.assert_array_equal, sensors, read_at(step))


def test_the_object_is_lost_as_often_as_renewal_theory_says():
    probability, steps = 0.05, 4.0
    frozen = frozen_share(
        observation.object_tracking_loss,
        loss(probability, steps),
        lambda sensors: sensors.object_position[0],
        chains=4000,
    )
    # An exponential time, rounded up, is geometric.
    ends = 1 - np.exp(-1 / steps)
    share, error = renewal(probability, 1 / ends, (1 - ends) / ends**2, frozen.size)
    np.testing.assert_allclose(frozen.mean(), share, atol=ERRORS * error)


def test_the_length_of_a_tracking_loss_is_exponential():
    left = over_keys(
        lambda key: (
            observation.object_tracking_loss(
                key, read_at(0), loss(1, 12.5), EffectMemory.empty()
            )[1].tracking_loss_left
        )
    )
    assert stats.kstest(left, stats.expon(0, 12.5).cdf).pvalue > SIGNIFICANCE


# --- timing and forces ---


def test_jitter_lengthens_steps_by_an_exponential_time():
    timestep, mean, memory = jnp.float32(0.008), jnp.float32(4e-4), EffectMemory.empty()
    found = over_keys(
        lambda key: timing.timestep_jitter(key, timestep, mean, memory)[0]
    )
    nominal = float(np.float32(0.008))
    assert found.min() >= nominal
    # An exponential's deviation is its mean.
    extra = found - nominal
    assert abs(extra.mean() - 4e-4) < ERRORS * 4e-4 / KEYS**0.5
    assert stats.kstest(extra, stats.expon(0, 4e-4).cdf).pvalue > SIGNIFICANCE


def test_no_jitter_is_no_change_bit_for_bit():
    found, _ = timing.timestep_jitter(
        KEY, jnp.float32(0.008), jnp.float32(0), EffectMemory.empty()
    )
    assert found == np.float32(0.008)


def push_draw(probability, acceleration=1.0, decay=0.99):
    return PushDraw(*map(jnp.float32, (probability, acceleration, decay)))


def test_a_push_decays_by_a_hundredth_in_every_step():
    push, memory = jnp.array([1.0, -2.0, 0.5]), EffectMemory.empty()
    expected = np.array([1, -2, 0.5], np.float32)
    for _ in range(10):
        push, memory = forces.random_push(
            KEY, push, push_draw(0), memory, mass=jnp.float32(0.1)
        )
        expected = np.float32(0.99) * expected
        np.testing.assert_array_equal(push, expected)
        np.testing.assert_array_equal(memory.push, push)
    # 0.99^10.
    np.testing.assert_allclose(push, 0.9043821 * np.array([1, -2, 0.5]), rtol=1e-5)


def test_nothing_pushes_an_object_at_probability_0():
    push, memory = jnp.zeros(3), EffectMemory.empty()
    for seed in range(5):
        push, memory = forces.random_push(
            jax.random.key(seed), push, push_draw(0), memory, mass=jnp.float32(0.1)
        )
        np.testing.assert_array_equal(push, 0)


def test_a_new_push_is_an_acceleration_times_the_mass_and_forgets_the_old_one():
    before, mass = jnp.array([50.0, -50.0, 5.0]), jnp.float32(0.078)
    found = over_keys(
        lambda key: forces.random_push(
            key, before, push_draw(1, acceleration=2.0), EffectMemory.empty(), mass
        )[0]
    )
    assert_moments(found, 0.0, 2 * 0.078)
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 5 / KEYS**0.5


def test_pushes_come_as_often_as_drawn_and_along_all_axes_at_once():
    before = jnp.array([1.0, 2.0, 3.0])
    found = over_keys(
        lambda key: forces.random_push(
            key, before, push_draw(0.1), EffectMemory.empty(), jnp.float32(0.078)
        )[0]
    )
    old = found == (np.float32(0.99) * np.asarray(before)).astype(float)
    assert (old.all(1) | ~old.any(1)).all()
    share, error = 1 - old[:, 0].mean(), (0.1 * 0.9 / KEYS) ** 0.5
    np.testing.assert_allclose(share, 0.1, atol=ERRORS * error)


# --- noise of what is sensed ---


@pytest.fixture(scope="module")
def true() -> Sensors:
    rng = np.random.default_rng(3)

    def some(*shape):
        return jnp.asarray(rng.uniform(-0.3, 0.3, shape), jnp.float32)

    turn = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_quat(scalar_first=True)
    return Sensors(
        fingertips=some(5, 3),
        object_position=some(3),
        object_orientation=jnp.asarray(turn, jnp.float32),
        joint_angles=some(24),
        joint_velocities=some(24),
        object_velocity=some(3),
        object_angular_velocity=some(3),
    )


def turns_between(true, noisy):
    """[..., 3] turn vectors from true to noisy orientation, in the world."""
    before = Rotation.from_quat(true.object_orientation, scalar_first=True)
    after = Rotation.from_quat(noisy.object_orientation, scalar_first=True)
    return (after * before.inv()).as_rotvec()


def test_correlated_noise_adds_the_same_errors_in_every_step(true):
    tips = np.linspace(-0.002, 0.002, 15).reshape(5, 3)
    position, turn = np.array([0.005, -0.004, 0.003]), np.array([0.1, 0.05, -0.08])
    draw = SensorErrors(*(jnp.asarray(x, jnp.float32) for x in (tips, position, turn)))
    for seed in range(3):
        noisy, _ = observation.correlated_noise(
            jax.random.key(seed), true, draw, EffectMemory.empty()
        )
        np.testing.assert_allclose(noisy.fingertips, true.fingertips + tips, atol=1e-6)
        expected = true.object_position + position
        np.testing.assert_allclose(noisy.object_position, expected, atol=1e-6)
        np.testing.assert_allclose(turns_between(true, noisy), turn, atol=1e-6)
        assert_only_measured_poses_differ(noisy, true)


def assert_only_measured_poses_differ(noisy, true):
    for name in (
        "joint_angles",
        "joint_velocities",
        "object_velocity",
        "object_angular_velocity",
    ):
        np.testing.assert_array_equal(getattr(noisy, name), getattr(true, name))


def test_no_noise_is_no_change(true):
    none = SensorErrors(jnp.zeros((5, 3)), jnp.zeros(3), jnp.zeros(3))
    scalars = SensorErrors(*[jnp.zeros(())] * 3)
    memory = EffectMemory.empty()
    same, _ = observation.correlated_noise(KEY, true, none, memory)
    jax.tree.map(np.testing.assert_array_equal, same, true)
    same, _ = observation.uncorrelated_noise(KEY, true, scalars, memory)
    jax.tree.map(np.testing.assert_array_equal, same, true)


@pytest.fixture(scope="module")
def measured(true):
    """[KEYS] measurements of ``true`` with known deviations."""
    draw = SensorErrors(*map(jnp.float32, (0.002, 0.001, 0.1)))
    return over_keys(
        lambda key: observation.uncorrelated_noise(
            key, true, draw, EffectMemory.empty()
        )[0]
    )


def test_uncorrelated_noise_of_positions_has_the_deviations_asked_for(true, measured):
    tips = measured.fingertips.reshape(KEYS, 15)
    assert_moments(tips, np.asarray(true.fingertips).reshape(15), 0.002)
    assert_moments(measured.object_position, np.asarray(true.object_position), 0.001)
    errors = np.hstack([tips, measured.object_position])
    correlation = np.corrcoef(errors.T) - np.eye(18)
    assert np.abs(correlation).max() < 5 / KEYS**0.5


def test_the_turn_to_a_noisy_orientation_is_a_gaussian_angle(true, measured):
    angle = np.linalg.norm(turns_between(true, measured), axis=1)
    assert stats.kstest(angle, stats.halfnorm(0, 0.1).cdf).pvalue > SIGNIFICANCE
    # Were it Gaussian along each axis, the mean square would be three times that.
    error = 2**0.5 * 0.01 / KEYS**0.5
    np.testing.assert_allclose((angle**2).mean(), 0.01, atol=ERRORS * error)
    lengths = np.linalg.norm(measured.object_orientation, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_the_axis_of_that_turn_points_anywhere(true, measured):
    turns = turns_between(true, measured)
    angle = np.linalg.norm(turns, axis=1)
    axis = turns[angle > 1e-3] / angle[angle > 1e-3, None]
    # Archimedes: every coordinate of a point on the sphere is uniform.
    directions = np.vstack([np.eye(3), np.ones(3) / 3**0.5])
    for coordinate in (axis @ directions.T).T:
        p = stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue
        assert p > SIGNIFICANCE


# --- marker placement ---


def misplaced(fingertips=0.0, base=0.0, rotations=None, markers=BASE):
    """What is measured of TIP, five times, and OBJECT with shifted markers."""
    rotations = np.tile(np.eye(3), (5, 1, 1)) if rotations is None else rotations
    sensors = read_at(0).replace(
        fingertips=jnp.asarray(np.tile(TIP, (5, 1)), jnp.float32),
        object_position=jnp.asarray(OBJECT, jnp.float32),
    )
    draw = MarkerShifts(
        jnp.broadcast_to(jnp.asarray(fingertips, jnp.float32), (5, 3)),
        jnp.broadcast_to(jnp.asarray(base, jnp.float32), (3, 3)),
    )
    measured, _ = observation.marker_placement(
        KEY,
        sensors,
        draw,
        EffectMemory.empty(),
        fingertip_rotations=jnp.asarray(rotations, jnp.float32),
        base_markers=jnp.asarray(markers, jnp.float32),
    )
    # Orientations are not measured in the base's frame.
    orientation = sensors.object_orientation
    np.testing.assert_array_equal(measured.object_orientation, orientation)
    assert_only_measured_poses_differ(measured, sensors)
    return np.asarray(measured.fingertips), np.asarray(measured.object_position)


def test_markers_in_their_places_measure_the_truth(hand):
    tips, position = misplaced(markers=hand.base_markers)
    np.testing.assert_allclose(tips, np.tile(TIP, (5, 1)), atol=1e-6)
    np.testing.assert_allclose(position, OBJECT, atol=1e-6)


def test_a_fingertips_shift_turns_with_its_body():
    shifts = np.zeros((5, 3))
    shifts[:4] = 0.001, 0.002, 0.003
    rotations = np.tile(np.eye(3), (5, 1, 1))
    rotations[1] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # a quarter turn about x
    rotations[2] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # and about z
    rotations[3] = np.diag([-1, -1, 1])  # half a turn about z
    tips, position = misplaced(fingertips=shifts, rotations=rotations)
    expected = [
        [0.001, 0.002, 0.003],
        [0.001, -0.003, 0.002],
        [-0.002, 0.001, 0.003],
        [-0.001, -0.002, 0.003],
        [0, 0, 0],
    ]
    np.testing.assert_allclose(tips - TIP, expected, atol=1e-6)
    np.testing.assert_allclose(position, OBJECT, atol=1e-6)


def test_base_markers_shifted_alike_move_all_positions_back():
    tips, position = misplaced(base=[0.001, -0.002, 0.004])
    np.testing.assert_allclose(
        tips - TIP, np.tile([-0.001, 0.002, -0.004], (5, 1)), atol=1e-6
    )
    np.testing.assert_allclose(position - OBJECT, [-0.001, 0.002, -0.004], atol=1e-6)


@pytest.mark.parametrize(("along", "across"), [(0.0, 0.004), (0.002, -0.003)])
def test_a_shift_of_the_marker_on_x_turns_the_frame_about_z(along, across):
    shifts = np.zeros((3, 3))
    shifts[0] = along, across, 0
    angle = np.arctan2(across, 0.078 + along)
    tips, position = misplaced(base=shifts)
    # The frame turns one way, what is measured in it the other.
    turn = Rotation.from_rotvec([0, 0, -angle])
    np.testing.assert_allclose(position, turn.apply(OBJECT), atol=1e-6)
    np.testing.assert_allclose(tips, np.tile(turn.apply(TIP), (5, 1)), atol=1e-6)


def test_a_shift_of_the_marker_on_z_turns_the_frame_about_x():
    shifts = np.zeros((3, 3))
    shifts[2] = 0, 0.004, 0
    # From z towards y: about -x.
    turn = Rotation.from_rotvec([np.arctan2(0.004, 0.078), 0, 0])
    _, position = misplaced(base=shifts)
    np.testing.assert_allclose(position, turn.apply(OBJECT), atol=1e-6)


def test_a_shift_of_the_marker_between_them_moves_and_skews_the_frame():
    shifts = np.zeros((3, 3))
    shifts[1] = 0, 0.004, 0
    length = np.hypot(0.078, 0.004)
    c, s = 0.078 / length, 0.004 / length
    # x and z both lean towards -y, no longer at a right angle; y is their product.
    axes = np.array([[c, -s, 0], [c * s, c * c, c * s], [0, -s, c]])
    _, position = misplaced(base=shifts)
    expected = axes @ (OBJECT - [0, 0.004, 0])
    np.testing.assert_allclose(position, expected, atol=1e-6)


def test_the_environment_measures_what_mujocos_moved_markers_would(hand, config):
    """All shifts at once, with sites of a MuJoCo model moved by as much."""
    rng = np.random.default_rng(4)
    tips, base = rng.normal(0, 0.003, (5, 3)), rng.normal(0, 0.003, (3, 3))
    changes = {"randomization.on": ("marker_placement",)}
    env = HandEnv(hand, None, replace(config, **changes))
    state = env.begin(jax.random.key(0), env.adaptive.init())
    low, high = hand.model.jnt_range[:24].T
    qpos = state.physics.qpos.at[:24].set(rng.uniform(low, high))
    shifts = MarkerShifts(
        jnp.asarray(tips, jnp.float32), jnp.asarray(base, jnp.float32)
    )
    state = state.replace(
        physics=state.physics.replace(qpos=qpos),
        draw=state.draw.replace(marker_placement=shifts),
    )
    read = jax.jit(env.observe)(state)[0].memory

    data = mujoco.MjData(hand.model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(hand.model, data)
    markers = np.array([data.site(f"ref{i}").xpos for i in range(3)])
    x, z = markers[0] - markers[1], markers[2] - markers[1]
    frame = np.array([x, np.cross(z, x) / 0.078, z]) / 0.078
    markers = markers + base @ frame
    bodies = hand.model.site_bodyid[hand.fingertip_sites]
    turned = data.xmat[bodies].reshape(5, 3, 3)
    places = data.site_xpos[hand.fingertip_sites] + np.einsum(
        "fij,fj->fi", turned, tips
    )
    x, z = markers[0] - markers[1], markers[2] - markers[1]
    x, z = x / np.linalg.norm(x), z / np.linalg.norm(z)
    axes = np.array([x, np.cross(z, x), z])
    expected = (places - markers[1]) @ axes.T
    np.testing.assert_allclose(read.fingertip_reading, expected, atol=2e-6)
    expected = axes @ (data.qpos[24:27] - markers[1])
    np.testing.assert_allclose(read.object_reading[:3], expected, atol=2e-6)
