"""Independent categorical distributions, one for each action coordinate."""

import jax
import jax.numpy as jnp


def sample(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draw a bin per coordinate: [..., coordinates] int32 from [..., bins] logits."""
    return jax.random.categorical(key, logits).astype(jnp.int32)


def mode(logits: jax.Array) -> jax.Array:
    """The most probable bin per coordinate."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def log_prob(logits: jax.Array, bins: jax.Array) -> jax.Array:
    """Log probability of ``bins`` [..., coordinates], summed over coordinates."""
    # By a mask: the gradient of an index is a scatter, which a CPU does one by one.
    taken = jnp.arange(logits.shape[-1]) == bins[..., None]
    return jnp.where(taken, jax.nn.log_softmax(logits), 0.0).sum((-2, -1))


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy [nats], summed over coordinates."""
    log_probs = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_probs) * log_probs).sum((-2, -1))
