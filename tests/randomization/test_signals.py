"""Effects that remember, by trajectories worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.randomization import action, forces, observation, timing
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
MANY = 20_000


def keys(n=MANY):
    return jax.random.split(KEY, n)


def twenty(*values):
    """Actions: the values given, then zeros."""
    return jnp.zeros(20).at[: len(values)].set(jnp.array(values, jnp.float32))


def sensors_at(fingertips=0.0, position=0.0, orientation=(1.0, 0, 0, 0)):
    return Sensors(
        fingertips=jnp.full((5, 3), fingertips),
        object_position=jnp.full(3, position),
        object_orientation=jnp.array(orientation),
        joint_angles=jnp.zeros(24),
        joint_velocities=jnp.zeros(24),
        object_velocity=jnp.zeros(3),
        object_angular_velocity=jnp.zeros(3),
    )


# --- delay ---


def test_delayed_actuators_take_the_action_before():
    late = jnp.zeros(20, bool).at[1].set(True)
    memory, sent = EffectMemory.empty(), []
    for value in (0.5, -0.2, 0.8, 0.1):
        out, memory = action.action_delay(KEY, twenty(value, value), late, memory)
        sent.append(out[:2])
    expected = [[0.5, 0.0], [-0.2, 0.5], [0.8, -0.2], [0.1, 0.8]]
    np.testing.assert_allclose(sent, expected, atol=1e-7)


# --- backlash ---


def run_backlash(actions, closing, opening):
    """What one actuator is sent, and its slack, step by step."""
    draw = jnp.zeros((20, 2)).at[0].set(jnp.array([closing, opening]))
    memory, sent, slack = EffectMemory.empty(), [], []
    for value in actions:
        out, memory = action.backlash(KEY, twenty(value), draw, memory)
        sent.append(out[0])
        slack.append(memory.slack[0])
    return np.array(sent), np.array(slack)


def test_nothing_passes_until_slack_is_taken_up():
    # A full action takes up one unit in 2 steps, an action of 0.8 thus 0.4 a step:
    # 0 -> 0.4 -> 0.8, then 0.2 is left, which is half of the step.
    sent, slack = run_backlash([0.8] * 4, closing=2.0, opening=2.0)
    np.testing.assert_allclose(slack, [0.4, 0.8, 1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(sent, [0.0, 0.0, 0.4, 0.8], atol=1e-6)


def test_turning_back_crosses_the_whole_slack_at_the_other_rate():
    # Opening takes up a unit in one step. Closing by a half takes 5 steps for a unit:
    # 0.1 a step, 20 steps from +1 to -1.
    sent, slack = run_backlash([1.0, 1.0] + [-0.5] * 21, closing=5.0, opening=1.0)
    np.testing.assert_allclose(sent[:2], [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(slack[2:5], [0.9, 0.8, 0.7], atol=1e-6)
    np.testing.assert_allclose(sent[2:21], 0.0, atol=1e-5)
    np.testing.assert_allclose(slack[21], -1.0, atol=1e-5)
    np.testing.assert_allclose(sent[22], -0.5, atol=1e-4)


def test_an_action_of_zero_leaves_slack_where_it_is():
    sent, slack = run_backlash([0.5, 0.0, 0.0, 0.5], closing=1.0, opening=1.0)
    np.testing.assert_allclose(slack, [0.5, 0.5, 0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(sent, [0.0, 0.0, 0.0, 0.0], atol=1e-6)


def test_a_part_of_the_step_passes_not_all_or_nothing():
    # The paper's printed denominator would pass 0 here, and 1 in the next step.
    sent, slack = run_backlash([1.0], closing=1.0, opening=0.25)
    np.testing.assert_allclose(sent, [0.75], atol=1e-6)
    np.testing.assert_allclose(slack, [1.0], atol=1e-6)


def test_without_backlash_actions_pass_bit_for_bit():
    memory = EffectMemory.empty()
    for seed in range(5):
        value = jax.random.uniform(jax.random.key(seed), (20,), minval=-1)
        out, memory = action.backlash(KEY, value, jnp.zeros((20, 2)), memory)
        np.testing.assert_array_equal(out, value)


# --- noise ---


def test_action_noise_has_the_deviations_asked_for():
    draw = ActionErrors(twenty(0.03, -0.02), jnp.float32(0.1), jnp.float32(0.03))
    out = jax.vmap(
        lambda key: action.action_noise(
            key, twenty(0.5, -1.0), draw, EffectMemory.empty()
        )[0]
    )(keys())
    expected_mean = [0.53, -1.02, 0.0]
    expected_deviation = [np.hypot(0.1, 0.5 * 0.03), np.hypot(0.1, 0.03), 0.1]
    error = 0.11 / MANY**0.5
    np.testing.assert_allclose(out.mean(0)[:3], expected_mean, atol=4.5 * error)
    np.testing.assert_allclose(out.std(0)[:3], expected_deviation, atol=4.5 * error)


def test_action_noise_is_drawn_anew_every_step_but_for_its_offset():
    draw = ActionErrors(jnp.full(20, 0.03), jnp.float32(0.0), jnp.float32(0.0))
    first, second = (
        action.action_noise(key, twenty(0.5), draw, EffectMemory.empty())[0]
        for key in keys(2)
    )
    np.testing.assert_array_equal(first, second)
    fresh = draw.replace(additive=jnp.float32(0.1))
    first, second = (
        action.action_noise(key, twenty(0.5), fresh, EffectMemory.empty())[0]
        for key in keys(2)
    )
    assert (first != second).all()


def test_uncorrelated_noise_has_the_deviations_asked_for():
    draw = SensorErrors(jnp.float32(0.002), jnp.float32(0.001), jnp.float32(0.1))
    true = sensors_at(0.3, 0.1, (0.5, 0.5, -0.5, 0.5))
    noisy = jax.vmap(
        lambda key: observation.uncorrelated_noise(
            key, true, draw, EffectMemory.empty()
        )[0]
    )(keys())
    relative = 4.5 / (2 * MANY) ** 0.5
    np.testing.assert_allclose(noisy.fingertips.std(0), 0.002, rtol=relative)
    np.testing.assert_allclose(noisy.object_position.std(0), 0.001, rtol=relative)
    # The turn between true and noisy is a Gaussian's size.
    w = np.abs(np.asarray(noisy.object_orientation) @ np.array([0.5, 0.5, -0.5, 0.5]))
    turn = 2 * np.arccos(np.clip(w, 0, 1))
    np.testing.assert_allclose(np.sqrt((turn**2).mean()), 0.1, rtol=relative)
    np.testing.assert_allclose(turn.mean(), 0.1 * np.sqrt(2 / np.pi), rtol=0.03)


def test_correlated_noise_is_added_as_drawn():
    draw = SensorErrors(
        fingertips=jnp.full((5, 3), 0.001),
        object_position=jnp.array([0.005, 0.0, -0.005]),
        object_orientation=jnp.array([0.0, 0.0, np.pi / 2]),
    )
    noisy, _ = observation.correlated_noise(
        KEY, sensors_at(0.1, 0.2), draw, EffectMemory.empty()
    )
    np.testing.assert_allclose(noisy.fingertips, 0.101, atol=1e-6)
    np.testing.assert_allclose(noisy.object_position, [0.205, 0.2, 0.195], atol=1e-6)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(noisy.object_orientation, [half, 0, 0, half], atol=1e-6)


# --- markers ---

BASE = jnp.array([[0.078, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.078]])
UPRIGHT = jnp.stack([jnp.eye(3)] * 5)


def place(fingertips=0.0, base=0.0, rotations=UPRIGHT, true=None):
    true = sensors_at(0.2, 0.1) if true is None else true
    shifts = MarkerShifts(
        jnp.broadcast_to(jnp.asarray(fingertips, jnp.float32), (5, 3)),
        jnp.broadcast_to(jnp.asarray(base, jnp.float32), (3, 3)),
    )
    placed, _ = observation.marker_placement(
        KEY, true, shifts, EffectMemory.empty(), rotations, BASE
    )
    return placed


def test_a_fingertips_marker_turns_with_its_finger():
    quarter = jnp.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # about z
    rotations = UPRIGHT.at[3].set(quarter)
    placed = place(fingertips=[0.003, 0.0, 0.0], rotations=rotations)
    np.testing.assert_allclose(placed.fingertips[0], [0.203, 0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(placed.fingertips[3], [0.2, 0.203, 0.2], atol=1e-6)
    np.testing.assert_allclose(placed.object_position, 0.1, atol=1e-6)


def test_base_markers_that_are_all_off_alike_move_the_frame():
    placed = place(base=[0.001, -0.002, 0.0])
    np.testing.assert_allclose(placed.fingertips[1], [0.199, 0.202, 0.2], atol=1e-6)
    np.testing.assert_allclose(placed.object_position, [0.099, 0.102, 0.1], atol=1e-6)


def test_one_base_marker_that_is_off_tilts_the_frame():
    # ref0, 78 mm along x, sits 1 mm towards y: x turns by atan(1 / 78).
    shift = np.zeros((3, 3))
    shift[0, 1] = 0.001
    tilt = np.arctan(1 / 78)
    placed = place(base=shift, true=sensors_at(0.0, 0.1))
    expected = [
        0.1 * (np.cos(tilt) + np.sin(tilt)),
        0.1 * (np.cos(tilt) - np.sin(tilt)),
        0.1,
    ]
    np.testing.assert_allclose(placed.object_position, expected, atol=1e-6)


# --- lost readings ---


def read(effect, draw, values, **context):
    """Fingertips [steps, 5] as read, of which the true ones are ``values``."""
    memory, seen = EffectMemory.empty(), []
    for k, value in enumerate(values):
        now = {name: rows[k] for name, rows in context.items()}
        sensors, memory = effect(
            jax.random.fold_in(KEY, k), sensors_at(value), draw, memory, **now
        )
        memory = observation.remember(sensors, memory)
        seen.append(sensors.fingertips[:, 0])
    return np.array(seen)


def test_an_occluded_marker_repeats_its_last_reading():
    depths = np.full((5, 5), -0.01)
    depths[1:3, 2] = 0.002  # hidden in the second and third step
    depths[3, 2] = 0.00005  # less deep than it takes
    seen = read(
        observation.marker_occlusion,
        jnp.float32(0.0001),
        [1.0, 2.0, 3.0, 4.0, 5.0],
        depths=jnp.asarray(depths),
    )
    np.testing.assert_array_equal(seen[:, 2], [1, 1, 1, 4, 5])
    np.testing.assert_array_equal(seen[:, 0], [1, 2, 3, 4, 5])


def test_a_first_reading_is_never_frozen():
    seen = read(
        observation.marker_occlusion,
        jnp.float32(0.0001),
        [7.0, 8.0],
        depths=jnp.full((2, 5), 0.01),
    )
    np.testing.assert_array_equal(seen, [[7.0] * 5, [7.0] * 5])


def test_a_lost_marker_is_frozen_for_its_time_and_then_found():
    # Always lost at once again: 2.5 steps take three readings.
    memory = EffectMemory.empty()
    left, draw = [], LossDraw(jnp.float32(1.0), jnp.float32(2.5))
    for k in range(7):
        draw_now = draw if k == 1 else draw.replace(probability=jnp.float32(0.0))
        sensors, memory = observation.marker_dropout(
            KEY, sensors_at(float(k)), draw_now, memory
        )
        memory = observation.remember(sensors, memory)
        left.append((float(sensors.fingertips[0, 0]), float(memory.dropout_left[0])))
    assert left == [(0, 0), (0, 2.5), (0, 1.5), (0, 0.5), (4, 0), (5, 0), (6, 0)]


def test_markers_are_lost_one_by_one_and_as_often_as_asked():
    draw = LossDraw(jnp.float32(0.0177), jnp.float32(12.5))

    def step(memory, key):
        sensors, memory = observation.marker_dropout(key, sensors_at(), draw, memory)
        return observation.remember(sensors, memory), memory.dropout_left > 0

    _, frozen = jax.lax.scan(step, EffectMemory.empty(), keys())
    frozen = np.asarray(frozen, float)
    # 13 frozen readings, then 1 / 0.0177 - 1 live ones on average.
    expected = 13 / (13 + 1 / 0.0177 - 1)
    # Some 1450 losses for all markers together: an error of 3 %.
    np.testing.assert_allclose(frozen.mean(), expected, rtol=0.12)
    assert np.abs(np.corrcoef(frozen.T) - np.eye(5)).max() < 0.15


def test_the_object_keeps_its_whole_pose_while_its_tracking_is_lost():
    draw = LossDraw(jnp.float32(1.0), jnp.float32(1e6))
    memory = EffectMemory.empty()
    never = draw.replace(probability=jnp.float32(0.0))
    first = sensors_at(0.1, 0.1)
    sensors, memory = observation.object_tracking_loss(KEY, first, never, memory)
    memory = observation.remember(sensors, memory)
    later = sensors_at(0.2, 0.2, (0.0, 1.0, 0.0, 0.0))
    sensors, memory = observation.object_tracking_loss(KEY, later, draw, memory)
    np.testing.assert_array_equal(sensors.object_position, first.object_position)
    np.testing.assert_array_equal(sensors.object_orientation, [1, 0, 0, 0])
    np.testing.assert_array_equal(sensors.fingertips, later.fingertips)


def test_lengths_of_tracking_losses_are_exponential():
    draw = LossDraw(jnp.float32(1.0), jnp.float32(12.5))
    left = jax.vmap(
        lambda key: (
            observation.object_tracking_loss(
                key, sensors_at(), draw, EffectMemory.empty()
            )[1].tracking_loss_left
        )
    )(keys())
    error = 12.5 / MANY**0.5
    np.testing.assert_allclose(left.mean(), 12.5, atol=4.5 * error)
    np.testing.assert_allclose(left.std(), 12.5, atol=4.5 * 2 * error)


# --- timing and forces ---


def test_jitter_adds_an_exponential_time():
    draw = jnp.float32(0.0004)
    lengths = jax.vmap(
        lambda key: timing.timestep_jitter(
            key, jnp.float32(0.008), draw, EffectMemory.empty()
        )[0]
    )(keys())
    assert (lengths >= np.float32(0.008)).all()
    extra = np.asarray(lengths, float) - 0.008
    error = 0.0004 / MANY**0.5
    np.testing.assert_allclose(extra.mean(), 0.0004, atol=4.5 * error)
    np.testing.assert_allclose(extra.std(), 0.0004, atol=4.5 * 2 * error)


def test_a_push_decays_by_one_percent_a_step():
    never = PushDraw(jnp.float32(0.0), jnp.float32(1.0), jnp.float32(0.99))
    push, memory = jnp.array([0.1, -0.2, 0.05]), EffectMemory.empty()
    for _ in range(3):
        push, memory = forces.random_push(KEY, push, never, memory, jnp.float32(0.1))
        np.testing.assert_array_equal(memory.push, push)
    np.testing.assert_allclose(push, 0.970299 * np.array([0.1, -0.2, 0.05]), rtol=1e-5)


@pytest.mark.parametrize("mass", [0.05, 0.1])
def test_a_new_push_replaces_the_old_one_and_scales_with_mass(mass):
    always = PushDraw(jnp.float32(1.0), jnp.float32(1.0), jnp.float32(0.99))
    pushes = jax.vmap(
        lambda key: forces.random_push(
            key, jnp.full(3, 100.0), always, EffectMemory.empty(), jnp.float32(mass)
        )[0]
    )(keys())
    error = mass / MANY**0.5
    np.testing.assert_allclose(pushes.mean(0), 0.0, atol=4.5 * error)
    np.testing.assert_allclose(pushes.std(0), mass, atol=4.5 * error)


def test_pushes_come_as_often_as_asked():
    draw = PushDraw(jnp.float32(0.05), jnp.float32(1.0), jnp.float32(0.99))
    old = jnp.full(3, 1.0)
    pushes = jax.vmap(
        lambda key: forces.random_push(
            key, old, draw, EffectMemory.empty(), jnp.float32(0.1)
        )[0]
    )(keys())
    fresh = (np.asarray(pushes)[:, 0] != np.float32(0.99)).mean()
    np.testing.assert_allclose(fresh, 0.05, atol=4.5 * np.sqrt(0.05 * 0.95 / MANY))
