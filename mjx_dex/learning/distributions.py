"""What a policy draws its actions from, independently for each action coordinate."""

import math
from typing import Protocol

import jax
import jax.numpy as jnp


class Distribution(Protocol):
    """Actions [..., coordinates] from a network's outputs [..., coordinates, n]."""

    num_outputs: int
    """n, outputs for each coordinate."""

    def sample(self, key: jax.Array, outputs: jax.Array) -> jax.Array:
        """Draw an action."""

    def mode(self, outputs: jax.Array) -> jax.Array:
        """The most probable action."""

    def log_prob(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
        """Log probability (or density) of an action, summed over coordinates."""

    def entropy(self, outputs: jax.Array) -> jax.Array:
        """Entropy [nats], summed over coordinates."""


class Categorical:
    """One of ``bins``; outputs are logits, actions int32 (the paper's policy)."""

    def __init__(self, bins: int):
        self.num_outputs = bins

    def sample(self, key, outputs):
        """See ``Distribution.sample``."""
        return jax.random.categorical(key, outputs).astype(jnp.int32)

    def mode(self, outputs):
        """See ``Distribution.mode``."""
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def log_prob(self, outputs, action):
        """See ``Distribution.log_prob``."""
        # By a mask: the gradient of an index is a scatter, which a CPU does one by one.
        taken = jnp.arange(outputs.shape[-1]) == action[..., None]
        return jnp.where(taken, jax.nn.log_softmax(outputs), 0.0).sum((-2, -1))

    def entropy(self, outputs):
        """See ``Distribution.entropy``."""
        log_probs = jax.nn.log_softmax(outputs)
        return -(jnp.exp(log_probs) * log_probs).sum((-2, -1))


class Gaussian:
    """Any number; outputs o are the mean and what sets the standard deviation σ.

        σ² = (FIRST² − LEAST²) exp(2 o₁) + LEAST²

    Two independent noises, one of which is learned. Without the other a policy that is
    certain of the best action continues to narrow σ: a step of its mean is then many
    deviations long, probability ratios have no bound, and one late minibatch undoes
    what was learned. Well above the least deviation it changes next to nothing.
    """

    num_outputs = 2
    FIRST_DEVIATION = 3**-0.5
    """σ where outputs are 0, as they nearly are before training: that of numbers spread
    evenly over [-1, 1]."""
    LEAST_DEVIATION = 0.05
    """Lower bound of σ: about that of numbers spread evenly over one of the paper's 11
    bins."""

    def sample(self, key, outputs):
        """See ``Distribution.sample``."""
        mean, log_deviation = self._parts(outputs)
        noise = jax.random.normal(key, mean.shape)
        return mean + jnp.exp(log_deviation) * noise

    def mode(self, outputs):
        """See ``Distribution.mode``."""
        return self._parts(outputs)[0]

    def log_prob(self, outputs, action):
        """See ``Distribution.log_prob``."""
        mean, log_deviation = self._parts(outputs)
        distance = (action - mean) * jnp.exp(-log_deviation)
        density = -0.5 * jnp.square(distance) - log_deviation - 0.5 * LOG_2_PI
        return density.sum(-1)

    def entropy(self, outputs):
        """See ``Distribution.entropy``."""
        _, log_deviation = self._parts(outputs)
        return (log_deviation + 0.5 * (1 + LOG_2_PI)).sum(-1)

    def _parts(self, outputs):
        first, least = self.FIRST_DEVIATION**2, self.LEAST_DEVIATION**2
        log_learned = 2 * outputs[..., 1] + math.log(first - least)
        return outputs[..., 0], 0.5 * jnp.logaddexp(log_learned, math.log(least))


LOG_2_PI = math.log(2 * math.pi)


def make_distribution(bins: int | None) -> Distribution:
    """Of actions that are one of so many bins, or any number if that is None."""
    return Gaussian() if bins is None else Categorical(bins)
