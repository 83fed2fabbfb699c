"""Rewards and observations that are infinite or NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mjx_dex.config import NetworkConfig, PPOConfig
from mjx_dex.learning import AutoReset, NonFiniteError, Trainer, rollout
from mjx_dex.types import Observation, TimeStep

ENVS, LENGTH, FAULT, EPISODES = 6, 4, 1, 3
"""Episodes of ``LENGTH`` steps; what follows the action of step ``FAULT`` is faulty."""
NETWORK = NetworkConfig(hidden=8, memory=8)


def ppo(nonfinite="stop"):
    return PPOConfig(
        horizon=EPISODES * LENGTH,
        chunk=6,
        minibatch_size=36,
        minibatches=4,
        learning_rate=1e-2,
        nonfinite=nonfinite,
    )


@struct.dataclass
class State:
    step: jax.Array
    walk: jax.Array
    key: jax.Array


class Walk:
    """A random walk whose reward is where it is; ``reward`` and ``seen`` break it."""

    action_shape = (1, 3)

    def __init__(self, reward=None, seen=None, truncates=False):
        self.reward, self.seen, self.truncates = reward, seen, truncates

    def reset(self, key):
        state = State(jnp.zeros((), jnp.int32), jnp.zeros(()), key)
        return state, self._see(state, False)

    def step(self, state, action):
        key, walk_key = jax.random.split(state.key)
        walk = state.walk + action[0] - 1 + jax.random.normal(walk_key)
        is_faulty = state.step == FAULT
        reward = (
            walk if self.reward is None else jnp.where(is_faulty, self.reward, walk)
        )
        state = State(state.step + 1, walk, key)
        observation = self._see(state, is_faulty)
        ended = state.step == LENGTH
        return state, TimeStep(
            observation=observation,
            last_observation=observation,
            reward=reward,
            terminated=ended & (not self.truncates),
            truncated=ended & self.truncates,
            metrics={"episodes": ended},
        )

    def _see(self, state, is_faulty):
        seen = jnp.stack([state.walk, state.step.astype(jnp.float32)])
        if self.seen is not None:
            seen = jnp.where(is_faulty, jnp.array(self.seen, jnp.float32), seen)
        return Observation(policy=seen, value=seen)


class Mended(AutoReset):
    """Ends episodes at the fault for the learner alone; a broken reward is 0."""

    def step(self, state, actions):
        is_faulty = state[0].step == FAULT
        state, time_step = super().step(state, actions)
        reward = time_step.reward
        if self.env.reward is not None:
            reward = jnp.where(is_faulty, 0.0, reward)
        terminated = time_step.terminated | is_faulty
        return state, time_step.replace(reward=reward, terminated=terminated)


def trainer_of(vector_env, nonfinite="stop"):
    return Trainer(vector_env, NETWORK, ppo(nonfinite), devices=jax.devices()[:1])


def numbers(tree):
    def number(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(x) if is_key else x)

    return [number(x) for x in jax.tree.leaves(tree)]


def assert_equal(one, other):
    for x, y in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def sound():
    return trainer_of(AutoReset(Walk(), ENVS))


def learned(trainer, iterations=2):
    learner = trainer.init(jax.random.key(0))
    for _ in range(iterations):
        learner, metrics = trainer.iterate(learner)
    return learner, metrics


# Of every episode one transition has the reward, two have the observation between them.
FAULTS = [
    ({"reward": np.nan}, EPISODES * ENVS),
    ({"reward": np.inf}, EPISODES * ENVS),
    ({"seen": (0.0, np.nan)}, 2 * EPISODES * ENVS),
    ({"seen": (-np.inf, 0.0)}, 2 * EPISODES * ENVS),
]


@pytest.mark.parametrize(("fault", "count"), FAULTS)
def test_training_stops_with_the_learner_as_it_was(sound, fault, count):
    faulty = trainer_of(AutoReset(Walk(**fault), ENVS))
    before = numbers(learned(sound)[0])
    message = rf"{count} of the {12 * ENVS} transitions of iteration 3 .* skip"
    with pytest.raises(NonFiniteError, match=message) as raised:
        faulty.iterate(learned(sound)[0])
    assert "\n" not in str(raised.value)
    kept = raised.value.learner
    for x, y in zip(numbers(kept), before, strict=True):
        np.testing.assert_array_equal(x, y)
    # What is left can be trained on, as if nothing had been.
    assert_equal(sound.iterate(kept)[0], learned(sound, iterations=3)[0])


def test_skipping_a_reward_ends_the_episode_there_without_reward():
    env = Walk(reward=-np.inf)
    learner, metrics = learned(trainer_of(AutoReset(env, ENVS), "skip"))
    assert metrics["nonfinite"] == EPISODES * ENVS
    expected, metrics = learned(trainer_of(Mended(env, ENVS)))
    assert metrics["nonfinite"] == 0
    assert_equal(learner.parameters, expected.parameters)
    assert_equal(learner.statistics, expected.statistics)


def test_skipping_an_observation_ends_the_episode_and_shows_the_mean():
    """Statistics are empty in the first iteration, whose mean is 0."""
    faulty = AutoReset(Walk(seen=(np.nan, np.inf)), ENVS)
    learner, metrics = learned(trainer_of(faulty, "skip"), iterations=1)
    assert metrics["nonfinite"] == 2 * EPISODES * ENVS
    reference = trainer_of(Mended(Walk(seen=(0.0, 0.0)), ENVS))
    expected, _ = learned(reference, iterations=1)
    assert_equal(learner.parameters, expected.parameters)
    assert_equal(learner.statistics, expected.statistics)


def test_the_mean_is_shown_in_place_of_what_is_not_finite_and_nothing_else():
    trainer = trainer_of(AutoReset(Walk(seen=(7.0, np.nan)), ENVS), "skip")
    learner, _ = learned(trainer)
    mean = np.array(learner.statistics["policy"].mean)
    assert abs(mean[1]) > 0.1
    actors = jax.tree.map(lambda x: x[0], learner.actors)
    collect = jax.jit(
        lambda actors: rollout.collect(
            trainer.vector_env, trainer.agent(learner), actors, 2, 6
        )
    )
    _, experience, _ = collect(actors)
    transitions = jax.tree.map(np.asarray, experience.transitions)
    for leaf in jax.tree.leaves((transitions, experience.policy_carry)):
        assert np.isfinite(leaf).all()
    seen = transitions.observation.policy.reshape(12, ENVS, 2)
    expected = np.broadcast_to([7.0, mean[1]], (EPISODES, ENVS, 2))
    np.testing.assert_array_equal(seen[FAULT + 1 :: LENGTH], expected)
    ended = transitions.terminated.reshape(12, ENVS)
    first = transitions.first.reshape(12, ENVS)
    for step in range(12):
        # After the fault for the learner, after the last step for both.
        assert (ended[step] == (step % LENGTH in (FAULT, LENGTH - 1))).all()
        assert (first[step] == (step % LENGTH in (0, FAULT + 1))).all()
    np.testing.assert_array_equal(transitions.next_value[transitions.terminated], 0)


def test_what_a_terminated_episode_shows_last_may_be_anything(sound):
    class Last(Walk):
        def step(self, state, action):
            state, time_step = super().step(state, action)
            last = jax.tree.map(
                lambda x: jnp.where(time_step.terminated, jnp.nan, x),
                time_step.last_observation,
            )
            return state, time_step.replace(last_observation=last)

    learner, metrics = learned(trainer_of(AutoReset(Last(), ENVS)))
    assert metrics["nonfinite"] == 0
    assert_equal(learner.parameters, learned(sound)[0].parameters)
    cut = trainer_of(AutoReset(Last(truncates=True), ENVS))
    assert learned(cut)[1]["nonfinite"] == 0


def test_a_truncated_episode_is_not_continued_into_what_is_not_finite():
    class Last(Walk):
        def step(self, state, action):
            state, time_step = super().step(state, action)
            last = jax.tree.map(
                lambda x: jnp.where(time_step.truncated, jnp.inf, x),
                time_step.last_observation,
            )
            return state, time_step.replace(last_observation=last)

    cut = AutoReset(Last(truncates=True), ENVS)
    with pytest.raises(NonFiniteError, match=f"{EPISODES * ENVS} of the"):
        learned(trainer_of(cut), iterations=1)
    learner, metrics = learned(trainer_of(cut, "skip"))
    assert metrics["nonfinite"] == EPISODES * ENVS
    terminated = learned(trainer_of(AutoReset(Walk(), ENVS)))[0]
    assert_equal(learner.parameters, terminated.parameters)


def test_what_is_sound_is_learned_alike_with_either_option(sound):
    skipping = trainer_of(AutoReset(Walk(), ENVS), "skip")
    (one, metrics), (other, _) = learned(sound), learned(skipping)
    assert metrics["nonfinite"] == 0
    for x, y in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
