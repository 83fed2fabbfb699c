"""From sensors to what the networks see (Table 2).

The robot bridge runs the same arithmetic; a parity test holds the two together.
"""

import jax
import jax.numpy as jnp

from mjx_dex import rotations
from mjx_dex.types import Observation, Sensors

SIZES = {
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
"""Every input of Table 2 and its length; the value network sees all, in this order."""


def parts(
    sensors: Sensors, goal: jax.Array, control_period: float
) -> dict[str, jax.Array]:
    """Every input by name, flat.

    Args:
        sensors: true or noisy.
        goal: [4] desired orientation.
        control_period: time in which the angular velocity is expressed as a turn [s];
            Table 2 gives that velocity as a quaternion.
    """
    turn = sensors.object_angular_velocity * control_period
    orientation = sensors.object_orientation
    return {
        "fingertips": sensors.fingertips.reshape(-1),
        "object_position": sensors.object_position,
        "relative_orientation": relative_orientation(goal, orientation),
        "object_orientation": rotations.positive(orientation),
        "goal_orientation": rotations.positive(goal),
        "joint_angles": sensors.joint_angles,
        "joint_velocities": sensors.joint_velocities,
        "object_velocity": sensors.object_velocity,
        "object_angular_velocity": rotations.from_rotation_vector(turn),
    }


def relative_orientation(goal: jax.Array, orientation: jax.Array) -> jax.Array:
    """The turn that remains, ``goal * conj(orientation)``, with w >= 0."""
    return rotations.positive(
        rotations.multiply(goal, rotations.conjugate(orientation))
    )


def observe(
    policy_sensors: Sensors,
    true_sensors: Sensors,
    goal: jax.Array,
    inputs: tuple[str, ...],
    control_period: float,
) -> Observation:
    """Assemble both networks' inputs: the policy's noisy, the value network's true."""
    noisy = parts(policy_sensors, goal, control_period)
    true = parts(true_sensors, goal, control_period)
    return Observation(
        policy=jnp.concatenate([noisy[name] for name in inputs]),
        value=jnp.concatenate([true[name] for name in SIZES]),
    )
