"""A policy at play in many worlds at once: what evaluation and studies look at."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import struct

from mjx_dex.config import BankConfig, Config, replace
from mjx_dex.learning.agent import Agent
from mjx_dex.learning.networks import Carry
from mjx_dex.task import BankedEnvironments, make_env, with_buffers
from mjx_dex.task.bank import BankState
from mjx_dex.types import Observation, TimeStep


@struct.dataclass
class Playing:
    """Worlds and the policy's memory between two control steps."""

    state: BankState
    observation: Observation
    """[num_worlds, ...] what the policy acts on next."""
    carry: Carry
    """[num_worlds, units] its memory before that."""
    first: jax.Array
    """[num_worlds] bool: that observation begins an episode."""


class Play:
    """Steps ``num_worlds`` worlds by a policy; episodes follow one another.

    Args:
        config: of the worlds.
        agent: acts.
        num_worlds: played side by side.
        most_likely: act by the mode of the policy, not by a sample.
    """

    look: Callable[[Playing], Playing] = staticmethod(lambda playing: playing)
    """What changes the worlds' observations before the policy sees them."""

    def __init__(
        self, config: Config, agent: Agent, num_worlds: int, most_likely: bool = False
    ):
        if num_worlds < 1:
            raise ValueError(f"{num_worlds} worlds cannot be played; at least 1 can")
        self.config = with_buffers(fixed(config))
        self.env = make_env(self.config)
        self.num_worlds = num_worlds
        # Every environment has a start of its own.
        bank = BankConfig(size=num_worlds, starting=1)
        self._worlds = BankedEnvironments(self.env, num_worlds, bank)
        self._agent = agent
        self._most_likely = most_likely

    def start(self, key: jax.Array) -> Playing:
        """Begin an episode in each world, with an empty memory.

        Raises:
            ValueError: if hardly any episode gets through its random start.
        """
        playing = self._start(key)
        self._worlds.check(playing.state)
        return playing

    def step(self, playing: Playing, key: jax.Array) -> tuple[Playing, TimeStep]:
        """Act once in each world; those whose episode ends begin another."""
        return self._step(playing, key)

    def steps(self, key: jax.Array) -> Iterator[tuple[Playing, Playing, TimeStep]]:
        """Play on and on from a start: before each step, after it, what it brought."""
        playing, number = self.look(self.start(key)), 0
        while True:
            number += 1
            after, time_step = self.step(playing, jax.random.fold_in(key, number))
            after = self.look(after)
            yield playing, after, time_step
            playing = after

    @functools.cached_property
    def _start(self):
        empty = self._agent.networks.policy.initial_carry()

        def start(key):
            state, observation = self._worlds.reset(key)
            shape = self.num_worlds
            carry = jax.tree.map(lambda x: jnp.zeros((shape, *x.shape)), empty)
            return Playing(state, observation, carry, jnp.ones(shape, bool))

        return jax.jit(self._precise(start))

    @functools.cached_property
    def _step(self):
        actions = self._agent.networks.actions

        def step(playing, key):
            carry, outputs = jax.vmap(self._agent.act)(
                playing.carry, playing.observation.policy, playing.first
            )
            if self._most_likely:
                action = actions.mode(outputs)
            else:
                action = actions.sample(key, outputs)
            state, time_step = self._worlds.step(playing.state, action)
            first = time_step.terminated | time_step.truncated
            return Playing(state, time_step.observation, carry, first), time_step

        return jax.jit(self._precise(step))

    def _precise(self, function):
        """Environments in float32: a GPU would otherwise round more coarsely."""

        def precise(*arguments):
            with jax.default_matmul_precision("float32"):
                return function(*arguments)

        return precise


def fixed(config: Config) -> Config:
    """The same task for every episode: no curriculum of goals or randomization."""
    return replace(
        config,
        **{
            "task.goal.widening": 0.0,
            "task.goal.narrowing": 0.0,
            "randomization.adaptive.enabled": False,
        },
    )
