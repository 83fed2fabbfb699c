"""Effects between the policy's action and the actuators (Table 8, appendix C.2).

Each is ``(key, action [20], draw, memory) -> (action, memory)``.
"""

import jax
import jax.numpy as jnp

from mjx_dex.hand.slack import take_up
from mjx_dex.types import ActionErrors, EffectMemory


def action_noise(
    key: jax.Array, action: jax.Array, draw: ActionErrors, memory: EffectMemory
) -> tuple[jax.Array, EffectMemory]:
    """Add an episode's offset and fresh noise, additive and multiplicative.

    Table 8 calls the multiplicative noise uncorrelated: it is drawn every step here,
    and once per episode in robogym.
    """
    factor, offset = jax.random.normal(key, (2, *action.shape))
    factor = 1 + draw.multiplicative * factor
    return action * factor + draw.correlated + draw.additive * offset, memory


def action_delay(
    key: jax.Array, action: jax.Array, draw: jax.Array, memory: EffectMemory
) -> tuple[jax.Array, EffectMemory]:
    """Let the actuators of ``draw`` [20] bool take the action before this one."""
    late = jnp.where(draw, memory.delayed_action, action)
    return late, memory.replace(delayed_action=action)


def backlash(
    key: jax.Array, action: jax.Array, draw: jax.Array, memory: EffectMemory
) -> tuple[jax.Array, EffectMemory]:
    """Pass on the share of each action that is left once slack has been taken up.

    ``alpha = 1 - clip(|sgn(a) - s| / |a delta dt|, 0, 1)``, then ``a <- alpha a`` and
    ``s <- clip(s + a delta dt, -1, 1)``. The paper's denominator is ``|s' - s|`` with
    the new slack ``s'`` already clipped, which can only make alpha 0 or 1: an actuator
    would jump from nothing to all. robogym divides by the unclipped increment, and so
    do we.

    Args:
        key: not used.
        action: [20] in [-1, 1].
        draw: [20, 2] control steps in which a full action takes up one unit of slack,
            closing (a < 0) and opening: ``1 / (delta dt)``.
        memory: holds the slack.
    """
    passed, slack = take_up(action, memory.slack, draw, jnp)
    return passed, memory.replace(slack=slack)
