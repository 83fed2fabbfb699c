"""What an environment is to the learner, and automatic reset for simple ones."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mjx_dex import trees
from mjx_dex.types import Observation, TimeStep


class Environment(Protocol):
    """One environment as two pure functions."""

    action_shape: tuple[int, int | None]
    """Action coordinates, and bins of each; None where any number will do."""

    def reset(self, key: jax.Array) -> tuple[Any, Observation]:
        """Begin an episode."""

    def step(self, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        """Take one action [coordinates], int32 if in bins; do not reset."""


class VectorEnvironment(Protocol):
    """``num_envs`` environments that restart themselves."""

    num_envs: int
    action_shape: tuple[int, int | None]

    def reset(self, key: jax.Array, progress: Any = None) -> tuple[Any, Observation]:
        """Begin an episode in each; observations are [num_envs, ...].

        Args:
            key: random key.
            progress: where to continue, one device's part of ``distribute_progress``;
                None at the very beginning.
        """

    def step(self, state: Any, actions: jax.Array) -> tuple[Any, TimeStep]:
        """Take one action in each and restart those that ended.

        ``observation`` is what comes next, after any restart; ``last_observation`` is
        what came before it.
        """

    def synchronize(self, state: Any, axis_name: str) -> Any:
        """Agree with the other devices along ``axis_name`` on what all hold in common.

        Called once in an iteration.
        """

    def progress(self, states: Any) -> Any:
        """What outlives the environments, of [devices, ...] states: a curriculum.

        It is saved with what is learned, and must not depend on the number of devices.
        An empty dictionary if there is nothing.
        """

    def distribute_progress(self, progress: Any, devices: int) -> Any:
        """[devices, ...] what the environments of each device continue with."""


class AutoReset:
    """A ``VectorEnvironment`` that calls ``reset`` at every step: for cheap resets."""

    def __init__(self, env: Environment, num_envs: int):
        self.env, self.num_envs = env, num_envs
        self.action_shape = env.action_shape

    def reset(self, key, progress=None):
        """See ``VectorEnvironment.reset``."""
        key, *keys = jax.random.split(key, self.num_envs + 1)
        states, observation = jax.vmap(self.env.reset)(jnp.stack(keys))
        return (states, key), observation

    def step(self, state, actions):
        """See ``VectorEnvironment.step``."""
        states, key = state
        key, *keys = jax.random.split(key, self.num_envs + 1)
        states, time_step = jax.vmap(self.env.step)(states, actions)
        fresh = jax.vmap(self.env.reset)(jnp.stack(keys))
        ended = time_step.terminated | time_step.truncated
        states, observation = jax.vmap(trees.where)(
            ended, fresh, (states, time_step.observation)
        )
        return (states, key), time_step.replace(observation=observation)

    def synchronize(self, state, axis_name):
        """See ``VectorEnvironment.synchronize``: nothing is held in common."""
        return state

    def progress(self, states):
        """See ``VectorEnvironment.progress``: there is none."""
        return {}

    def distribute_progress(self, progress, devices):
        """See ``VectorEnvironment.distribute_progress``."""
        return {}
