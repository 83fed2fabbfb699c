from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import (
    RIGHT_BINS,
    ConstantReward,
    DelayedReward,
    Endless,
    Memory,
    Mortal,
    RewardFromAction,
    RewardFromBoth,
    RewardFromNumber,
    RewardFromObservation,
)

from mjx_dex.config import NetworkConfig, PPOConfig
from mjx_dex.learning import AutoReset, Trainer
from mjx_dex.learning.checkpoints import Checkpoints

GAMMA = 0.5
LSTM = NetworkConfig(hidden=16, memory=16)
NO_MEMORY = replace(LSTM, policy_memory="none", value_memory="none")
PPO = PPOConfig(
    gamma=GAMMA,
    gae_lambda=0.9,
    learning_rate=3e-3,
    entropy=0.003,
    horizon=8,
    chunk=4,
    minibatch_size=64,  # of 32 environments x 8 steps
    minibatches=8,
)


def train(probe, network, iterations, **ppo):
    """Agent after so many iterations and mean reward per episode in the last ten."""
    trainer = Trainer(AutoReset(probe, 32), network, replace(PPO, **ppo))
    return train_by(trainer, iterations, seed=0)


def train_by(trainer, iterations, seed):
    """The same, by a trainer that may have compiled for another seed."""
    learner, history = trainer.init(jax.random.key(seed)), []
    for _ in range(iterations):
        learner, metrics = trainer.iterate(learner)
        history.append([float(metrics["reward"]), float(metrics["episodes"])])
    reward, episodes = np.sum(history[-10:], axis=0)
    return trainer.agent(learner), reward / episodes


def values(agent, episode):
    """What the value network says along an episode of observations."""
    value = jax.jit(agent.value)
    carry, answers = agent.networks.value.initial_carry(), []
    for step, observation in enumerate(episode):
        first = jnp.array(step == 0)
        carry, answer = value(carry, jnp.array(observation, jnp.float32), first)
        answers.append(float(answer))
    return np.array(answers)


def probabilities(agent, observation):
    """The policy at an episode's first step: [coordinates, bins]."""
    carry = agent.networks.policy.initial_carry()
    _, logits = agent.act(carry, jnp.array(observation, jnp.float32), jnp.array(True))
    return np.asarray(jax.nn.softmax(logits))


def test_learns_the_value_of_a_constant_reward():
    agent, _ = train(ConstantReward(), LSTM, iterations=40)
    np.testing.assert_allclose(values(agent, [[1.0]]), 1.0, atol=0.01)


def test_learns_values_that_depend_on_the_observation():
    agent, _ = train(RewardFromObservation(), LSTM, iterations=60)
    np.testing.assert_allclose(values(agent, [[+1.0]]), +1.0, atol=0.05)
    np.testing.assert_allclose(values(agent, [[-1.0]]), -1.0, atol=0.05)


@pytest.mark.parametrize("network", [LSTM, NO_MEMORY], ids=["lstm", "no memory"])
def test_discounts_a_delayed_reward(network):
    agent, _ = train(DelayedReward(), network, iterations=60)
    np.testing.assert_allclose(values(agent, [[0.0], [1.0]]), [GAMMA, 1.0], atol=0.05)


def test_learns_which_action_pays():
    agent, mean_reward = train(RewardFromAction(), NO_MEMORY, iterations=120)
    assert probabilities(agent, [0.0])[0, 1] > 0.95
    assert mean_reward > 0.95
    np.testing.assert_allclose(values(agent, [[0.0]]), 1.0, atol=0.1)


def test_learns_actions_that_depend_on_the_observation():
    agent, mean_reward = train(RewardFromBoth(), LSTM, iterations=80)
    for sign, bins in RIGHT_BINS.items():
        of_right_bins = probabilities(agent, [sign])[[0, 1], bins]
        np.testing.assert_array_less(0.95, of_right_bins)
    assert mean_reward > 0.9
    np.testing.assert_allclose(values(agent, [[+1.0]]), 1.0, atol=0.15)
    np.testing.assert_allclose(values(agent, [[-1.0]]), 1.0, atol=0.15)


@pytest.fixture(scope="module")
def number_trainer():
    return Trainer(AutoReset(RewardFromNumber(), 32), NO_MEMORY, PPO)


# Long after the best numbers are found: learning must not undo them, with any seed.
@pytest.mark.parametrize("seed", range(20))
def test_numbers_are_learned_from_what_is_seen(number_trainer, seed):
    agent, mean_reward = train_by(number_trainer, iterations=100, seed=seed)
    act, carry = jax.jit(agent.act), agent.networks.policy.initial_carry()
    for sign in (+1.0, -1.0):
        _, outputs = act(carry, jnp.array([sign]), jnp.array(True))
        number = agent.networks.actions.mode(outputs)
        np.testing.assert_allclose(number, [sign / 2], atol=0.1)
    # Without learning the spread of actions alone costs 1/3, and their mean 1/4.
    assert mean_reward > 0.9


# Chunks of six steps cut every other episode of four: memory must outlive a chunk. That
# is learned in 20 iterations (five seeds, three settings each). Long after, advantages
# are 0, normalization makes something of their noise, and it may be forgotten.
MEMORY_ITERATIONS = 40
MEMORY_PPO = {
    "horizon": 12,
    "chunk": 6,
    "minibatch_size": 96,
    "gamma": 0.9,
    "learning_rate": 1e-2,
}


def test_lstm_remembers_a_cue():
    _, mean_reward = train(Memory(), LSTM, MEMORY_ITERATIONS, **MEMORY_PPO)
    assert mean_reward > 0.9


def test_without_memory_a_cue_is_forgotten():
    network = replace(LSTM, policy_memory="none")
    _, mean_reward = train(Memory(), network, MEMORY_ITERATIONS, **MEMORY_PPO)
    # About 960 fair coins: a standard deviation of 0.03.
    assert abs(mean_reward) < 0.25


def test_truncation_is_bootstrapped_to_the_endless_value():
    agent, _ = train(Endless(), NO_MEMORY, iterations=100)
    expected = 1 / (1 - GAMMA)
    for observation in np.eye(Endless.length):
        np.testing.assert_allclose(values(agent, [observation]), expected, atol=0.05)


def test_termination_is_not_bootstrapped():
    agent, _ = train(Mortal(), NO_MEMORY, iterations=100)
    for step, observation in enumerate(np.eye(Mortal.length)):
        expected = sum(GAMMA**k for k in range(Mortal.length - step))
        np.testing.assert_allclose(values(agent, [observation]), expected, atol=0.05)


def test_a_learner_without_memory_is_saved_and_goes_on(tmp_path):
    """Files cannot hold the arrays of length 0 that no memory might be."""
    trainer = Trainer(AutoReset(ConstantReward(), 32), NO_MEMORY, PPO)
    key = jax.random.key(0)
    learner, _ = trainer.iterate(trainer.init(key))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trainer, learner)
    restored = checkpoints.restore(trainer)
    checkpoints.close()
    _, expected = trainer.iterate(learner)
    _, found = trainer.iterate(restored)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
