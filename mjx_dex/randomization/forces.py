"""Forces on the object (appendix C.2)."""

import jax
import jax.numpy as jnp

from mjx_dex.types import EffectMemory, PushDraw


def random_push(
    key: jax.Array,
    push: jax.Array,
    draw: PushDraw,
    memory: EffectMemory,
    mass: jax.Array,
) -> tuple[jax.Array, EffectMemory]:
    """Let the push on the object decay, or now and then replace it by another.

    Args:
        key: random key.
        push: [3] during the control step before [N].
        draw: how often, how hard.
        memory: keeps the push.
        mass: [] of the object [kg]: a push is an acceleration times it.

    Returns:
        The force [3] [N] during this control step, and new memory.
    """
    now_key, force_key = jax.random.split(key)
    fresh = draw.acceleration * mass * jax.random.normal(force_key, (3,))
    pushed = jax.random.bernoulli(now_key, draw.probability)
    push = jnp.where(pushed, fresh, draw.decay * push)
    return push, memory.replace(push=push)
