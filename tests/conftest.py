"""Fixtures that compile once for a whole session."""

import jax
import pytest

from mjx_dex.config import Config, replace
from mjx_dex.hand import Hand, build_hand
from mjx_dex.task import HandEnv, make_env


@pytest.fixture(scope="session")
def config() -> Config:
    """Small enough for a test, the paper's task otherwise."""
    return replace(
        Config(),
        **{
            "engine": "native",
            "num_envs": 4,
            "randomization.preset": "none",
            "bank.size": 4,
            "bank.starting": 2,
            "task.start_steps": 3,
            "physics.max_contacts": 24,
            "physics.max_constraints": 300,
            "network.hidden": 16,
            "network.memory": 8,
            "ppo.horizon": 4,
            "ppo.chunk": 2,
            "ppo.minibatch_size": 4,
            "ppo.minibatches": 4,
        },
    )


@pytest.fixture(scope="session")
def hand(config) -> Hand:
    return build_hand(config.hand, config.object, config.physics)


@pytest.fixture(scope="session")
def env(config) -> HandEnv:
    return make_env(config)


@pytest.fixture(scope="session")
def env_step(env):
    """``env.step``, compiled."""
    return jax.jit(env.step)


@pytest.fixture(scope="session")
def started(env):
    """A state just after reset."""
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    return state
