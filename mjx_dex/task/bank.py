"""Many environments that restart from a bank of started episodes.

The paper begins every episode with 100 random actions. Doing that inside a training
step would stall all worlds for one, and caching a first state (as peers do) would make
all episodes alike. Here a few extra worlds do nothing but start episodes, in the same
call of the engine as the training worlds; each one that gets through its random actions
replaces the oldest episode of the bank, and worlds whose episode ended take one at
random.
"""

import jax
import jax.numpy as jnp
from flax import struct

from mjx_dex import trees
from mjx_dex.config import BankConfig
from mjx_dex.randomization import AdaptiveState
from mjx_dex.task.env import HandEnv
from mjx_dex.types import EnvState, Observation, TimeStep

PATIENCE = 30
"""Filling the bank is given up after so many times the random actions of a start."""

BLOCKS = 16
"""Parts of the batch in which environments begin episodes."""


@struct.dataclass
class Progress:
    """What outlives environments that are started anew."""

    goal_angle_limits: jax.Array
    """[num_envs] each environment's largest turn to a 'near' goal [rad]: the
    curriculum."""
    adaptive: AdaptiveState
    """Bounds of adaptive randomization; counts are of all devices."""


@struct.dataclass
class BankState:
    """All worlds of one device."""

    worlds: EnvState
    """[num_envs] the ones that are trained on."""
    ready: EnvState
    """[bank.size] started episodes, to be dealt."""
    starting: EnvState
    """[bank.starting] worlds that are starting episodes."""
    adaptive: AdaptiveState
    """Bounds of adaptive randomization."""
    stored: jax.Array
    """[] int32: episodes put into the bank so far; modulo its size, the oldest one."""
    key: jax.Array


class BankedEnvironments:
    """``num_envs`` hand environments with automatic reset (a ``VectorEnvironment``)."""

    def __init__(self, env: HandEnv, num_envs: int, config: BankConfig):
        self.env = env
        self.num_envs = num_envs
        self._size, self._num_starting = config.size, config.starting
        self._block = -(-num_envs // BLOCKS)
        self._patience = PATIENCE * max(env.start_steps, 1)

    @property
    def action_shape(self) -> tuple[int, int | None]:
        """See ``HandEnv.action_shape``."""
        return self.env.action_shape

    def reset(
        self, key: jax.Array, progress: Progress | None = None
    ) -> tuple[BankState, Observation]:
        """Fill the bank, then deal an episode to every environment.

        Args:
            key: random key.
            progress: curriculum and bounds to continue with; None to begin with.
        """
        key, begin_key, deal_key = jax.random.split(key, 3)
        if progress is None:
            progress = self._first_progress()
        adaptive = progress.adaptive
        begin_keys = jax.random.split(begin_key, self._size)
        starting = jax.vmap(self.env.begin, (0, None))(begin_keys, adaptive)
        ready, stored = starting, jnp.zeros((), jnp.int32)

        def is_filling(carry):
            _, _, stored, steps = carry
            return (stored < self._size) & (steps < self._patience)

        def fill(carry):
            ready, starting, stored, steps = carry
            actions = jax.vmap(self.env.random_action)(starting)
            moved, _ = jax.vmap(self.env.act)(starting, actions)
            return *self._store(ready, moved, stored, adaptive), steps + 1

        ready, starting, stored, _ = jax.lax.while_loop(
            is_filling, fill, (ready, starting, stored, 0)
        )
        everyone = jnp.arange(self.num_envs) % self._size
        worlds = jax.tree.map(lambda x: x[everyone], ready)
        worlds = worlds.replace(goal_angle_limit=progress.goal_angle_limits)
        ended = jnp.ones(self.num_envs, bool)
        worlds = self._deal(worlds, ended, ready, deal_key, adaptive)
        worlds, observation = jax.vmap(self.env.observe)(worlds)
        starting = jax.tree.map(lambda x: x[: self._num_starting], starting)
        state = BankState(worlds, ready, starting, adaptive, stored, key)
        return state, observation

    def _first_progress(self) -> Progress:
        limit = self.env.first_angle_limit
        return Progress(
            goal_angle_limits=jnp.full(self.num_envs, limit, jnp.float32),
            adaptive=self.env.adaptive.init(),
        )

    def check(self, state: BankState) -> None:
        """Raise ValueError if ``reset`` gave up before the bank was full."""
        stored = int(jnp.min(state.stored))
        if stored < self._size:
            raise ValueError(
                f"only {stored} of bank.size {self._size} episodes got through their "
                f"{self.env.start_steps} random actions; lower task.start_steps"
            )

    def step(self, state: BankState, actions: jax.Array) -> tuple[BankState, TimeStep]:
        """Step every world, and restart those whose episode ended.

        Args:
            state: before.
            actions: [num_envs, 20].

        Returns:
            The new state and [num_envs] time steps.
        """
        key, deal_key = jax.random.split(state.key)
        before = _concatenate(state.worlds, state.starting)
        random_actions = jax.vmap(self.env.random_action)(state.starting)
        moved, lost = jax.vmap(self.env.act)(
            before, jnp.concatenate([actions, random_actions])
        )
        moved_worlds, moved_starting = _split(moved, self.num_envs)

        worlds, time_step = jax.vmap(self.env.judge)(
            state.worlds, moved_worlds, lost[: self.num_envs]
        )
        ended = time_step.terminated | time_step.truncated
        adaptive, metrics = state.adaptive, time_step.metrics
        if self.env.adaptive.is_on:
            goals = metrics["episode_goals"]
            adaptive = self.env.adaptive.count(
                adaptive, state.worlds.probe, ended, goals
            )
            level = self.env.adaptive.mean_level(adaptive)
            metrics = metrics | {"randomization": jnp.full(self.num_envs, level)}
        worlds = self._deal(worlds, ended, state.ready, deal_key, adaptive)
        worlds, observation = jax.vmap(self.env.observe)(worlds)
        ready, starting, stored = self._store(
            state.ready, moved_starting, state.stored, adaptive
        )
        return (
            BankState(worlds, ready, starting, adaptive, stored, key),
            time_step.replace(observation=observation, metrics=metrics),
        )

    def synchronize(self, state: BankState, axis_name: str) -> BankState:
        """Move the bounds of adaptive randomization, on all devices alike."""
        if not self.env.adaptive.is_on:
            return state
        return state.replace(
            adaptive=self.env.adaptive.judge(state.adaptive, axis_name)
        )

    def progress(self, states: BankState) -> Progress:
        """See ``VectorEnvironment.progress``: curriculum and adaptive bounds."""
        adaptive = states.adaptive
        return Progress(
            goal_angle_limits=states.worlds.goal_angle_limit.reshape(-1),
            adaptive=AdaptiveState(
                levels=adaptive.levels[0],  # the same on all devices
                goals=adaptive.goals.sum(0),
                episodes=adaptive.episodes.sum(0),
            ),
        )

    def distribute_progress(self, progress: Progress, devices: int) -> Progress:
        """See ``VectorEnvironment.distribute_progress``.

        Another number of environments gets the same distribution of limits, every
        device its share of all quantiles.
        """
        limits, total = progress.goal_angle_limits, devices * self.num_envs
        if len(limits) != total:
            ranks = (jnp.arange(total) + 0.5) * len(limits) / total
            limits = jnp.sort(limits)[ranks.astype(jnp.int32)]
            limits = limits.reshape(self.num_envs, devices).T

        def on_first(counts):
            zeros = jnp.zeros((devices, *counts.shape), counts.dtype)
            return zeros.at[0].set(counts)

        adaptive = progress.adaptive
        return Progress(
            goal_angle_limits=limits.reshape(devices, self.num_envs),
            adaptive=AdaptiveState(
                levels=jnp.stack([adaptive.levels] * devices),
                goals=on_first(adaptive.goals),
                episodes=on_first(adaptive.episodes),
            ),
        )

    def _deal(
        self,
        worlds: EnvState,
        ended: jax.Array,
        ready: EnvState,
        key: jax.Array,
        adaptive: AdaptiveState,
    ) -> EnvState:
        """Begin an episode in every environment that ended, each of another start.

        Environments beyond the number of starts share: pose and object, nothing else.
        Physics is drawn for each episode, which takes long, and few end at a time: they
        are gathered in blocks, and the loop ends when none is left.

        Args:
            worlds: [num_envs] environments.
            ended: [num_envs] bool: those whose episode ended; others stay as they are.
            ready: [bank.size] starts.
            key: random key.
            adaptive: present bounds of randomization.
        """
        pick_key, episode_key = jax.random.split(key)
        order = jax.random.permutation(pick_key, self._size)
        picks = order[jnp.arange(self.num_envs) % self._size]
        keys = jax.random.split(episode_key, self.num_envs)

        def deal(state):
            waiting, worlds = state
            _, block = jax.lax.top_k(waiting.astype(jnp.float32), self._block)
            started = jax.tree.map(lambda x: x[picks[block]], ready)
            dealt = jax.vmap(self.env.deal, (0, 0, 0, None))(
                started, keys[block], worlds.goal_angle_limit[block], adaptive
            )
            # A slot beyond the end is out of bounds, so that mode="drop" skips it.
            slots = jnp.where(waiting[block], block, self.num_envs)
            worlds = jax.tree.map(
                lambda x, new: x.at[slots].set(new, mode="drop"), worlds, dealt
            )
            return waiting.at[block].set(False), worlds

        _, worlds = jax.lax.while_loop(
            lambda state: state[0].any(), deal, (ended, worlds)
        )
        return worlds

    def _store(
        self,
        ready: EnvState,
        moved: EnvState,
        stored: jax.Array,
        adaptive: AdaptiveState,
    ):
        """Move episodes that got started into the bank, and begin others for them."""
        lost = jax.vmap(self.env.is_lost)(moved)
        starting = moved.replace(episode_steps=moved.episode_steps + 1)
        started = ~lost & jax.vmap(self.env.is_started)(starting)
        slots = (stored + jnp.cumsum(started) - 1) % self._size
        # A slot beyond the end is out of bounds, so that mode="drop" skips it.
        slots = jnp.where(started, slots, self._size)
        ready = jax.tree.map(
            lambda bank, new: bank.at[slots].set(new, mode="drop"), ready, starting
        )
        keys = jax.vmap(lambda key: jax.random.split(key)[0])(starting.key)
        begun = jax.vmap(self.env.begin, (0, None))(keys, adaptive)
        starting = jax.vmap(trees.where)(lost | started, begun, starting)
        return ready, starting, stored + started.sum()


def _concatenate(first, second):
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def _split(tree, index: int):
    return (
        jax.tree.map(lambda x: x[:index], tree),
        jax.tree.map(lambda x: x[index:], tree),
    )
