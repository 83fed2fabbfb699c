"""Measuring what the layers of training cost; ``bench`` is the command."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from mujoco.batch import Batch

from mjx_dex.config import Config, replace
from mjx_dex.hand import build_hand
from mjx_dex.learning import Trainer, rollout
from mjx_dex.physics import make_engine
from mjx_dex.physics.contacts import measure_contacts
from mjx_dex.physics.engine import captured_graphs
from mjx_dex.physics.native import available_cores
from mjx_dex.task import BankedEnvironments, HandEnv, actions, make_env

Engine = Literal["native", "mjx", "warp"]
Layer = Literal["bare", "physics", "stepping", "task", "policy", "training"]
LAYERS: dict[Layer, str] = {
    "bare": (
        "mujoco.batch.Batch stepped from NumPy, the same states and targets, nominal "
        "models"
    ),
    "physics": "the engine alone",
    "stepping": "+ actions, reward, observations, randomization",
    "task": "+ resets, and worlds that start episodes",
    "policy": "+ both networks",
    "training": "+ advantages and optimization: the whole iteration",
}
"""What is inside the timer, each layer with those above it."""

SECONDS_PER_YEAR = 365.25 * 24 * 3600
FEW = 512
"""Worlds that are started; more are copies of them."""
ENOUGH_SECONDS = 5.0
"""A row is not timed again once it has been timed for so long."""

HEADER = (
    f"{'engine':7} {'menu':6} {'layer':9} {'worlds':>7} {'env steps/s':>12} "
    f"{'physics/s':>12} {'years/hour':>10} {'MiB':>8} {'compile s':>9}"
)


@dataclass(frozen=True)
class Row:
    """One measurement."""

    engine: str
    device: str
    menu: str
    layer: str
    worlds: int
    substeps: int
    iterations: int
    """Newton iterations at most."""
    runs: int
    """Of which the median is given."""
    env_steps_per_second: float
    physics_steps_per_second: float
    years_per_hour: float
    """Simulated years in an hour: the paper's cluster made 2."""
    memory_bytes: int
    """Of the compiled program with its arguments, as XLA plans it. The C engine's own
    memory is not in it."""
    compile_seconds: float
    captures: int
    """CUDA graphs that warp captured while it was timed, after a first run."""

    def __str__(self):
        return (
            f"{self.engine:7} {self.menu:6} {self.layer:9} {self.worlds:7,} "
            f"{self.env_steps_per_second:12,.0f} "
            f"{self.physics_steps_per_second:12,.0f} "
            f"{self.years_per_hour:10.3f} {self.memory_bytes / 2**20:8,.0f} "
            f"{self.compile_seconds:9.1f}"
        )


class Timed(NamedTuple):
    """Runs of one program."""

    seconds: list[float]
    captures: int
    """See ``Row``."""


def with_worlds(config: Config, engine: str, envs: int, menu: str) -> Config:
    """The same training on an engine, with another number of worlds.

    Bank and minibatches grow and shrink along, so that every part keeps its share.
    """
    share = envs / config.num_envs
    size = config.ppo.minibatch_size // config.ppo.chunk
    return replace(
        config,
        **{
            "engine": engine,
            "randomization.preset": menu,
            "num_envs": envs,
            "bank.size": max(1, round(share * config.bank.size)),
            "bank.starting": max(1, round(share * config.bank.starting)),
            "ppo.minibatch_size": max(1, round(share * size)) * config.ppo.chunk,
        },
    )


def measure(
    config: Config, layers: tuple[Layer, ...], repeats: int, deadline: float
) -> Iterator[Row]:
    """Rows of one configuration, inner layers first, on the same worlds.

    Args:
        config: of worlds and training; its engine is measured.
        layers: which rows.
        repeats: timed runs of each, at most.
        deadline: by ``time.monotonic()``; no row is begun after it.
    """
    hand = build_hand(config.hand, config.object, config.physics)
    engine = make_engine(config.engine, hand, config.physics)
    env = HandEnv(hand, engine, config)
    worlds = BankedEnvironments(env, config.num_envs, config.bank)
    trainer = _trainer(worlds, config)
    learner, inputs = _started(config)
    actors = jax.tree.map(lambda x: x[0], learner.actors)
    agent, horizon = trainer.agent(learner), config.ppo.horizon

    def run_engine(inputs):
        return jax.lax.map(lambda arguments: jax.vmap(engine.step)(*arguments), inputs)

    def act_randomly(state, key, step):
        def act(state, key):
            coordinates, bins = worlds.action_shape
            shape = config.num_envs, coordinates
            action = actions.random_action(key, shape, bins)
            return step(state, action)[0], None

        return jax.lax.scan(act, state, jax.random.split(key, horizon))[0]

    def act_by_policy(actors):
        return rollout.collect(worlds, agent, actors, 1, horizon)[0]

    key, env_step = jax.random.key(1), jax.vmap(env.step)
    programs = {
        "physics": (run_engine, (inputs,)),
        "stepping": (
            partial(act_randomly, step=env_step),
            (actors.env_state.worlds, key),
        ),
        "task": (partial(act_randomly, step=worlds.step), (actors.env_state, key)),
        "policy": (act_by_policy, (actors,)),
    }
    row = partial(_row, config)
    if config.engine == "native" and "bare" in layers:
        threads = config.physics.threads or available_cores()
        batch = Batch(hand.model, config.num_envs, threads)
        step_bare = partial(_step_bare, batch, inputs, config.physics.substeps)
        yield row("bare", _timed(step_bare, repeats))
    for layer in layers:
        if layer in programs and time.monotonic() < deadline:
            function, arguments = programs[layer]
            with jax.default_matmul_precision("float32"):
                program, seconds = _compile(jax.jit(function), *arguments)
            timed = _timed(partial(program, *arguments), repeats)
            yield row(layer, timed, program, seconds)
    if "training" in layers and time.monotonic() < deadline:
        program, seconds = _compile(trainer._iterate, learner)
        timed = _timed_training(program, learner, repeats)
        yield row("training", timed, program, seconds)


def memory_line(
    first: tuple[int, float], second: tuple[int, float]
) -> tuple[float, float]:
    """Fixed and per-world memory [bytes], from two (worlds, bytes)."""
    (few, small), (many, large) = first, second
    each = (large - small) / (many - few)
    return small - few * each, each


def training_memory(config: Config) -> int:
    """Memory that a training iteration is planned to need [bytes]; nothing is run."""
    worlds = BankedEnvironments(make_env(config), config.num_envs, config.bank)
    trainer = _trainer(worlds, config)
    learner = jax.eval_shape(trainer.init, jax.random.key(0))
    return _memory(trainer._iterate.lower(learner).compile())


def _trainer(worlds: BankedEnvironments, config: Config) -> Trainer:
    return Trainer(worlds, config.network, config.ppo, jax.local_devices()[:1])


def _started(config: Config):
    """A learner whose worlds have started, and what they ask of physics.

    They start on the C engine, whichever is measured, for the others would compile for
    minutes; and not more than ``FEW``: beyond that all are copies of these.

    Returns:
        The learner and the arguments of ``Engine.step`` in one iteration, [horizon,
        num_envs, ...] each.
    """
    totals = config.num_envs, config.bank.size, config.bank.starting
    copies = math.gcd(max(config.num_envs // FEW, 1), *totals)
    names = ("num_envs", "bank.size", "bank.starting")
    few = {name: n // copies for name, n in zip(names, totals, strict=True)}
    unlimited = {"physics.max_contacts": None, "physics.max_constraints": None}
    learner, inputs = _start(replace(config, engine="native", **unlimited, **few))

    def copy(tree):
        """Along the worlds' axis, which comes after the device's or the time's."""
        return jax.tree.map(lambda x: jnp.concatenate([x] * copies, 1), tree)

    actors, bank = learner.actors, learner.actors.env_state
    bank = bank.replace(
        worlds=copy(bank.worlds), ready=copy(bank.ready), starting=copy(bank.starting)
    )
    actors = copy(actors.replace(env_state=None, key=None)).replace(
        env_state=bank, key=actors.key
    )
    return learner.replace(actors=actors), copy(inputs)


@functools.cache
def _start(config: Config):
    """See ``_started``: these worlds themselves."""
    env = make_env(config)
    worlds = BankedEnvironments(env, config.num_envs, config.bank)
    trainer = _trainer(worlds, config)
    learner = trainer.init(jax.random.key(config.seed))
    agent = trainer.agent(learner)

    def step(actors, _):
        before = actors.env_state.worlds
        actors, experience, _ = rollout.collect(worlds, agent, actors, 1, 1)
        action = experience.transitions.action[0, 0]
        return actors, jax.vmap(env.ask)(before, action)[0]

    actors = jax.tree.map(lambda x: x[0], learner.actors)
    record = jax.jit(
        lambda actors: jax.lax.scan(step, actors, length=config.ppo.horizon)[1]
    )
    inputs = record(actors)
    physics = inputs[1]
    qpos, qvel = (
        np.asarray(x).reshape(-1, x.shape[-1]) for x in (physics.qpos, physics.qvel)
    )
    model = build_hand(config.hand, config.object, config.physics).model
    print(
        f"{config.num_envs} worlds, {config.randomization.preset}: "
        f"{measure_contacts(model, qpos, qvel)}"
    )
    return learner, inputs


def _step_bare(batch: Batch, inputs, substeps: int) -> None:
    """The physics that ``inputs`` ask for, with nothing around MuJoCo's ``Batch``."""
    _, states, targets, *_ = inputs
    qpos, qvel, warmstart, ctrl = (
        np.asarray(x) for x in (states.qpos, states.qvel, states.warmstart, targets)
    )
    for k in range(len(ctrl)):
        batch.qpos, batch.qvel = qpos[k], qvel[k]
        batch.qacc_warmstart, batch.ctrl = warmstart[k], ctrl[k]
        batch.step(nstep=substeps)


def _row(
    config: Config, layer: Layer, timed: Timed, program=None, compiling=0.0
) -> Row:
    physics, device = config.physics, jax.devices()[0]
    pace = config.num_envs * config.ppo.horizon / statistics.median(timed.seconds)
    return Row(
        engine=config.engine,
        device=f"{device.platform} ({device.device_kind})",
        menu=config.randomization.preset,
        layer=layer,
        worlds=config.num_envs,
        substeps=physics.substeps,
        iterations=physics.iterations,
        runs=len(timed.seconds),
        env_steps_per_second=pace,
        physics_steps_per_second=pace * physics.substeps,
        years_per_hour=3600 * pace * physics.control_period / SECONDS_PER_YEAR,
        memory_bytes=_memory(program) if program else 0,
        compile_seconds=compiling,
        captures=timed.captures,
    )


def _compile(program: Callable, *arguments) -> tuple[Callable, float]:
    begun = time.perf_counter()
    compiled = program.lower(*arguments).compile()
    return compiled, time.perf_counter() - begun


def _memory(program) -> int:
    plan = program.memory_analysis()
    return (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes
    )


def _timed(call: Callable, repeats: int) -> Timed:
    """Run ``call`` so many times, after once that is not timed."""
    jax.block_until_ready(call())
    times, held = [], captured_graphs()
    while len(times) < repeats and sum(times) < ENOUGH_SECONDS:
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return Timed(times, len(captured_graphs() - held))


def _timed_training(program: Callable, learner, repeats: int) -> Timed:
    """Run whole iterations, each of which gives its buffers to the next."""
    learners = [jax.tree.map(jnp.copy, learner)]

    def iterate():
        learner, metrics = program(learners.pop())
        learners.append(learner)
        return learner.parameters, metrics

    return _timed(iterate, repeats)
