"""The distributions that the menu draws from, whole or in part."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mjx_dex.config import LogUniform, Normal, Uniform


class Range(NamedTuple):
    """Which part of an effect's range to draw from: -1 is its lower bound, 0 nominal
    and 1 its upper bound. Effects that have no lower bound draw their strength, from
    none at 0 to the paper's at 1."""

    low: jax.Array | float
    """[]."""
    high: jax.Array | float
    """[]."""

    @classmethod
    def whole(cls) -> "Range":
        """All between the bounds asked for."""
        return cls(-1.0, 1.0)

    @classmethod
    def full_strength(cls) -> "Range":
        """As strong as asked for."""
        return cls(1.0, 1.0)

    def strength(self, key: jax.Array) -> jax.Array:
        """[] how strong an effect without lower bound is."""
        low = jnp.maximum(self.low, 0.0)
        return low + (self.high - low) * jax.random.uniform(key)


def draw_between(
    key: jax.Array, config: Uniform | LogUniform, shape: tuple, part: Range
) -> jax.Array:
    """Factors around 1, evenly from a part of the range, or evenly in the logarithm.

    A ``LogUniform`` whose bounds lie on one side of 1 has no nominal; only its whole
    range can be drawn from.
    """
    uniform = jax.random.uniform(key, shape)
    if isinstance(config, LogUniform):
        low, high = jnp.log(config.low), jnp.log(config.high)
        if config.low < 1 < config.high:
            low, high = _position(part.low, low, high), _position(part.high, low, high)
        return jnp.exp(low + (high - low) * uniform)
    low, high = config.low - 1, config.high - 1
    low, high = _position(part.low, low, high), _position(part.high, low, high)
    return 1 + low + (high - low) * uniform


def draw_normal(key: jax.Array, config: Normal, shape: tuple, part: Range) -> jax.Array:
    """Offsets around 0."""
    strength = part.strength(jax.random.fold_in(key, 0))
    return strength * config.deviation * jax.random.normal(key, shape)


def _position(at, low, high) -> jax.Array:
    """Where -1 (``low``) to 1 (``high``) lies, with nominal 0 between."""
    return jnp.where(at < 0, -at * low, at * high)
