import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mjx_dex.config import NetworkConfig
from mjx_dex.learning import AutoReset, rollout
from mjx_dex.learning.agent import Agent, make_networks
from mjx_dex.learning.statistics import Statistics
from mjx_dex.types import Observation, TimeStep

ENVS, CHUNKS, CHUNK = 4, 3, 5
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@struct.dataclass
class WalkState:
    position: jax.Array
    key: jax.Array


class Walk:
    """Wanders where actions and chance lead; no two observations are alike."""

    action_shape = (2, 3)

    def reset(self, key):
        key, position_key = jax.random.split(key)
        state = WalkState(jax.random.normal(position_key, (2,)), key)
        return state, self._observation(state)

    def step(self, state, action):
        key, walk_key, end_key = jax.random.split(state.key, 3)
        moved = state.position + 0.5 * (action - 1)
        state = WalkState(moved + 0.1 * jax.random.normal(walk_key, (2,)), key)
        chance = jax.random.uniform(end_key)
        terminated, truncated = chance < 0.15, chance > 0.8
        reward = state.position[0]
        observation = self._observation(state)
        return state, TimeStep(
            observation=observation,
            last_observation=observation,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            metrics={"episodes": terminated | truncated, "reward": reward},
        )

    def _observation(self, state):
        return Observation(
            policy=state.position,
            value=jnp.append(jnp.sin(state.position), state.position[0]),
        )


VECTOR_ENV = AutoReset(Walk(), ENVS)
STATISTICS = {
    "policy": Statistics(jnp.full(2, 0.5), jnp.full(2, 4.0), jnp.float32(9)),
    "value": Statistics(jnp.full(3, -0.5), jnp.full(3, 0.25), jnp.float32(9)),
    "returns": Statistics(jnp.float32(3.0), jnp.float32(4.0), jnp.float32(9)),
}


def make_agent(memory):
    config = NetworkConfig(memory, memory, hidden=8, memory=6)
    networks = make_networks(config, (2, 3))
    parameters = {}
    for index, name in enumerate(("policy", "value")):
        network = getattr(networks, name)
        carry, inputs = network.initial_carry(), STATISTICS[name].mean[None]
        initial = network.init(jax.random.key(0), carry, inputs, jnp.zeros(1, bool))
        # Far from initial, so that the policy is not uniform and memory matters.
        parameters[name] = jax.tree.map(
            lambda x, i=index: x + 0.7 * jax.random.normal(jax.random.key(i), x.shape),
            initial,
        )
    return Agent(networks, parameters, STATISTICS)


class Run:
    """A second call of ``collect``, so that it begins in the middle of episodes."""

    def __init__(self, memory):
        self.agent = make_agent(memory)
        collect = jax.jit(
            functools.partial(rollout.collect, VECTOR_ENV, self.agent),
            static_argnums=(1, 2),
        )
        start = rollout.start(VECTOR_ENV, self.agent, jax.random.key(1))
        self.start, (self.actors, self.warm_up, _) = start, collect(start, 3, 5)
        self.after, self.experience, self.metrics = collect(self.actors, CHUNKS, CHUNK)
        in_time = jax.tree.map(
            lambda x: x.reshape(CHUNKS * CHUNK, *x.shape[2:]),
            self.experience.transitions,
        )
        self.steps = jax.tree.map(np.asarray, in_time)
        self.ended = self.steps.terminated | self.steps.truncated


@pytest.fixture(scope="module", params=["lstm", "none"])
def run(request):
    return Run(request.param)


def outputs(agent, name, carry, observations, first):
    """A network applied to a sequence, with normalization written out."""
    network = getattr(agent.networks, name)
    statistics = STATISTICS[name]
    inputs = (observations - statistics.mean) / jnp.sqrt(statistics.variance)
    inputs = jnp.clip(inputs, -5, 5)
    return network.apply(agent.parameters[name], carry, inputs, first)


def in_units_of_reward(normalized):
    return 2.0 * np.asarray(normalized) + 3.0


def test_episodes_end_in_both_ways_inside_chunks(run):
    inside = np.s_[:, : CHUNK - 1]
    transitions = run.experience.transitions
    assert np.asarray(transitions.terminated)[inside].any()
    assert np.asarray(transitions.truncated)[inside].any()


def test_first_marks_the_step_after_an_end(run):
    assert run.start.first.all()
    np.testing.assert_array_equal(run.warm_up.transitions.first[0, 0], True)
    np.testing.assert_array_equal(run.steps.first[1:], run.ended[:-1])
    np.testing.assert_array_equal(run.steps.first[0], run.actors.first)
    np.testing.assert_array_equal(run.after.first, run.ended[-1])


def test_replaying_a_chunk_gives_the_stored_log_probs_and_values(run):
    policy, value = (
        jax.jit(jax.vmap(functools.partial(outputs, run.agent, name)))
        for name in ("policy", "value")
    )
    for chunk in range(CHUNKS):
        of_chunk = jax.tree.map(lambda x, c=chunk: x[c], run.experience)
        # One sequence for each environment.
        t = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), of_chunk.transitions)
        _, logits = policy(of_chunk.policy_carry, t.observation.policy, t.first)
        log_probs = np.log(np.asarray(jax.nn.softmax(logits)))
        taken = np.take_along_axis(log_probs, np.asarray(t.action)[..., None], -1)
        np.testing.assert_allclose(t.log_prob, taken[..., 0].sum(-1), **CLOSE)
        _, values = value(of_chunk.value_carry, t.observation.value, t.first)
        np.testing.assert_allclose(t.value, in_units_of_reward(values), **CLOSE)


def test_next_value_is_the_value_of_the_next_step_inside_an_episode(run):
    goes_on = ~run.ended[:-1]
    np.testing.assert_allclose(
        run.steps.next_value[:-1][goes_on], run.steps.value[1:][goes_on], **CLOSE
    )
    # Elsewhere it is not: that step belongs to another episode.
    elsewhere = run.steps.next_value[:-1] - run.steps.value[1:]
    assert np.abs(elsewhere[~goes_on]).min() > 1e-3


def test_next_values_are_of_what_followed_before_any_reset(run):
    """Every step again with its own action, memories carried by plain Python."""
    vector_step = jax.jit(VECTOR_ENV.step)
    value = jax.jit(functools.partial(outputs, run.agent, "value"))
    env_state, no_first = run.actors.env_state, jnp.zeros(1, bool)
    empty = run.agent.networks.value.initial_carry()
    carries = [
        jax.tree.map(lambda x, e=env: x[e], run.actors.value_carry)
        for env in range(ENVS)
    ]
    for t in range(CHUNKS * CHUNK):
        env_state, time_step = vector_step(env_state, jnp.array(run.steps.action[t]))
        for env in range(ENVS):
            carry = empty if run.steps.first[t, env] else carries[env]
            now = run.steps.observation.value[t, env][None]
            carries[env], _ = value(carry, now, no_first)
            last = time_step.last_observation.value[env][None]
            _, followed = value(carries[env], last, no_first)
            expected = in_units_of_reward(followed[0])
            if run.steps.terminated[t, env]:
                expected = 0.0
            np.testing.assert_allclose(run.steps.next_value[t, env], expected, **CLOSE)


def test_episodes_are_truncated_wherever_it_matters(run):
    """What the test above must have seen."""
    truncated = np.asarray(run.experience.transitions.truncated)
    assert truncated[:-1, -1].any()  # at the end of a chunk that is not the last
    assert truncated[-1, -1].any()  # at the end of the horizon
    assert not run.ended[-1].all()
    at_once = truncated.sum(-1)
    assert at_once.min() == 0
    # More than one block of environments.
    assert at_once.max() > -(-ENVS // rollout.BLOCKS)


def test_metrics_are_summed_over_worlds_and_steps(run):
    assert run.metrics["episodes"] == run.ended.sum() > 0
    np.testing.assert_allclose(
        run.metrics["reward"], run.steps.reward.sum(), rtol=1e-5, atol=1e-4
    )


def test_chunks_follow_one_another_without_a_gap(run):
    collect = jax.jit(
        functools.partial(rollout.collect, VECTOR_ENV, run.agent),
        static_argnums=(1, 2),
    )
    after, one_chunk, _ = collect(run.actors, 1, CHUNKS * CHUNK)
    one_chunk = jax.tree.map(lambda x: x[0], one_chunk.transitions)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **CLOSE), one_chunk, run.steps
    )
    np.testing.assert_array_equal(
        jax.random.key_data(after.key), jax.random.key_data(run.after.key)
    )
