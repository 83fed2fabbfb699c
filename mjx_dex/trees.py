"""Operations on whole trees of arrays."""

from typing import Any

import jax
import jax.numpy as jnp


def where(condition: jax.Array, if_true: Any, if_false: Any) -> Any:
    """Choose one of two trees by a [] bool; ``vmap`` it to choose world by world."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), if_true, if_false)


def is_finite(tree: Any) -> jax.Array:
    """[] bool: no leaf holds infinities or NaN."""
    leaves = jax.tree.leaves(jax.tree.map(lambda x: jnp.isfinite(x).all(), tree))
    return jnp.all(jnp.stack(leaves))


def regroup(tree: Any, devices: int) -> Any:
    """Deal the worlds of [devices before, n, ...] arrays to ``devices``.

    Returns:
        [devices, m, ...] arrays, the worlds in the same order.

    Raises:
        ValueError: if they cannot be dealt evenly.
    """

    def deal(x):
        number = x.shape[0] * x.shape[1]
        if number % devices:
            raise ValueError(f"{number} worlds cannot be dealt to {devices} devices")
        return x.reshape(devices, number // devices, *x.shape[2:])

    return jax.tree.map(deal, tree)
