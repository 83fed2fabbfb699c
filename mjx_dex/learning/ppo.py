"""Proximal policy optimization over chunks of experience (appendix A.3, Table 10)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mjx_dex.config import PPOConfig
from mjx_dex.learning.agent import Networks
from mjx_dex.learning.networks import Carry, Network

KL_STEP = 1.3
"""Factor by which one iteration may change an adaptive learning rate."""
LEARNING_RATES = (1e-6, 1e-2)
"""Bounds of an adaptive learning rate."""


@struct.dataclass
class Chunk:
    """A few consecutive steps of one environment, ready to be learned from."""

    policy_carry: Carry
    """Policy memory before the first step, as it was when acting."""
    value_carry: Carry
    """Value memory before the first step."""
    policy_input: jax.Array
    """[chunk, inputs] normalized."""
    value_input: jax.Array
    """[chunk, inputs] normalized."""
    first: jax.Array
    """[chunk] bool: an episode begins."""
    action: jax.Array
    """[chunk, coordinates]."""
    log_prob: jax.Array
    """[chunk] when acting."""
    advantage: jax.Array
    """[chunk]."""
    value_target: jax.Array
    """[chunk] normalized."""


def make_optimizer(config: PPOConfig) -> optax.GradientTransformation:
    """Adam without its step size, which the learner holds.

    Its state is the same with and without clipping: a run may continue either way.
    """
    clip = optax.identity()
    if config.max_gradient_norm is not None:
        clip = optax.clip_by_global_norm(config.max_gradient_norm)
    return optax.chain(clip, optax.scale_by_adam())


def loss(
    parameters: dict[str, Any],
    chunks: Chunk,
    networks: Networks,
    config: PPOConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped surrogate, entropy bonus and value error of a minibatch [n, chunk].

    ρ = π(a|s) / π_old(a|s);  maximize E[min(ρ A, clip(ρ, 1−ε, 1+ε) A)] + c H(π).
    The advantages A are standardized already.
    """
    value, actions = networks.value, networks.actions
    log_ratio, outputs = _log_ratio(parameters, chunks, networks)
    predicted = _replay(
        value, parameters["value"], chunks.value_carry, chunks.value_input, chunks.first
    )
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    advantage = chunks.advantage
    surrogate = jnp.minimum(ratio * advantage, clipped * advantage).mean()
    entropy = actions.entropy(outputs).mean()
    value_error = jnp.square(predicted - chunks.value_target).mean()
    total = -surrogate - config.entropy * entropy + config.value_weight * value_error
    return total, {
        "surrogate": surrogate,
        "entropy": entropy,
        "value_error": value_error,
        "clip_fraction": (jnp.abs(ratio - 1) > config.clip).mean(),
    }


def divergence(
    parameters: dict[str, Any], chunks: Chunk, networks: Networks
) -> jax.Array:
    """KL divergence [nats] of the policy from the one that acted, on chunks [n, chunk].

    Schulman's estimate E[ρ − 1 − log ρ] of KL(old || new), whose variance is low and
    which is never negative.
    """
    log_ratio = _log_ratio(parameters, chunks, networks)[0]
    return (jnp.expm1(log_ratio) - log_ratio).mean()


def optimize(
    parameters: dict[str, Any],
    optimizer_state: dict[str, Any],
    chunks: Chunk,
    learning_rate: jax.Array,
    key: jax.Array,
    networks: Networks,
    config: PPOConfig,
    axis_name: str,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, jax.Array]]:
    """Take one Adam step on each of ``config.minibatches`` minibatches.

    Args:
        parameters: of "policy" and "value".
        optimizer_state: of "policy" and "value".
        chunks: [n, chunk] this device's experience.
        learning_rate: [] Adam's step size.
        key: random key of this device.
        networks: what is learned.
        config: hyperparameters.
        axis_name: gradients are averaged over the devices along this axis.

    Returns:
        New parameters, new optimizer state, and metrics averaged over the later half of
        the minibatches; "kl" is of the new policy, after the last step.
    """
    optimizer = make_optimizer(config)

    def step(carry, indices):
        parameters, state = carry
        minibatch = jax.tree.map(lambda x: x[indices], chunks)
        # Over all devices: many devices then do what one does with all their worlds.
        advantage = standardize(minibatch.advantage, axis_name)
        minibatch = minibatch.replace(advantage=advantage)
        gradients, metrics = jax.lax.pmean(
            _gradient(parameters, minibatch, networks, config), axis_name
        )
        for name in parameters:
            update, new_state = optimizer.update(gradients[name], state[name])
            update = jax.tree.map(lambda u: -learning_rate * u, update)
            state = state | {name: new_state}
            parameters = parameters | {
                name: optax.apply_updates(parameters[name], update)
            }
            metrics[f"{name}_gradient_norm"] = optax.tree.norm(gradients[name])
        return (parameters, state), metrics

    num_chunks = len(chunks.first)
    order = _minibatch_order(key, num_chunks, config)
    (parameters, optimizer_state), metrics = jax.lax.scan(
        step, (parameters, optimizer_state), order
    )
    half = config.minibatches // 2
    metrics = jax.tree.map(lambda m: m[half:].mean(), metrics)
    # A minibatch's own metrics are from before its step: with a single one KL would be
    # 0. The first one is the one that was learned from least recently.
    first = jax.tree.map(lambda x: x[order[0]], chunks)
    kl = _mean_over_parts(lambda c: divergence(parameters, c, networks), first, config)
    metrics["kl"] = jax.lax.pmean(kl, axis_name)
    return parameters, optimizer_state, metrics


def adapt_learning_rate(
    learning_rate: jax.Array, kl: jax.Array, config: PPOConfig
) -> jax.Array:
    """Step the learning rate toward the one whose KL divergence is on target."""
    if config.kl_target is None:
        return learning_rate
    factor = jnp.where(kl > 1.5 * config.kl_target, 1 / KL_STEP, 1.0)
    factor = jnp.where(kl < config.kl_target / 1.5, KL_STEP, factor)
    return jnp.clip(learning_rate * factor, *LEARNING_RATES)


def standardize(x: jax.Array, axis_name: str) -> jax.Array:
    """To mean 0 and deviation 1 over all entries on all devices along ``axis_name``."""
    centered = x - jax.lax.pmean(x.mean(), axis_name)
    variance = jax.lax.pmean(jnp.square(centered).mean(), axis_name)
    return centered / (jnp.sqrt(variance) + 1e-8)


def _log_ratio(
    parameters: dict[str, Any], chunks: Chunk, networks: Networks
) -> tuple[jax.Array, jax.Array]:
    """[n, chunk] log π(a|s) − log π_old(a|s), and the policy's outputs."""
    policy, _, actions = networks
    outputs = _replay(
        policy,
        parameters["policy"],
        chunks.policy_carry,
        chunks.policy_input,
        chunks.first,
    )
    return actions.log_prob(outputs, chunks.action) - chunks.log_prob, outputs


def _replay(network: Network, parameters, carry: Carry, inputs, first) -> jax.Array:
    """Outputs [n, chunk, ...] for inputs [n, chunk, features]."""
    # Time first: transposed here are the inputs, not the gates, which are far larger.
    in_time = jnp.swapaxes(inputs, 0, 1), first.T
    return jnp.swapaxes(network.apply(parameters, carry, *in_time)[1], 0, 1)


def _gradient(
    parameters: dict[str, Any],
    minibatch: Chunk,
    networks: Networks,
    config: PPOConfig,
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """Gradient and metrics of a minibatch."""

    def of(part):
        return jax.grad(loss, has_aux=True)(parameters, part, networks, config)

    return _mean_over_parts(of, minibatch, config)


def _mean_over_parts(of: Callable[[Chunk], Any], minibatch: Chunk, config: PPOConfig):
    """Mean of ``of`` over the parts of a minibatch, one after another to save memory.

    Args:
        of: a tree of means over the chunks that it is given.
        minibatch: [n, chunk].
        config: says how many parts.
    """
    parts = config.accumulation
    if parts == 1:
        return of(minibatch)
    # Sizes spelled out: without memory a carry has length 0.
    split = jax.tree.map(
        lambda x: x.reshape(parts, len(x) // parts, *x.shape[1:]), minibatch
    )
    shapes = jax.eval_shape(of, jax.tree.map(lambda x: x[0], split))
    total, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, of(part)), None),
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
        split,
    )
    return jax.tree.map(lambda x: x / parts, total)


def _minibatch_order(key: jax.Array, num_chunks: int, config: PPOConfig) -> jax.Array:
    """[minibatches, size] indices: one random order of all chunks after another."""
    size = config.minibatch_size // config.chunk
    total = config.minibatches * size
    keys = jax.random.split(key, -(-total // num_chunks))
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_chunks))(keys)
    return orders.reshape(-1)[:total].reshape(config.minibatches, size)
