"""What the two networks see, against Table 2 and SciPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mjx_dex.config import Config, replace
from mjx_dex.task import observations
from mjx_dex.types import Sensors

# Table 2, in the paper's order.
TABLE_2 = {
    "fingertips": 15,
    "object_position": 3,
    "relative_orientation": 4,
    "object_orientation": 4,
    "goal_orientation": 4,
    "joint_angles": 24,
    "joint_velocities": 24,
    "object_velocity": 3,
    "object_angular_velocity": 4,
}
POLICY = ("fingertips", "object_position", "relative_orientation")
PERIOD = 0.08


def random_sensors(seed: int) -> Sensors:
    rng = np.random.default_rng(seed)
    sizes = {
        "fingertips": (5, 3),
        "object_position": 3,
        "object_orientation": 4,
        "joint_angles": 24,
        "joint_velocities": 24,
        "object_velocity": 3,
        "object_angular_velocity": 3,
    }
    values = {name: rng.normal(size=size) for name, size in sizes.items()}
    values["object_orientation"] /= np.linalg.norm(values["object_orientation"])
    return Sensors(**{k: jnp.asarray(v, jnp.float32) for k, v in values.items()})


def random_goal(seed: int) -> jax.Array:
    goal = Rotation.random(rng=np.random.default_rng(seed))
    return jnp.asarray(goal.as_quat(scalar_first=True), jnp.float32)


def to_scipy(quaternion) -> Rotation:
    return Rotation.from_quat(np.asarray(quaternion), scalar_first=True)


def quaternion(rotation: Rotation) -> np.ndarray:
    """With w >= 0."""
    return rotation.as_quat(canonical=True, scalar_first=True)


def table_2(sensors: Sensors, goal) -> dict[str, np.ndarray]:
    """Every input by name, worked out with SciPy."""
    orientation, desired = to_scipy(sensors.object_orientation), to_scipy(goal)
    turn = np.asarray(sensors.object_angular_velocity) * PERIOD
    return {
        "fingertips": np.asarray(sensors.fingertips).ravel(),
        "object_position": sensors.object_position,
        "relative_orientation": quaternion(desired * orientation.inv()),
        "object_orientation": quaternion(orientation),
        "goal_orientation": quaternion(desired),
        "joint_angles": sensors.joint_angles,
        "joint_velocities": sensors.joint_velocities,
        "object_velocity": sensors.object_velocity,
        "object_angular_velocity": quaternion(Rotation.from_rotvec(turn)),
    }


def join(inputs: dict, names) -> np.ndarray:
    return np.concatenate([np.asarray(inputs[name]) for name in names])


def observe(policy_sensors, true_sensors, goal, inputs=POLICY):
    return observations.observe(policy_sensors, true_sensors, goal, inputs, PERIOD)


def test_sizes_are_those_of_table_2():
    assert list(observations.SIZES.items()) == list(TABLE_2.items())
    assert sum(TABLE_2.values()) == 85


def test_the_policy_sees_22_numbers_and_the_value_network_all(env, started):
    assert Config().task.policy_inputs == POLICY
    _, observation = env.observe(started)
    assert observation.policy.shape == (22,)
    assert observation.value.shape == (85,)


@pytest.mark.parametrize("seed", range(4))
def test_observation_is_what_table_2_says(seed):
    sensors, goal = random_sensors(seed), random_goal(seed)
    observation = observe(sensors, sensors, goal)
    expected = table_2(sensors, goal)
    np.testing.assert_allclose(observation.policy, join(expected, POLICY), atol=2e-6)
    np.testing.assert_allclose(observation.value, join(expected, TABLE_2), atol=2e-6)


def test_more_can_be_shown_to_the_policy_in_any_order():
    sensors, goal = random_sensors(4), random_goal(4)
    inputs = ("joint_angles", "object_velocity", "fingertips")
    policy = observe(sensors, sensors, goal, inputs).policy
    expected = join(table_2(sensors, goal), inputs)
    assert policy.shape == (24 + 3 + 15,)
    np.testing.assert_array_equal(policy, expected)


def test_a_states_observation_is_of_its_true_pose(env, started):
    inputs = table_2(env.sense(env.scene(started)), started.goal)
    expected = join(inputs, TABLE_2)
    _, observation = env.observe(started)
    np.testing.assert_allclose(observation.value, expected, atol=2e-6)
    orientation = to_scipy(started.physics.qpos[27:31])
    remaining = to_scipy(started.goal) * orientation.inv()
    np.testing.assert_allclose(
        observation.policy[18:22], quaternion(remaining), atol=2e-6
    )


def test_relative_orientation_leads_to_the_goal():
    for seed in range(20):
        sensors, goal = random_sensors(seed), random_goal(seed + 100)
        remaining = observations.relative_orientation(goal, sensors.object_orientation)
        assert remaining[0] >= 0
        reached = to_scipy(remaining) * to_scipy(sensors.object_orientation)
        assert (reached * to_scipy(goal).inv()).magnitude() < 2e-6


@pytest.mark.parametrize("flip", ["goal", "object", "both"])
def test_quaternions_of_either_sign_look_the_same(flip):
    sensors, goal = random_sensors(5), random_goal(5)
    flipped = sensors
    if flip != "goal":
        flipped = sensors.replace(object_orientation=-sensors.object_orientation)
    other_goal = goal if flip == "object" else -goal
    expected, found = (
        observe(sensors, sensors, goal),
        observe(flipped, flipped, other_goal),
    )
    np.testing.assert_array_equal(found.policy, expected.policy)
    np.testing.assert_array_equal(found.value, expected.value)


def test_noise_on_the_policys_sensors_does_not_reach_the_value_network():
    noisy, true, goal = random_sensors(6), random_sensors(7), random_goal(6)
    observation = observe(noisy, true, goal)
    np.testing.assert_allclose(
        observation.policy, join(table_2(noisy, goal), POLICY), atol=2e-6
    )
    np.testing.assert_allclose(
        observation.value, join(table_2(true, goal), TABLE_2), atol=2e-6
    )


def test_every_sensor_is_seen_by_the_value_network():
    sensors, goal = random_sensors(8), random_goal(8)
    value = observe(sensors, sensors, goal).value
    for field in dataclasses.fields(Sensors):
        other = getattr(random_sensors(9), field.name)
        changed = sensors.replace(**{field.name: other})
        assert (observe(sensors, changed, goal).value != value).any(), field.name


@pytest.mark.parametrize("name", ["object_colour", ""])
def test_unknown_inputs_are_refused(config, name):
    with pytest.raises(ValueError, match=rf"policy_inputs.* is '{name}'; it must"):
        replace(config, **{"task.policy_inputs": ("fingertips", name)})
