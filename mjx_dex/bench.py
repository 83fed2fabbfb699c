"""``python -m mjx_dex.bench``: what each layer of training costs, engine by engine.

One process measures everything in turn, so that the ratios in a table belong together;
absolute figures from another machine or another minute do not.
"""

import dataclasses
import gc
import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import matplotlib
import mujoco
import numpy as np

from mjx_dex import costs, mujoco_warnings, profiling, roofline, settings, startup
from mjx_dex.config import Config, Precision, Preset, replace
from mjx_dex.costs import LAYERS, Engine, Layer, Row
from mjx_dex.physics.engine import CaptureError
from mjx_dex.physics.native import available_cores
from mjx_dex.ranges import Count, NotNegative
from mjx_dex.task import with_buffers
from mjx_dex.train import make_trainer
from robot_bridge.files import (
    Output,
    check_outputs,
    picture_formats,
    save_figure,
    write_at_once,
)

matplotlib.use("agg")
import matplotlib.pyplot as plt

GROWING: tuple[Layer, ...] = ("physics", "task", "training")
"""Layers that are measured at every number of worlds; the others at the first only."""


@dataclass(frozen=True)
class Plan:
    """What is measured unless the command line says otherwise."""

    config: str
    engines: tuple[Engine, ...]
    envs: dict[str, tuple[int, ...]]
    """Numbers of worlds of each engine."""
    layers: dict[str, tuple[Layer, ...]]
    """Of each engine, at its first number of worlds."""
    minutes: float


ON_WARP: tuple[Layer, ...] = ("physics", "training")
"""On a CPU, where each row of warp compiles for most of a minute."""

ON_CPU = Plan(
    config="quickstart",
    engines=("native", "mjx", "warp"),
    # There mjx and warp are slow, and gain nothing from more worlds; mjx compiles a
    # whole iteration for a minute.
    envs={"native": (512, 128, 1024), "mjx": (16,), "warp": (16, 64)},
    layers={"native": tuple(LAYERS), "mjx": ("physics",), "warp": ON_WARP},
    minutes=4.5,
)
ON_ACCELERATOR = Plan(
    config="single_gpu",
    engines=("warp", "mjx"),
    envs=dict.fromkeys(
        ("warp", "mjx", "native"), (8192, 32768, 1024, 16384, 4096, 65536)
    ),
    layers=dict.fromkeys(("warp", "mjx", "native"), tuple(LAYERS)),
    minutes=7.5,
)


@dataclass(frozen=True)
class BenchCommand(Config):
    """Options of the command itself, beside the configuration's. What is not given
    suits JAX's device."""

    config: str | None = None
    """Configuration whose worlds, networks and hyperparameters are measured."""
    engines: tuple[Engine, ...] = ()
    """Engines to compare."""
    menus: tuple[Preset, ...] = ("none",)
    """Randomization presets to compare."""
    precisions: tuple[Precision, ...] = ()
    """Precisions of the networks to compare, in whole iterations; by default the
    configured one."""
    layers: tuple[Layer, ...] = ()
    """Rows to measure of each engine; 'stock' and 'bare' are of native alone."""
    envs: tuple[Count, ...] = ()
    """Numbers of environments: all layers are measured at the first, physics, task and
    training at the others. The pool of initial states grows along."""
    repeats: Count = 5
    """Timed runs of each row, fewer where they are long; the median is printed."""
    max_minutes: NotNegative | None = None
    """Time limit: rows that would take longer are left out and listed."""
    roofline: bool = False
    """Set physics against the device's limits, too; mjx compiles for half a minute."""
    profile: Path | None = None
    """Folder for a trace of one training iteration of the first engine; the operations
    that take its time are printed."""
    json: Path = Path("bench.json")
    """The table is saved to this file."""
    plot: Path = Path("bench.png")
    """And drawn, over the number of worlds, to this one."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    started = time.monotonic()
    startup.set_up()
    # What was compiled before would not show what compiling takes.
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        startup.check_jax()
        plan = ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR
        base = settings.early_option(arguments, "--config") or plan.config
        command = settings.from_command_line(
            BenchCommand, settings.load(base), arguments, description=__doc__
        )
        check_outputs(
            Output("--json", command.json),
            Output("--plot", command.plot, picture_formats()),
            Output("--profile", command.profile, is_folder=True),
        )
        bench(command, plan, started)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
        mujoco_warnings.report()
    print(f"saved {command.json} and {command.plot}")
    return 0


def bench(command: BenchCommand, plan: Plan, started: float) -> list[Row]:
    """Measure, save and print every row that there is time for."""
    config = settings.config_of(command)
    minutes = plan.minutes if command.max_minutes is None else command.max_minutes
    deadline = started + 60 * minutes
    _print_machine(config)
    print(costs.HEADER)
    rows, left_out, seconds_per_row = [], [], {}
    for engine, envs, menu, precision, layers in _jobs(command, plan):
        job, begun = f"{engine} {menu} {envs} {precision}", time.monotonic()
        if begun + len(layers) * seconds_per_row.get(engine, 0.0) > deadline:
            left_out.append(job)
            continue
        try:
            scaled = costs.with_worlds(config, engine, envs, menu)
            scaled = replace(scaled, **{"network.matmul_precision": precision})
            scaled = with_buffers(scaled)
            for row in costs.measure(scaled, layers, command.repeats, deadline):
                rows.append(row)
                save(rows, command.json)
                print(row, flush=True)
        except (ImportError, RuntimeError, ValueError, CaptureError) as error:
            # Out of memory, or what this machine has not: the others are measured.
            print(f"{job}: not measured: {str(error).splitlines()[0]}", flush=True)
        gc.collect()  # what an engine kept on a GPU, which JAX does not see
        # The first rows also compile what later ones find.
        seconds = (time.monotonic() - begun) / len(layers)
        seconds_per_row[engine] = min(seconds, seconds_per_row.get(engine, seconds))
    save(rows, command.json)
    plot(rows, command.plot)
    if left_out:
        print(f"left out, for {minutes:g} minutes are over: {'; '.join(left_out)}")
    _print_ratios(rows)
    _print_use_of_warp(rows)
    _print_start(rows)
    _print_memory(rows)
    if command.roofline:
        _print_roofline(with_buffers(dataclasses.replace(config, engine="mjx")), rows)
    for layer in dict.fromkeys(row.layer for row in rows):
        print(f"  {layer}: {LAYERS[layer]}")
    if command.profile:
        _print_profile(config, command, plan)
    return rows


def _jobs(command: BenchCommand, plan: Plan) -> list[tuple]:
    """(engine, environments, menu, precision, layers), the most telling ones first."""
    first, *others = command.precisions or (command.network.matmul_precision,)
    jobs = []
    for engine in command.engines or plan.engines:
        layers = command.layers or plan.layers[engine]
        for k, envs in enumerate(command.envs or plan.envs[engine]):
            growing = tuple(layer for layer in layers if layer in GROWING)
            for menu in command.menus:
                rows = growing if k else layers
                jobs.append(((k, 0), engine, envs, menu, first, rows))
                for other in others if "training" in layers else ():
                    jobs.append(((k, 1), engine, envs, menu, other, ("training",)))
    jobs.sort(key=lambda job: job[0])
    return [job[1:] for job in jobs]


def _print_machine(config: Config) -> None:
    device = jax.devices()[0]
    print(
        f"JAX {jax.__version__} on {device.platform} ({device.device_kind}), "
        f"MuJoCo {mujoco.__version__}, Python {platform.python_version()}, "
        f"{available_cores()} CPU cores"
    )
    physics, network = config.physics, config.network
    print(
        f"one env step = {physics.substeps} x {1000 * physics.timestep:g} ms of "
        f"physics, at most {physics.iterations} Newton iterations; policy "
        f"{network.policy_memory} {network.hidden}-{network.memory}"
    )


def _print_ratios(rows: list[Row]) -> None:
    """What rows of one run say together."""
    pace = {}
    for row in rows:  # of each the configured, or first, precision
        place = row.engine, row.worlds, row.menu, row.layer
        pace.setdefault(place, row.env_steps_per_second)
    for row in rows:
        place = row.engine, row.worlds, row.menu, row.layer
        ratio = row.env_steps_per_second / pace[place]
        if row.layer == "training" and ratio != 1:
            where = f"{row.engine}, {row.menu}, {row.worlds} environments"
            print(f"{where}: {row.precision} / first precision, training {ratio:.2f}")
    for (engine, worlds, menu, layer), rate in pace.items():

        def of(layer, menu=menu, engine=engine, worlds=worlds):
            return pace.get((engine, worlds, menu, layer))

        if layer == "bare" and of("stock"):
            print(
                f"{engine}, {menu}, {worlds} environments: bare / stock "
                f"{rate / of('stock'):.2f}"
            )
        if layer != "training":
            continue
        where, training = f"{engine}, {menu}, {worlds} environments", rate
        if of("bare") and menu == "none":
            print(
                f"{where}: training / bare Batch stepping: {training / of('bare'):.0%}"
            )
        if of("stepping") and of("task"):
            share = training * (1 / of("task") - 1 / of("stepping"))
            print(f"{where}: resets take {share:.0%} of a training iteration")
        if of("training", "none") and menu != "none":
            share = training / of("training", "none")
            print(f"{where}: training / training without: {share:.0%}")


def _print_use_of_warp(rows: list[Row]) -> None:
    for row in rows:
        if row.warp:
            where = f"{row.engine}, {row.menu}, {row.worlds} environments, {row.layer}"
            print(f"{where}: {row.warp}")


def _print_start(rows: list[Row]) -> None:
    """Of the process's first training, which shares what was compiled before it."""
    row = next((row for row in rows if row.layer == "training"), None)
    if row and row.first_finished:
        print(
            f"{row.engine}, {row.menu}, {row.worlds} environments: the first training "
            f"iteration was finished {row.first_finished:.0f} s after the process "
            "started (other rows before it included; alone with --layers training)"
        )


def _print_memory(rows: list[Row]) -> None:
    """Memory of a training iteration grows in proportion to the number of worlds."""
    rows = _of_first_precision(rows)
    for engine, menu in dict.fromkeys((row.engine, row.menu) for row in rows):
        known = sorted(
            (row.worlds, row.memory_bytes)
            for row in rows
            if (row.engine, row.menu, row.layer) == (engine, menu, "training")
        )
        if len(known) > 1:
            fixed, each = costs.memory_line(known[0], known[-1])
            print(
                f"{engine}, {menu}: training needs {fixed / 2**20:,.0f} MiB + "
                f"{each / 2**10:,.0f} KiB for each world"
            )


def _of_first_precision(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.precision == rows[0].precision]


def _print_roofline(config: Config, rows: list[Row]) -> None:
    bound = roofline.measure(config)
    print(bound)
    for row in rows:
        if (row.engine, row.layer) == ("mjx", "physics"):
            share = row.physics_steps_per_second / bound.steps_per_second
            print(f"{row.engine}, {row.menu}, {row.worlds} worlds: {share:.1%} of it")


def _print_profile(config: Config, command: BenchCommand, plan: Plan) -> None:
    engine, envs, menu, precision, _ = _jobs(command, plan)[0]
    scaled = costs.with_worlds(config, engine, envs, menu)
    scaled = replace(scaled, **{"network.matmul_precision": precision})
    scaled = with_buffers(scaled)
    trainer = make_trainer(scaled, jax.local_devices()[:1])
    learner = trainer.init(jax.random.key(config.seed))
    print(f"one iteration, {engine}, {menu}, {envs} environments: {command.profile}")
    print(profiling.table(profiling.profile(trainer, learner, command.profile)))


def save(rows: list[Row], path: Path) -> None:
    """Write the table."""
    write_at_once(path, json.dumps([dataclasses.asdict(row) for row in rows]))


def plot(rows: list[Row], path: Path) -> None:
    """Draw pace and memory over the number of environments."""
    rows = _of_first_precision(rows)
    figure, (pace, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for engine, menu in dict.fromkeys((row.engine, row.menu) for row in rows):
        for layer, style in zip(GROWING, ("o:", "o--", "o-"), strict=True):
            chosen = sorted(
                (row.worlds, row.env_steps_per_second, row.memory_bytes / 2**20)
                for row in rows
                if (row.engine, row.menu, row.layer) == (engine, menu, layer)
            )
            if chosen:
                worlds, paces, sizes = np.array(chosen).T
                pace.loglog(worlds, paces, style, label=f"{engine}, {menu}: {layer}")
                memory.loglog(worlds, sizes, style)
    pace.set(xlabel="environments", ylabel="environment steps per second")
    memory.set(xlabel="environments", ylabel="memory of the compiled program [MiB]")
    sizes = sorted({row.worlds for row in rows})
    for axis in (pace, memory):
        axis.grid(alpha=0.3)
        axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axis.xaxis.minorticks_off()
    if pace.lines:
        pace.legend(fontsize=8)
    save_figure(figure, path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
