"""From the policy's bins to joint targets (sections 4.2 and C.1).

The robot bridge runs the same arithmetic; a parity test holds the two together.
"""

import jax
import jax.numpy as jnp

from mjx_dex.hand import Hand, names
from mjx_dex.types import EffectMemory

WRIST_PITCH = [actuator.ours for actuator in names.ACTUATORS].index("A_WRJ0")


def decode_bins(bins: jax.Array, num_bins: int) -> jax.Array:
    """Bin indices [20] to actions in [-1, 1], evenly spaced with both ends."""
    return bins * (2.0 / (num_bins - 1)) - 1.0


def smooth(
    action: jax.Array, memory: EffectMemory, weight: float
) -> tuple[jax.Array, EffectMemory]:
    """Exponential moving average, ``m_t = w m_{t-1} + (1 - w) a_t``.

    Divided by the total weight of the actions so far, so that the first action of an
    episode comes through whole (robogym).

    Args:
        action: [20] in [-1, 1].
        memory: holds the average so far.
        weight: of the past; 0 passes actions through. The paper's 0.3 per 80 ms.
    """
    average = weight * memory.smoothed_action + (1 - weight) * action
    total = weight * memory.smoothing_weight + (1 - weight)
    memory = memory.replace(smoothed_action=average, smoothing_weight=total)
    return average / total, memory


def lock_wrist(
    action: jax.Array, joint_angles: jax.Array, hand: Hand, ctrl_range: jax.Array
) -> jax.Array:
    """Replace the wrist's pitch by a servo to 0 (the paper's locked-wrist variant)."""
    low, high = ctrl_range[WRIST_PITCH]
    held = hand.actuator_joints[WRIST_PITCH] @ joint_angles
    return action.at[WRIST_PITCH].set(-held / ((high - low) / 2))


def joint_targets(
    action: jax.Array, joint_angles: jax.Array, hand: Hand, ctrl_range: jax.Array
) -> jax.Array:
    """Relative actions to actuator targets, ``clip(s + a h)``.

    Args:
        action: [20]; |a| = 1 asks for half of the actuator's range.
        joint_angles: [24] at the moment of the action; coupled joints are summed.
        hand: says which joints are coupled.
        ctrl_range: [20, 2] lowest and highest target [rad].

    Returns:
        [20] targets [rad], within the actuators' ranges.
    """
    low, high = ctrl_range.T
    current = jnp.asarray(hand.actuator_joints) @ joint_angles
    return jnp.clip(current + action * ((high - low) / 2), low, high)
