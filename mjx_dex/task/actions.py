"""From the policy's bins to joint targets (sections 4.2 and C.1).

The robot bridge runs the same arithmetic; a parity test holds the two together.
"""

import jax
import jax.numpy as jnp

from mjx_dex.hand import Hand, names
from mjx_dex.types import EffectMemory

WRIST_PITCH = [actuator.ours for actuator in names.ACTUATORS].index("A_WRJ0")


def decode(action: jax.Array, num_bins: int | None) -> jax.Array:
    """A policy's action [20] to one in [-1, 1].

    Args:
        action: indices of bins, which are evenly spaced with both ends; or any numbers,
            which are clipped.
        num_bins: how many; None for numbers.
    """
    if num_bins is None:
        return jnp.clip(action, -1.0, 1.0)
    return action * (2.0 / (num_bins - 1)) - 1.0


def random_action(key: jax.Array, shape: tuple, num_bins: int | None) -> jax.Array:
    """What ``decode`` takes to actions spread evenly over [-1, 1]."""
    if num_bins is None:
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    return jax.random.randint(key, shape, 0, num_bins)


def smooth(
    action: jax.Array, memory: EffectMemory, weight: float
) -> tuple[jax.Array, EffectMemory]:
    """Exponential moving average, ``m_t = w m_{t-1} + (1 - w) a_t``.

    Divided by the total weight of the actions so far, so that the first action of an
    episode comes through whole (robogym).

    Args:
        action: [20] in [-1, 1].
        memory: holds the average so far.
        weight: on the past, per control step (``Config.smoothing_weight``); 0 passes
            actions through.
    """
    average = weight * memory.smoothed_action + (1 - weight) * action
    total = weight * memory.smoothing_weight + (1 - weight)
    memory = memory.replace(smoothed_action=average, smoothing_weight=total)
    return smoothed(memory), memory


def smoothed(memory: EffectMemory) -> jax.Array:
    """[20] average of the actions so far."""
    return memory.smoothed_action / memory.smoothing_weight


def joint_targets(
    action: jax.Array,
    joint_angles: jax.Array,
    hand: Hand,
    ctrl_range: jax.Array,
    relative: bool = True,
) -> jax.Array:
    """Actions to actuator targets, ``clip(s + a h)``.

    Args:
        action: [20]; |a| = 1 asks for half of the actuator's range.
        joint_angles: [24] at the moment of the action; coupled joints are summed.
        hand: says which joints are coupled.
        ctrl_range: [20, 2] lowest and highest target [rad].
        relative: s are the present joint angles (the paper's law); otherwise the
            middles of the ranges.

    Returns:
        [20] targets [rad], within the actuators' ranges.
    """
    low, high = ctrl_range.T
    middle = (low + high) / 2
    start = jnp.asarray(hand.actuator_joints) @ joint_angles if relative else middle
    return jnp.clip(start + action * ((high - low) / 2), low, high)


def lock_wrist(targets: jax.Array, ctrl_range: jax.Array) -> jax.Array:
    """Send the wrist's pitch to 0, or as near to it as its range allows, whatever the
    action (the paper's locked-wrist variant)."""
    straight = jnp.clip(0.0, *ctrl_range[WRIST_PITCH])
    return targets.at[WRIST_PITCH].set(straight)
