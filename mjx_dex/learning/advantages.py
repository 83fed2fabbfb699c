"""Generalized advantage estimation, with the two ends of an episode told apart."""

import jax
import jax.numpy as jnp


def generalized_advantages(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: float,
    gae_lambda: float,
) -> jax.Array:
    """Advantages of one environment's steps (appendix A.2).

        δ_t = r_t + γ V(s_{t+1}) − V(s_t)
        A_t = δ_t + γ λ A_{t+1}

    Where an episode was terminated, V(s_{t+1}) = 0. Where it was terminated or
    truncated, A_{t+1} belongs to another episode and counts as 0. With λ = 0 this is
    the one-step temporal difference, with λ = 1 the discounted return minus V(s_t).

    Args:
        reward: [T] r_t, after the action of step t.
        value: [T] V(s_t).
        next_value: [T] V(s_{t+1}), of the state before any reset.
        terminated: [T] bool, after the action of step t.
        truncated: [T] bool, after the action of step t.
        gamma: discount.
        gae_lambda: trade of bias (0) for variance (1).

    Returns:
        [T] advantages; value targets are these plus ``value``.
    """
    # where, not a product: the value of a state that is over may be anything.
    bootstrap = jnp.where(terminated, 0.0, next_value)
    delta = reward + gamma * bootstrap - value
    goes_on = ~(terminated | truncated)

    def backward(advantage_tp1, now):
        delta_t, goes_on_t = now
        advantage_t = delta_t + gamma * gae_lambda * goes_on_t * advantage_tp1
        return advantage_t, advantage_t

    _, advantages = jax.lax.scan(
        backward, jnp.zeros(()), (delta, goes_on), reverse=True
    )
    return advantages
