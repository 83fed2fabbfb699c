"""``python -m mjx_dex.bench``: what each layer of training costs, engine by engine.

One process measures everything in turn, so that the ratios in a table belong together;
absolute figures from another machine or another minute do not.
"""

import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import mujoco
import numpy as np
from mujoco.batch import Batch

from mjx_dex import settings
from mjx_dex.config import Config, Preset, replace
from mjx_dex.hand import Hand, build_hand
from mjx_dex.learning import Learner, Trainer, rollout
from mjx_dex.physics import make_engine
from mjx_dex.physics.contacts import measure_contacts
from mjx_dex.physics.native import available_cores
from mjx_dex.task import BankedEnvironments, HandEnv
from mjx_dex.train import set_up_process

LAYERS = {
    "bare": "mujoco.batch.Batch stepped from NumPy, the same states and targets",
    "physics": "the engine alone",
    "stepping": "+ actions, reward, observations",
    "task": "+ resets, and worlds that start episodes",
    "policy": "+ both networks",
    "training": "+ advantages and optimization: the whole iteration",
}


@dataclass(frozen=True)
class BenchCommand(Config):
    """Options of the command itself, beside the configuration's."""

    config: str = "quickstart"
    """Configuration whose worlds, networks and hyperparameters are measured."""
    engines: tuple[Literal["native", "mjx", "warp"], ...] = ("native", "mjx", "warp")
    """Engines to compare."""
    menus: tuple[Preset, ...] = ("none",)
    """Randomization presets to compare."""
    layers: tuple[
        Literal["bare", "physics", "stepping", "task", "policy", "training"], ...
    ] = (
        "bare",
        "physics",
        "stepping",
        "task",
        "policy",
        "training",
    )
    """Rows to measure of each engine; 'bare' is of native alone."""
    accelerated_envs: int = 32
    """Worlds on mjx and warp where JAX runs on a CPU, in place of num_envs, with a bank
    in proportion: there they are slow, and gain nothing from more."""
    repeats: int = 5
    """Timed runs of each row; the median is printed."""
    json: Path | None = None
    """Write the table to this file, too."""


@dataclass(frozen=True)
class Row:
    """One measurement."""

    engine: str
    menu: str
    layer: str
    worlds: int
    env_steps_per_second: float
    compile_seconds: float | None

    def __str__(self):
        compiled = f"{self.compile_seconds:9.1f}" if self.compile_seconds else " " * 9
        return (
            f"{self.engine:8} {self.menu:8} {self.layer:9} {self.worlds:7,}"
            f" {self.env_steps_per_second:12,.0f} {compiled}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    set_up_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        base = settings.load(
            settings.early_option(arguments, "--config") or "quickstart"
        )
        command = settings.from_command_line(
            BenchCommand, base, arguments, description=__doc__
        )
        rows = bench(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if command.json:
        command.json.write_text(json.dumps([dataclasses.asdict(r) for r in rows]))
    return 0


def bench(command: BenchCommand) -> list[Row]:
    """Measure and print every row."""
    config = settings.config_of(command)
    _print_machine(config)
    print(
        f"{'engine':8} {'menu':8} {'layer':9} {'worlds':>7} {'env steps/s':>12} "
        f"{'compile s':>9}"
    )
    rows = []
    for engine in command.engines:
        for menu in command.menus:
            engine_config = _worlds_of(engine, config, command.accelerated_envs)
            engine_config = replace(engine_config, **{"randomization.preset": menu})
            for row in measure_engine(engine_config, command.layers, command.repeats):
                print(row, flush=True)
                rows.append(row)
    _print_ratios(rows)
    for layer in command.layers:
        print(f"  {layer}: {LAYERS[layer]}")
    return rows


def _print_ratios(rows: list[Row]) -> None:
    """What rows of one run say together."""
    pace = {(r.engine, r.menu, r.layer): r.env_steps_per_second for r in rows}
    for (engine, menu, layer), training in pace.items():
        if layer != "training":
            continue
        where, row = f"{engine}, {menu}", (engine, menu)
        bare = pace.get((*row, "bare"))
        if bare:
            print(f"{where}: training / bare Batch stepping: {training / bare:.0%}")
        stepping, task = pace.get((*row, "stepping")), pace.get((*row, "task"))
        if stepping and task:
            share = training * (1 / task - 1 / stepping)
            print(f"{where}: resets take {share:.0%} of a training iteration")
        without = pace.get((engine, "none", layer))
        if without and menu != "none":
            print(f"{where}: training / training without: {training / without:.0%}")


def measure_engine(config: Config, layers: tuple[str, ...], repeats: int) -> list[Row]:
    """Rows of one engine, inner layers first, on the same worlds."""
    hand = build_hand(config.hand, config.object, config.physics)
    engine = make_engine(config.engine, hand, config.physics)
    env = HandEnv(hand, engine, config)
    worlds = BankedEnvironments(env, config.num_envs, config.bank)
    trainer = Trainer(worlds, config.network, config.ppo, jax.local_devices()[:1])
    learner = trainer.init(jax.random.key(config.seed))
    agent = trainer.agent(learner)
    actors = jax.tree.map(lambda x: x[0], learner.actors)
    horizon = config.ppo.horizon

    def act_by_policy(actors):
        return rollout.collect(worlds, agent, actors, 1, horizon)[0]

    def act_randomly(state, key, step):
        def act(state, key):
            shape = (config.num_envs, worlds.action_shape[0])
            action = jax.random.randint(key, shape, 0, worlds.action_shape[1])
            return step(state, action)[0], None

        return jax.lax.scan(act, state, jax.random.split(key, horizon))[0]

    def run_engine(inputs):
        step = jax.vmap(engine.step)
        return jax.lax.map(lambda arguments: step(*arguments), inputs)

    record = jax.jit(lambda actors: _record(worlds, agent, actors, horizon))
    inputs = record(actors)
    _print_contacts(config, hand, inputs)
    rows = []
    if config.engine == "native" and "bare" in layers:
        batch = Batch(
            hand.model, config.num_envs, config.physics.threads or available_cores()
        )
        step_bare = partial(_step_bare, batch, inputs, config.physics.substeps)
        bare = _median_time(step_bare, repeats)
        rows.append(_row(config, "bare", bare, None))
    key, env_step = jax.random.key(1), jax.vmap(env.step)
    for layer, function, arguments in (
        ("physics", run_engine, (inputs,)),
        (
            "stepping",
            partial(act_randomly, step=env_step),
            (actors.env_state.worlds, key),
        ),
        ("task", partial(act_randomly, step=worlds.step), (actors.env_state, key)),
        ("policy", act_by_policy, (actors,)),
    ):
        if layer in layers:
            compiled, compile_seconds = _compile(function, *arguments)
            seconds = _median_time(partial(compiled, *arguments), repeats)
            rows.append(_row(config, layer, seconds, compile_seconds))
    if "training" in layers:
        rows.append(_training_row(config, trainer, learner, repeats))
    return rows


def _record(worlds, agent, actors, horizon):
    """What the training worlds ask of the engine in one iteration.

    Returns:
        The arguments of ``Engine.step``, [horizon, num_envs, ...] each.
    """

    def step(actors, _):
        before = actors.env_state.worlds
        actors, experience, _ = rollout.collect(worlds, agent, actors, 1, 1)
        action = experience.transitions.action[0, 0]
        return actors, jax.vmap(worlds.env.ask)(before, action)[0]

    return jax.lax.scan(step, actors, length=horizon)[1]


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


def _print_contacts(config: Config, hand: Hand, inputs) -> None:
    physics = inputs[1]
    qpos, qvel = (
        np.asarray(x).reshape(-1, x.shape[-1]) for x in (physics.qpos, physics.qvel)
    )
    contacts = measure_contacts(hand.model, qpos, qvel)
    print(
        f"{config.engine}: {contacts} (buffers: {config.physics.max_contacts}, "
        f"{config.physics.max_constraints})"
    )


def _training_row(
    config: Config, trainer: Trainer, learner: Learner, repeats: int
) -> Row:
    """Whole iterations, one after another: each gives its buffers to the next."""
    begun = time.perf_counter()
    learner, metrics = trainer.iterate(learner)
    jax.block_until_ready(metrics)
    first = time.perf_counter() - begun
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        learner, metrics = trainer.iterate(learner)
        jax.block_until_ready((learner.parameters, metrics))
        times.append(time.perf_counter() - begun)
    seconds = statistics.median(times)
    return _row(config, "training", seconds, first - seconds)


def _row(config: Config, layer: str, seconds: float, compile_seconds) -> Row:
    env_steps = config.num_envs * config.ppo.horizon
    return Row(
        engine=config.engine,
        menu=config.randomization.preset,
        layer=layer,
        worlds=config.num_envs,
        env_steps_per_second=env_steps / seconds,
        compile_seconds=compile_seconds,
    )


def _compile(function: Callable, *arguments) -> tuple[Callable, float]:
    begun = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - begun


def _median_time(call: Callable, repeats: int) -> float:
    """Median seconds of ``call``, after one call that is not timed."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _worlds_of(engine: str, config: Config, accelerated_envs: int) -> Config:
    """The configuration for one engine: fewer worlds where that engine is slow."""
    config = dataclasses.replace(config, engine=engine)
    if engine == "native" or jax.default_backend() != "cpu":
        return config
    share = accelerated_envs / config.num_envs
    # In proportion, so that starting episodes takes the same part of the time.
    bank = {
        f"bank.{name}": max(1, round(share * getattr(config.bank, name)))
        for name in ("size", "starting")
    }
    return replace(config, num_envs=accelerated_envs, **bank)


def _print_machine(config: Config) -> None:
    device = jax.devices()[0]
    print(
        f"JAX {jax.__version__} on {device.platform} ({device.device_kind}), "
        f"MuJoCo {mujoco.__version__}, Python {platform.python_version()}, "
        f"{available_cores()} CPU cores"
    )
    print(
        f"one env step = {config.physics.substeps} x "
        f"{1000 * config.physics.timestep:g} ms of physics; "
        f"policy {config.network.policy_memory} "
        f"{config.network.hidden}-{config.network.memory}"
    )


if __name__ == "__main__":
    sys.exit(main())
