"""One iteration of training: collect, estimate advantages, optimize."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mjx_dex import trees
from mjx_dex.config import NetworkConfig, PPOConfig
from mjx_dex.learning import ppo, rollout
from mjx_dex.learning.advantages import generalized_advantages
from mjx_dex.learning.agent import Agent, make_networks
from mjx_dex.learning.statistics import Statistics
from mjx_dex.learning.vector import VectorEnvironment

DEVICES = "devices"
"""Name of the axis over which training is data-parallel."""
PHASES = (*rollout.PHASES, "advantages", "optimization", "statistics")
"""Names of an iteration's parts in a compiled program and its profile."""


@struct.dataclass
class Learner:
    """All that training carries from one iteration to the next: what is saved."""

    parameters: dict[str, Any]
    """Of "policy" and "value", the same on every device."""
    optimizer_state: dict[str, Any]
    statistics: dict[str, Statistics]
    """Of "policy" and "value" observations and of "returns"."""
    learning_rate: jax.Array
    """[]."""
    iteration: jax.Array
    """[] int32."""
    key: jax.Array
    """The same on every device."""
    actors: rollout.Actors
    """[devices, ...] each device's own environments."""


@struct.dataclass
class Learned:
    """What a ``Learner`` has learned, without its environments: a portable checkpoint.

    It continues on any number of devices and environments; see ``resuming.resume``.
    """

    parameters: dict[str, Any]
    optimizer_state: dict[str, Any]
    statistics: dict[str, Statistics]
    learning_rate: jax.Array
    iteration: jax.Array
    progress: Any
    """See ``VectorEnvironment.progress``; all other fields are the ``Learner``'s."""


class NonFiniteError(FloatingPointError):
    """Rewards or observations of an iteration are infinite or NaN."""

    def __init__(self, message: str, learner: Learner):
        super().__init__(message)
        self.learner = learner
        """As it was before that iteration, its environments included."""


class Trainer:
    """Recurrent PPO on any ``VectorEnvironment``, data-parallel over ``devices``.

    Args:
        vector_env: the environments of ONE device.
        network: sizes and memories.
        ppo: hyperparameters.
        devices: all devices of all processes by default.
    """

    def __init__(
        self,
        vector_env: VectorEnvironment,
        network: NetworkConfig,
        ppo: PPOConfig,
        devices: list[jax.Device] | None = None,
    ):
        self.vector_env = vector_env
        self._networks = make_networks(network, vector_env.action_shape)
        self._mesh = Mesh(np.array(devices or jax.devices()), (DEVICES,))
        self._config = _share(ppo, vector_env.num_envs, self.num_devices)
        self._stops = ppo.nonfinite == "stop"
        self.adapts_learning_rate = ppo.kl_target is not None
        self.steps_per_iteration = vector_env.num_envs * ppo.horizon * self.num_devices

    def init(self, key: jax.Array, progress: Any = None) -> Learner:
        """A new learner, its environments started.

        Args:
            key: random key.
            progress: what the environments continue with, of ``Learned``; None at the
                very beginning.
        """
        return self._init(key, progress)

    def learned(self, learner: Learner) -> Learned:
        """All of a learner but its environments, the same on every device."""
        return Learned(
            parameters=learner.parameters,
            optimizer_state=learner.optimizer_state,
            statistics=learner.statistics,
            learning_rate=learner.learning_rate,
            iteration=learner.iteration,
            progress=self._progress(learner.actors.env_state),
        )

    def learned_like(self) -> Learned:
        """Shapes and types of ``learned``, with this trainer's environments."""
        learner = jax.eval_shape(self.init, jax.random.key(0))
        return jax.eval_shape(self.learned, learner)

    def iterate(self, learner: Learner) -> tuple[Learner, dict[str, jax.Array]]:
        """Run one iteration.

        Args:
            learner: is given up: its buffers are reused for the result.

        Returns:
            The next learner, and metrics by name: the environments' summed over
            the iteration, the optimizer's as ``ppo.optimize`` returns them.

        Raises:
            NonFiniteError: if rewards or observations are infinite or NaN, and
                ``ppo.nonfinite`` is 'stop'; it holds the learner as it was.
        """
        learner, metrics = self._iterate(learner)
        if self._stops and (count := int(metrics[rollout.NONFINITE])):
            iteration, steps = int(learner.iteration) + 1, self.steps_per_iteration
            raise NonFiniteError(
                f"{count} of the {steps} transitions of iteration {iteration} have "
                "rewards or observations that are infinite or NaN; nothing was learned "
                "from this iteration. Mend the environment, or skip such transitions: "
                "--ppo.nonfinite skip",
                learner,
            )
        return learner, metrics

    def lower(self, learner: Learner) -> jax.stages.Lowered:
        """What ``iterate`` runs, to be compiled and looked at."""
        return self._iterate.lower(learner)

    @property
    def num_devices(self) -> int:
        """Over which training is spread."""
        return self._mesh.devices.size

    def agent(self, learner: Learner) -> Agent:
        """The networks as they are now."""
        return Agent(self._networks, learner.parameters, learner.statistics)

    @functools.cached_property
    def _init(self):
        split = PartitionSpec(DEVICES)
        start = self._on_all_devices(self._start, (PartitionSpec(), split), split)

        def init(key, progress):
            key, actors_key, network_key = jax.random.split(key, 3)
            if progress is not None:
                progress = self.vector_env.distribute_progress(
                    progress, self.num_devices
                )
            actors = start(actors_key, progress)
            # One observation of the first device: the networks learn its size from it.
            sample = jax.tree.map(lambda x: x[0, :1], actors.observation)
            parameters = self._initial_parameters(network_key, sample)
            optimizer = ppo.make_optimizer(self._config)
            return Learner(
                parameters=parameters,
                optimizer_state={n: optimizer.init(p) for n, p in parameters.items()},
                statistics={
                    "policy": Statistics.empty(sample.policy.shape[1:]),
                    "value": Statistics.empty(sample.value.shape[1:]),
                    "returns": Statistics.empty(),
                },
                learning_rate=jnp.asarray(self._config.learning_rate, jnp.float32),
                iteration=jnp.zeros((), jnp.int32),
                key=key,
                actors=actors,
            )

        return self._jit(init, out_shardings=self.sharding)

    @functools.cached_property
    def _progress(self):
        return jax.jit(self.vector_env.progress, out_shardings=self.sharding.key)

    @functools.cached_property
    def _iterate(self):
        spec = self._learner_spec()
        iterate = self._on_all_devices(
            self._iterate_one_device, (spec,), (spec, PartitionSpec())
        )
        return self._jit(iterate, donate_argnums=0, out_shardings=(self.sharding, None))

    def _initial_parameters(self, key: jax.Array, sample) -> dict[str, Any]:
        policy, value, _ = self._networks
        policy_key, value_key = jax.random.split(key)
        first = jnp.ones(1, bool)
        return {
            "policy": policy.init(
                policy_key, policy.initial_carry(), sample.policy, first
            ),
            "value": value.init(value_key, value.initial_carry(), sample.value, first),
        }

    def _start(self, key: jax.Array, progress: Any) -> rollout.Actors:
        key = jax.random.fold_in(key, jax.lax.axis_index(DEVICES))
        agent = Agent(self._networks, {}, {})
        progress = jax.tree.map(lambda x: x[0], progress)  # this device's
        actors = rollout.start(self.vector_env, agent, key, progress)
        return jax.tree.map(lambda x: _strong(x)[None], actors)

    def _iterate_one_device(self, learner: Learner):
        config, before = self._config, learner
        actors = jax.tree.map(lambda x: x[0], learner.actors)
        actors, experience, env_metrics = rollout.collect(
            self.vector_env,
            self.agent(learner),
            actors,
            config.horizon // config.chunk,
            config.chunk,
        )
        env_state = self.vector_env.synchronize(actors.env_state, DEVICES)
        actors = actors.replace(env_state=env_state)
        learner = learner.replace(actors=jax.tree.map(lambda x: x[None], actors))
        learner, metrics = self._learn(learner, experience)
        metrics = jax.lax.psum(env_metrics, DEVICES) | metrics
        if self._stops:
            # All that was given: it can be saved, or iterated again to see why.
            is_finite = metrics[rollout.NONFINITE] == 0
            learner = trees.where(is_finite, learner, before)
        return learner, metrics

    def _learn(self, learner: Learner, experience: rollout.Experience):
        """Optimize on this device's share of an iteration's experience."""
        config = self._config
        key, order_key = jax.random.split(learner.key)
        with jax.named_scope("advantages"):
            chunks, returns = self._prepare(experience, learner.statistics)
        with jax.named_scope("optimization"):
            parameters, optimizer_state, metrics = ppo.optimize(
                learner.parameters,
                learner.optimizer_state,
                chunks,
                learner.learning_rate,
                jax.random.fold_in(order_key, jax.lax.axis_index(DEVICES)),
                self._networks,
                config,
                DEVICES,
            )
        transitions = experience.transitions
        with jax.named_scope("statistics"):
            statistics = _update_statistics(learner.statistics, transitions, returns)
        metrics |= _fit_metrics(transitions.value, returns)
        metrics["learning_rate"] = learner.learning_rate
        metrics["finite_parameters"] = trees.is_finite(parameters).astype(jnp.float32)
        return learner.replace(
            parameters=parameters,
            optimizer_state=optimizer_state,
            statistics=statistics,
            learning_rate=ppo.adapt_learning_rate(
                learner.learning_rate, metrics["kl"], config
            ),
            iteration=learner.iteration + 1,
            key=key,
        ), metrics

    def _prepare(
        self, experience: rollout.Experience, statistics: dict[str, Statistics]
    ) -> tuple[ppo.Chunk, jax.Array]:
        """Experience to chunks [chunks * num_envs, ...], and returns as collected.

        The statistics are those that acted: replaying must give the same outputs.
        """
        t = experience.transitions
        gae = functools.partial(
            generalized_advantages,
            gamma=self._config.gamma,
            gae_lambda=self._config.gae_lambda,
        )
        steps = (t.reward, t.value, t.next_value, t.terminated, t.truncated)
        in_time = [x.reshape(-1, x.shape[-1]) for x in steps]
        advantage = jax.vmap(gae, in_axes=1, out_axes=1)(*in_time)
        advantage = advantage.reshape(t.reward.shape)
        returns = advantage + t.value

        # [chunks, steps, envs, ...] -> [chunks * envs, steps, ...]
        def by_chunk(x):
            return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], *x.shape[3:])

        def carry_by_chunk(carry):
            return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), carry)

        chunks = ppo.Chunk(
            policy_carry=carry_by_chunk(experience.policy_carry),
            value_carry=carry_by_chunk(experience.value_carry),
            policy_input=by_chunk(
                statistics["policy"].normalize_clipped(t.observation.policy)
            ),
            value_input=by_chunk(
                statistics["value"].normalize_clipped(t.observation.value)
            ),
            first=by_chunk(t.first),
            action=by_chunk(t.action),
            log_prob=by_chunk(t.log_prob),
            advantage=by_chunk(advantage),
            value_target=by_chunk(statistics["returns"].normalize(returns)),
        )
        return chunks, returns

    def _learner_spec(self) -> Learner:
        """Which parts of the learner are split over devices (a prefix tree)."""
        shared, split = PartitionSpec(), PartitionSpec(DEVICES)
        names = Learner.__dataclass_fields__
        return Learner(**{n: split if n == "actors" else shared for n in names})

    def _on_all_devices(self, function, in_specs, out_specs):
        # check_vma: replication of the outputs is by construction (pmean, equal keys).
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            check_vma=False,
        )

    def _jit(self, function, **options):
        def precise(*args):
            # Of the environments: networks have a precision of their own.
            with jax.default_matmul_precision("float32"):
                return function(*args)

        return jax.jit(precise, **options)

    @property
    def sharding(self) -> Learner:
        """Where a learner's arrays live (a prefix tree), for restoring one."""
        return jax.tree.map(
            lambda spec: NamedSharding(self._mesh, spec),
            self._learner_spec(),
            is_leaf=lambda x: isinstance(x, PartitionSpec),
        )


def _share(config: PPOConfig, num_envs: int, devices: int) -> PPOConfig:
    """What each device does: its part of every minibatch.

    Args:
        config: over all devices.
        num_envs: environments of one device.
        devices: their number.

    Raises:
        SettingError: if an iteration's transitions do not make a minibatch.
    """
    size = config.minibatch(num_envs * config.horizon * devices, devices)
    return dataclasses.replace(config, minibatch_size=size // devices)


def _strong(x: jax.Array) -> jax.Array:
    """Without JAX's weak type, which would make the second iteration compile anew."""
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return x if is_key else jax.lax.convert_element_type(x, x.dtype)


def _update_statistics(statistics, transitions, returns) -> dict[str, Statistics]:
    def flat(x):
        return x.reshape(-1, *x.shape[3:])

    batches = {
        "policy": flat(transitions.observation.policy),
        "value": flat(transitions.observation.value),
        "returns": returns.reshape(-1),
    }
    return {
        name: statistics[name].update(batch, DEVICES) for name, batch in batches.items()
    }


def _fit_metrics(value: jax.Array, returns: jax.Array) -> dict[str, jax.Array]:
    """How well the value network, as it acted, explains the returns."""
    residual = jax.lax.pmean(jnp.square(returns - value).mean(), DEVICES)
    mean = jax.lax.pmean(returns.mean(), DEVICES)
    spread = jax.lax.pmean(jnp.square(returns - mean).mean(), DEVICES)
    return {
        "value_explained": 1 - residual / (spread + 1e-8),
        "mean_return": mean,
    }
