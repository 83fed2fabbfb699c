"""Collecting experience: where policy and environments meet."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mjx_dex import trees
from mjx_dex.learning.agent import Agent
from mjx_dex.learning.networks import Carry, Network
from mjx_dex.learning.vector import VectorEnvironment
from mjx_dex.types import Observation, TimeStep, Transition

PHASES = ("acting", "environments", "values", "values at truncation")
"""Names of a step's parts in a compiled program and its profile."""
NONFINITE = "nonfinite"
"""Name of the metric that counts transitions which are infinite or NaN."""
BLOCKS = 16
"""Parts of the batch in which environments with a truncated episode are evaluated."""


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
        The actors, the experience, which is finite whatever environments return, and
        the environments' metrics summed over environments and steps; ``NONFINITE``,
        which is among them, counts the transitions with an observation before or after
        them, or a reward, that was not finite.
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
    next_value = _next_values(agent, actors, experience.transitions)
    transitions = experience.transitions.replace(next_value=next_value)
    experience = experience.replace(transitions=transitions)
    return actors, experience, jax.tree.map(jnp.sum, metrics)


def _step(
    vector_env: VectorEnvironment, agent: Agent, actors: Actors
) -> tuple[Actors, Transition, dict[str, jax.Array]]:
    key, action_key = jax.random.split(actors.key)
    first = actors.first
    with jax.named_scope("acting"):
        observation = _finite(agent, actors.observation)
        policy_carry, outputs = jax.vmap(agent.act)(
            actors.policy_carry, observation.policy, first
        )
        action = agent.networks.actions.sample(action_key, outputs)
    with jax.named_scope("environments"):
        env_state, time_step = vector_env.step(actors.env_state, action)
        time_step = _with_finite_end(time_step, actors.observation)
    with jax.named_scope("values"):
        value_carry, value = jax.vmap(agent.value)(
            actors.value_carry, observation.value, first
        )
    with jax.named_scope("values at truncation"):
        # The others' follow from the steps after them: see _next_values.
        next_value = _values_of_truncated(agent, value_carry, time_step)
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


def _with_finite_end(time_step: TimeStep, before: Observation) -> TimeStep:
    """Count what is infinite or NaN, and end episodes there.

    Nothing is then bootstrapped from it, and memory begins anew. The last observation
    of a terminated episode may be anything: no network sees it.

    Args:
        time_step: [num_envs, ...] as the environments returned it.
        before: [num_envs, ...] the observation before it.
    """
    finite, reward = jax.vmap(trees.is_finite), time_step.reward
    ends_finite = (
        jnp.isfinite(reward)
        & finite(time_step.observation)
        & (~time_step.truncated | finite(time_step.last_observation.value))
    )
    counted = ~(finite(before) & ends_finite)
    return time_step.replace(
        reward=jnp.where(jnp.isfinite(reward), reward, 0.0),
        terminated=time_step.terminated | ~ends_finite,
        truncated=time_step.truncated & ends_finite,
        metrics=time_step.metrics | {NONFINITE: counted},
    )


def _finite(agent: Agent, observation: Observation) -> Observation:
    """[num_envs, ...] with the mean so far for what is infinite or NaN."""
    seen = {"policy": observation.policy, "value": observation.value}
    return observation.replace(
        **{
            name: jnp.where(jnp.isfinite(x), x, agent.statistics[name].mean)
            for name, x in seen.items()
        }
    )


def _values_of_truncated(agent: Agent, carry: Carry, time_step: TimeStep) -> jax.Array:
    """[num_envs] V(s_{t+1}) where an episode was truncated; elsewhere anything.

    Truncated episodes are few, but in a large batch there is one at almost every step.
    They are gathered in blocks, and the loop ends when none is left: it usually runs
    once, and not at all when none was truncated.

    Args:
        agent: whose value network is evaluated.
        carry: [num_envs, units] its memory after s_t, of the episode that ends.
        time_step: [num_envs, ...] what followed; its last observation is of s_{t+1}.
    """
    num_envs = len(time_step.truncated)

    def evaluate(state):
        waiting, values = state
        _, block = jax.lax.top_k(waiting.astype(jnp.float32), -(-num_envs // BLOCKS))
        of_block = jax.tree.map(
            lambda x: x[block], (carry, time_step.last_observation.value)
        )
        _, value = jax.vmap(agent.value)(*of_block, jnp.zeros(len(block), bool))
        return waiting.at[block].set(False), values.at[block].set(value)

    _, values = jax.lax.while_loop(
        lambda state: state[0].any(),
        evaluate,
        (time_step.truncated, jnp.zeros(num_envs)),
    )
    return values


def _next_values(agent: Agent, actors: Actors, transitions: Transition) -> jax.Array:
    """[chunks, steps, num_envs] V(s_{t+1}): as recorded where truncated, else the next
    step's V(s_t), and 0 where terminated.

    Only after the last step the value network is evaluated anew.
    """
    t = transitions
    with jax.named_scope("values"):
        _, last = jax.vmap(agent.value)(
            actors.value_carry, actors.observation.value, actors.first
        )
    values = jnp.concatenate([t.value.reshape(-1, len(last)), last[None]])
    following = values[1:].reshape(t.value.shape)
    next_value = jnp.where(t.truncated, t.next_value, following)
    return jnp.where(t.terminated, 0.0, next_value)
