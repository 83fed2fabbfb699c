"""Running means and standard deviations of data that arrives in batches."""

import jax
import jax.numpy as jnp
from flax import struct

CLIP = 5.0
"""Normalized observations are clipped to this many standard deviations (D.1)."""


@struct.dataclass
class Statistics:
    """Mean and variance of all data so far."""

    mean: jax.Array
    """[...] as one sample."""
    variance: jax.Array
    """[...] as one sample."""
    count: jax.Array
    """[] float32, samples so far."""

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> "Statistics":
        """Of no data: mean 0, variance 1, so that nothing is changed by it."""
        return cls(jnp.zeros(shape), jnp.ones(shape), jnp.zeros(()))

    def update(self, batch: jax.Array, axis_name: str | None = None) -> "Statistics":
        """Merge in a batch [n, ...] (Chan et al.), of all devices along ``axis_name``.

        Merging a batch in parts gives the same result as in one.
        """
        mean, size = batch.mean(0), jnp.float32(len(batch))
        if axis_name is not None:
            # Means of means are exact: every device holds equally many samples.
            mean = jax.lax.pmean(mean, axis_name)
            size *= jax.lax.axis_size(axis_name)
        variance = jnp.square(batch - mean).mean(0)
        if axis_name is not None:
            variance = jax.lax.pmean(variance, axis_name)
        total = self.count + size
        delta, weight = mean - self.mean, size / total
        # With no data yet the old variance (1) has no weight, as it should.
        variance = (
            (1 - weight) * self.variance
            + weight * variance
            + jnp.square(delta) * weight * (1 - weight)
        )
        return Statistics(self.mean + delta * weight, variance, total)

    @property
    def deviation(self) -> jax.Array:
        """Standard deviation, kept away from 0 for inputs that never change."""
        return jnp.sqrt(jnp.maximum(self.variance, 1e-8))

    def normalize(self, x: jax.Array) -> jax.Array:
        """To mean 0 and deviation 1."""
        return (x - self.mean) / self.deviation

    def normalize_clipped(self, x: jax.Array) -> jax.Array:
        """To mean 0 and deviation 1, clipped to ``CLIP``."""
        return jnp.clip(self.normalize(x), -CLIP, CLIP)

    def denormalize(self, x: jax.Array) -> jax.Array:
        """The inverse of ``normalize``."""
        return x * self.deviation + self.mean
