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


def by_name(tree: Any) -> dict[str, Any]:
    """Every leaf by the dotted name of its place, as in "parameters.policy.head"."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in leaves
    }


def from_names(like: Any, leaves: dict[str, Any], prefix: str = "") -> Any:
    """A tree shaped as ``like``, of the leaves that ``by_name`` would name.

    Args:
        like: any tree of that structure.
        leaves: by name; others may be among them.
        prefix: before the names in ``like``.
    """
    found = [leaves[prefix + name] for name in by_name(like)]
    return jax.tree.unflatten(jax.tree.structure(like), found)
