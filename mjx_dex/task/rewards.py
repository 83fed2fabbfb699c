"""What is rewarded (appendix C.1, and what others reward)."""

import jax
import jax.numpy as jnp

from mjx_dex.config import RewardConfig


def reward(
    config: RewardConfig,
    *,
    progress: jax.Array,
    met: jax.Array,
    dropped: jax.Array,
    timed_out: jax.Array,
    angle: jax.Array,
    distance: jax.Array,
    action: jax.Array,
) -> jax.Array:
    """Weighted sum of what happened in a control step.

    Args:
        config: the weights.
        progress: [] by how much the angle to the goal became smaller [rad].
        met: [] bool, the goal was met.
        dropped: [] bool, the object was dropped.
        timed_out: [] bool, the episode is cut because the goal took too long.
        angle: [] remaining turn to the goal [rad].
        distance: [] of the object from where it fell into the hand, horizontally [m].
        action: [20] smoothed, with its noise.
    """
    terms = {
        "progress": progress,
        "success": met,
        "drop": dropped,
        "timeout": timed_out,
        "closeness": 1 / (angle + 0.1),
        "distance": distance,
        "effort": jnp.square(action).mean(),
    }
    weights = {name: getattr(config, name) for name in terms}
    return sum(weights[name] * terms[name] for name in terms if weights[name])
