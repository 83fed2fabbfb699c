"""Collecting experience: where policy and environments meet."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mjx_dex.learning.agent import Agent
from mjx_dex.learning.networks import Carry, Network
from mjx_dex.learning.vector import VectorEnvironment
from mjx_dex.types import Observation, Transition


@struct.dataclass
class Actors:
    """Environments and memories of one device, between two iterations."""

    env_state: Any
    observation: Observation
    """[num_envs, ...] what the policy acts on next."""
    first: jax.Array
    """[num_envs] bool: that observation begins an episode."""
    policy_carry: Carry
    """[num_envs, units] policy memory before that observation."""
    value_carry: Carry
    """[num_envs, units] value memory before that observation."""
    key: jax.Array


@struct.dataclass
class Experience:
    """What one iteration collects, in chunks: time is split into [chunks, steps]."""

    transitions: Transition
    """[chunks, steps, num_envs, ...]."""
    policy_carry: Carry
    """[chunks, num_envs, units] policy memory before each chunk."""
    value_carry: Carry
    """[chunks, num_envs, units] value memory before each chunk."""


def start(
    vector_env: VectorEnvironment, agent: Agent, key: jax.Array, progress: Any = None
) -> Actors:
    """Begin an episode everywhere, with empty memories.

    Args:
        vector_env: this device's environments.
        agent: whose memories they are.
        key: random key.
        progress: see ``VectorEnvironment.reset``.
    """
    key, reset_key = jax.random.split(key)
    env_state, observation = vector_env.reset(reset_key, progress)
    num_envs = vector_env.num_envs

    def empty(network: Network) -> Carry:
        return jax.tree.map(
            lambda x: jnp.zeros((num_envs, *x.shape)), network.initial_carry()
        )

    return Actors(
        env_state=env_state,
        observation=observation,
        first=jnp.ones(num_envs, bool),
        policy_carry=empty(agent.networks.policy),
        value_carry=empty(agent.networks.value),
        key=key,
    )


def collect(
    vector_env: VectorEnvironment,
    agent: Agent,
    actors: Actors,
    num_chunks: int,
    chunk: int,
) -> tuple[Actors, Experience, dict[str, jax.Array]]:
    """Act for ``num_chunks * chunk`` steps in every environment.

    Returns:
        The actors, the experience, and the environments' metrics summed over worlds
        and steps.
    """

    def step(actors: Actors, _):
        actors, transition, metrics = _step(vector_env, agent, actors)
        return actors, (transition, jax.tree.map(jnp.sum, metrics))

    def collect_chunk(actors: Actors, _):
        carries = actors.policy_carry, actors.value_carry
        actors, (transitions, metrics) = jax.lax.scan(step, actors, length=chunk)
        return actors, (Experience(transitions, *carries), metrics)

    actors, (experience, metrics) = jax.lax.scan(
        collect_chunk, actors, length=num_chunks
    )
    return actors, experience, jax.tree.map(jnp.sum, metrics)


def _step(
    vector_env: VectorEnvironment, agent: Agent, actors: Actors
) -> tuple[Actors, Transition, dict[str, jax.Array]]:
    key, action_key = jax.random.split(actors.key)
    observation, first = actors.observation, actors.first
    policy_carry, outputs = jax.vmap(agent.act)(
        actors.policy_carry, observation.policy, first
    )
    action = agent.networks.actions.sample(action_key, outputs)
    env_state, time_step = vector_env.step(actors.env_state, action)

    value_carry, value = jax.vmap(agent.value)(
        actors.value_carry, observation.value, first
    )
    # Of the state before any reset, with the memory of the episode it belongs to.
    _, next_value = jax.vmap(agent.value)(
        value_carry, time_step.last_observation.value, jnp.zeros_like(first)
    )
    transition = Transition(
        observation=observation,
        action=action,
        log_prob=agent.networks.actions.log_prob(outputs, action),
        value=value,
        next_value=next_value,
        reward=time_step.reward,
        first=first,
        terminated=time_step.terminated,
        truncated=time_step.truncated,
    )
    actors = Actors(
        env_state=env_state,
        observation=time_step.observation,
        first=time_step.terminated | time_step.truncated,
        policy_carry=policy_carry,
        value_carry=value_carry,
        key=key,
    )
    return actors, transition, time_step.metrics
