"""Measuring what the layers of training cost; ``bench`` is the command."""

import functools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from mujoco.batch import Batch

from mjx_dex.config import Config, replace
from mjx_dex.hand import Hand, build_hand
from mjx_dex.learning import Trainer, rollout
from mjx_dex.physics import make_engine
from mjx_dex.physics.contacts import measure_contacts
from mjx_dex.physics.native import available_cores, prepare
from mjx_dex.task import BankedEnvironments, HandEnv, actions, make_env

Engine = Literal["native", "mjx", "warp"]
Layer = Literal["stock", "bare", "physics", "stepping", "task", "policy", "training"]
LAYERS: dict[Layer, str] = {
    "stock": (
        "mujoco.batch.Batch stepped from NumPy, the same states and targets, nominal "
        "parameters; MuJoCo finds the contacts, its own solver settings"
    ),
    "bare": "the same on the model that the native engine prepares",
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
    f"{'engine':7} {'menu':6} {'precision':13} {'layer':9} {'envs':>7} "
    f"{'env steps/s':>12} "
    f"{'physics/s':>12} {'years/hour':>10} {'MiB':>8} {'compile s':>9}"
)


@dataclass(frozen=True)
class Row:
    """One measurement."""

    engine: str
    device: str
    menu: str
    precision: str
    """Of the networks' matrix products."""
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
    """Of the compiled program with its arguments, as XLA plans it. What the C engine
    and warp keep themselves is not in it."""
    compile_seconds: float
    warp: "WarpUse | None" = None
    """Of the warp engine alone."""
    first_finished: float | None = None
    """Seconds from the start of the process until the program had run once."""

    def __str__(self):
        return (
            f"{self.engine:7} {self.menu:6} {self.precision:13} {self.layer:9} "
            f"{self.worlds:7,} "
            f"{self.env_steps_per_second:12,.0f} "
            f"{self.physics_steps_per_second:12,.0f} "
            f"{self.years_per_hour:10.3f} {self.memory_bytes / 2**20:8,.0f} "
            f"{self.compile_seconds:9.1f}"
        )


@dataclass(frozen=True)
class WarpUse:
    """How a program used the warp engine, counted while it ran."""

    calls_per_step: float
    """Calls of the engine for each control step."""
    bytes_per_step: int
    """Bytes of an environment that are copied in and out at each call."""
    captures: int
    """CUDA graphs that were captured since the engine was made."""
    memory_per_environment: float
    """Bytes that the engine keeps for each environment."""

    def __str__(self):
        return (
            f"engine calls per control step {self.calls_per_step:.3g}, "
            f"{self.bytes_per_step:,} bytes of an environment cross at each; "
            f"{self.captures} CUDA graphs captured so far; "
            f"{self.memory_per_environment / 2**10:,.0f} KiB kept per environment"
        )


class Timed(NamedTuple):
    """Runs of one program."""

    seconds: list[float]
    calls: int = 0
    """Calls of the warp engine in all of them."""
    first_finished: float | None = None
    """See ``Row``."""


def with_worlds(config: Config, engine: str, envs: int, menu: str) -> Config:
    """The same training on an engine, with another number of worlds.

    Bank and minibatches grow and shrink along, so that every part keeps its share.
    """
    share = envs / config.num_envs
    size = config.minibatch_size // config.ppo.chunk
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
    row = partial(_row, config, engine)
    batches = _batches(config, hand, layers)
    if batches:
        timed = _timed_in_turns(batches, inputs, config.physics.substeps, repeats)
        for layer, seconds in timed.items():
            yield row(layer, Timed(seconds))
    for layer in layers:
        if layer in programs and time.monotonic() < deadline:
            function, arguments = programs[layer]
            with jax.default_matmul_precision("float32"):
                program, seconds = _compile(jax.jit(function), *arguments)
            timed = _timed(partial(program, *arguments), repeats, engine)
            yield row(layer, timed, program, seconds)
    if "training" in layers and time.monotonic() < deadline:
        program, seconds = _compile(trainer._iterate, learner)
        timed = _timed_training(program, learner, repeats, engine)
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
    copies, totals = _copies(config), _totals(config)
    few = {name: n // copies for name, n in totals.items()}
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


def recorded_inputs(config: Config):
    """Engine inputs of one training iteration.

    Returns:
        [horizon, num_envs, ...] arguments of ``Engine.step``, and the number of
        original environments: those come first, and all others are copies of them.
    """
    return _started(config)[1], config.num_envs // _copies(config)


def _totals(config: Config) -> dict[str, int]:
    """Values of the configuration that count environments."""
    return {
        "num_envs": config.num_envs,
        "bank.size": config.bank.size,
        "bank.starting": config.bank.starting,
    }


def _copies(config: Config) -> int:
    """Environments in place of each original one, at most ``FEW`` being originals."""
    return math.gcd(max(config.num_envs // FEW, 1), *_totals(config).values())


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


def _batches(config: Config, hand: Hand, layers) -> dict[Layer, Batch]:
    """What the layers 'stock' and 'bare' step, as far as they are among ``layers``."""
    if config.engine != "native":
        return {}
    threads = config.physics.threads or available_cores()
    models = {"stock": hand.model, "bare": prepare(hand).model}
    return {
        layer: Batch(model, config.num_envs, threads)
        for layer, model in models.items()
        if layer in layers
    }


def _timed_in_turns(
    batches: dict[Layer, Batch], inputs, substeps: int, repeats: int
) -> dict[Layer, list[float]]:
    """The physics that ``inputs`` ask for, with nothing around MuJoCo's ``Batch``.

    The batches take turns after every control step, so that all of them meet what else
    the machine does.

    Returns:
        Of each batch, the seconds that each repetition took; the first step of all is
        not timed.
    """
    _, states, targets, *_ = jax.tree.map(np.asarray, inputs)

    def step(batch, k) -> float:
        begun = time.perf_counter()
        batch.qpos, batch.qvel = states.qpos[k], states.qvel[k]
        batch.qacc_warmstart, batch.ctrl = states.warmstart[k], targets[k]
        batch.step(nstep=substeps)
        return time.perf_counter() - begun

    for batch in batches.values():
        step(batch, 0)
    times, horizon = [], range(len(targets))
    while len(times) < repeats and np.sum(times) < ENOUGH_SECONDS * len(batches):
        turns = [[step(batch, k) for batch in batches.values()] for k in horizon]
        times.append(np.sum(turns, 0))
    return dict(zip(batches, np.transpose(times).tolist(), strict=True))


def _row(
    config: Config, engine, layer: Layer, timed: Timed, program=None, compiling=0.0
) -> Row:
    physics, device = config.physics, jax.devices()[0]
    pace = config.num_envs * config.ppo.horizon / statistics.median(timed.seconds)
    use = None
    if timed.calls:
        use = WarpUse(
            calls_per_step=timed.calls / (len(timed.seconds) * config.ppo.horizon),
            bytes_per_step=engine.batches.bytes_per_environment,
            captures=engine.batches.captures,
            memory_per_environment=engine.batches.memory_per_environment(),
        )
    return Row(
        engine=config.engine,
        device=f"{device.platform} ({device.device_kind})",
        menu=config.randomization.preset,
        precision=config.network.matmul_precision,
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
        warp=use,
        first_finished=timed.first_finished,
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


def _timed(call: Callable, repeats: int, engine) -> Timed:
    """Run ``call`` so many times, after once that is not timed."""
    jax.block_until_ready(call())
    finished = _process_seconds()
    times, before = [], _calls(engine)
    while len(times) < repeats and sum(times) < ENOUGH_SECONDS:
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return Timed(times, _calls(engine) - before, finished)


def _calls(engine) -> int:
    return engine.batches.calls if engine.name == "warp" else 0


def _process_seconds() -> float | None:
    """Time since this process started; None where there is no Linux to know it."""
    status = Path("/proc/self/stat")
    if not status.exists():
        return None
    # Field 22, in ticks since the machine started; field 2 may hold anything.
    ticks = int(status.read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    started = ticks / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _timed_training(program: Callable, learner, repeats: int, engine) -> Timed:
    """Run whole iterations, each of which gives its buffers to the next."""
    learners = [jax.tree.map(jnp.copy, learner)]

    def iterate():
        learner, metrics = program(learners.pop())
        learners.append(learner)
        return learner.parameters, metrics

    return _timed(iterate, repeats, engine)
