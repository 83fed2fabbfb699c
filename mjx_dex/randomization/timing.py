"""How long physics steps are (appendix C.2)."""

import jax

from mjx_dex.types import EffectMemory


def timestep_jitter(
    key: jax.Array, timestep: jax.Array, draw: jax.Array, memory: EffectMemory
) -> tuple[jax.Array, EffectMemory]:
    """Lengthen ``timestep`` [] by an exponential time of mean ``draw`` [] [s].

    One draw for all physics steps of a control step, as in robogym: the paper's "10
    simulator steps with 8 ms + Exp(lambda)" leaves that open.
    """
    return timestep + draw * jax.random.exponential(key), memory
