"""``python -m mjx_dex.train``: train a policy, or go on with a run that was stopped."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex import (
    lineage,
    processes,
    report,
    run_folder,
    settings,
    sources,
    startup,
)
from mjx_dex.checkpoints import CheckpointError
from mjx_dex.config import Config, replace
from mjx_dex.learning import Learner, NonFiniteError, Trainer, resuming
from mjx_dex.learning.checkpoints import Checkpoints
from mjx_dex.lineage import Lineage
from mjx_dex.physics import choose_engine
from mjx_dex.ranges import Count, NotNegative, check_multiple, whole
from mjx_dex.run_folder import RunFolder
from mjx_dex.sources import Source
from mjx_dex.task import BankedEnvironments, make_env, with_buffers
from robot_bridge import terminal

log = logging.getLogger("mjx_dex")

RUNS = Path("runs")


@dataclass(frozen=True)
class TrainCommand(Config):
    """Options of the command itself, beside the configuration's."""

    config: str | None = None
    """A YAML file or a preset (quickstart, single_gpu, paper). By default quickstart
    on a CPU, single_gpu on an accelerator, and a resumed run's own."""
    run_dir: Path | None = None
    """Folder of the run; a new one under runs/ by default, or the latest to resume."""
    resume: bool = False
    """Continue from the run's latest checkpoint: bit for bit where nothing changed;
    with another engine, device, number of environments, horizon or minibatch, too."""
    from_run: Path | None = None
    """Continue in a new run what another run, or a bundle (.dex), has learned, with its
    configuration unless --config says otherwise: on another machine, or to fine-tune
    for another object or a locked wrist."""
    max_minutes: NotNegative | None = None
    """Stop, with a checkpoint, after so many minutes."""
    distributed: bool = False
    """Train together with the other processes of a SLURM, Open MPI or Kubernetes job;
    elsewhere the three options below say which. All need the same --run-dir."""
    coordinator: str | None = None
    """host:port of process 0."""
    processes: Count | None = None
    """How many there are."""
    process_id: whole(0) | None = None
    """Which of them this is, from 0."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and from where it can."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    started = time.monotonic()
    startup.set_up()
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        config = settings.config_of(command)
        log.info("physics engine: %s (%s)", *choose_engine(config.engine))
        with ended_by_signals(), prepare_run(command) as folder:
            train(config, folder, command, started)
    except (ValueError, OSError, ImportError, CheckpointError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        processes.leave()
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        processes.leave()
        return 130
    except BaseException:
        if jax.process_count() > 1:
            traceback.print_exc()
        processes.leave()
        raise
    return 0


def parse(arguments: list[str]) -> TrainCommand:
    """Parse the command line over the configuration that it starts from."""
    base = settings.early_option(arguments, "--config")
    run_dir = settings.early_option(arguments, "--run-dir")
    run_dir = Path(run_dir) if run_dir else None
    job = [
        settings.early_option(arguments, flag)
        for flag in ("--coordinator", "--processes", "--process-id")
    ]
    if "--distributed" in arguments:
        if run_dir is None:
            raise ValueError("--distributed: give a --run-dir, the same to all")
        coordinator, *numbers = job
        processes.join(coordinator, *(None if n is None else int(n) for n in numbers))
    elif any(job):
        raise ValueError(
            "--coordinator, --processes and --process-id need --distributed"
        )
    startup.check_jax()
    origin = settings.early_option(arguments, "--from-run")
    if origin and "--resume" in arguments:
        raise ValueError("--from-run begins a run and --resume continues one: give one")
    if "--resume" in arguments:
        run_dir = run_dir or latest_run()
        if not run_folder.is_run(run_dir):
            raise ValueError(f"--resume: there is no run in {run_dir}")
        base = base or run_dir / run_folder.CONFIG
    if base is None and not origin:
        base = "quickstart" if jax.default_backend() == "cpu" else "single_gpu"
        log.info("configuration: %s (JAX runs on %s)", base, jax.default_backend())
    try:
        loaded = settings.load(base) if base else sources.config_of(Path(origin))
    except ValueError as error:
        raise ValueError(f"{error}" if base else f"--from-run: {error}") from error
    command = settings.from_command_line(
        TrainCommand, loaded, arguments, description=__doc__
    )
    return dataclasses.replace(command, run_dir=run_dir)


def latest_run() -> Path:
    """The run in ``runs/`` that was written to last."""
    found = RUNS.glob(f"*/{run_folder.CONFIG}")
    runs = sorted(found, key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ValueError(f"--resume: there is no run in {RUNS.resolve()}")
    return runs[-1].parent


@contextlib.contextmanager
def prepare_run(command: TrainCommand) -> Iterator[RunFolder]:
    """The run's folder while it is trained, for no other process.

    Raises:
        ValueError: if it cannot be had; in all processes, if in the main one.
    """
    with contextlib.ExitStack() as stack:
        folder, refusal = None, ""
        if processes.is_main():
            try:
                folder = stack.enter_context(_claim(command))
            except (ValueError, OSError) as error:
                refusal = str(error)
        (is_refused,) = processes.any_process(bool(refusal))
        if is_refused:
            raise ValueError(refusal or "the main process cannot use --run-dir")
        yield folder or RunFolder(command.run_dir, is_new=not command.resume)


def _claim(command: TrainCommand) -> contextlib.AbstractContextManager[RunFolder]:
    if command.resume:
        return run_folder.resume(command.run_dir)
    return run_folder.begin(command.run_dir, RUNS)


def make_trainer(config: Config, devices: list[jax.Device] | None = None) -> Trainer:
    """Environments and networks of a configuration.

    Args:
        config: of the run.
        devices: all devices of all processes by default.

    Raises:
        ValueError: if the worlds cannot be dealt evenly to the devices.
    """
    number = len(devices or jax.devices())
    totals = {
        "num_envs": config.num_envs,
        "bank.size": config.bank.size,
        "bank.starting": config.bank.starting,
    }
    for name, total in totals.items():
        check_multiple(name, total, "the number of devices", number)
    share = replace(config, **{name: n // number for name, n in totals.items()})
    vector_env = BankedEnvironments(make_env(config), share.num_envs, share.bank)
    return Trainer(vector_env, config.network, config.ppo, devices)


def train(
    config: Config, folder: RunFolder, command: TrainCommand, started: float
) -> None:
    """Train until ``max_env_steps``, ``max_minutes`` or Ctrl-C, saving on the way.

    Args:
        config: of the run.
        folder: where everything is written.
        command: what to begin with, and how long to train since ``started``.
        started: ``time.monotonic()`` when the command began.
    """
    run_dir = folder.path
    trainer = make_trainer(with_buffers(config))
    engine, _ = choose_engine(config.engine)
    checkpoints = Checkpoints(
        run_dir / run_folder.CHECKPOINTS,
        whole=config.checkpoint == "whole",
        kind=environment_digest(config, engine),
    )
    with explained(checkpoints):
        learner, line = begin(config, run_dir, command, trainer, checkpoints, started)
        checkpoints.save(trainer, learner)
    if folder.is_new:
        record(config, run_dir, line)
        folder.begun()
    iteration = begun_at = int(learner.iteration)
    env_steps = line.env_steps(iteration)
    end = line.begun_at + config.max_env_steps
    if env_steps >= end:
        log.info("nothing is left of --max-env-steps %d", config.max_env_steps)
    open_log = contextlib.nullcontext()
    if processes.is_main():
        open_log = report.RunLog(run_dir, iteration, env_steps, end)
    clock = Clock(end, command.max_minutes, started)
    last_saved = time.monotonic()
    with open_log as run_log, StopOnInterrupt() as interrupt, explained(checkpoints):
        while True:
            is_old = time.monotonic() - last_saved > 60 * config.checkpoint_minutes
            stop, save = processes.any_process(
                interrupt.asked or clock.is_over(env_steps), is_old
            )
            if stop or save:
                checkpoints.save(trainer, learner)
                last_saved = time.monotonic()
            if stop:
                break
            begun = time.monotonic()
            try:
                learner, metrics = trainer.iterate(learner)
            except NonFiniteError as error:
                checkpoints.save(trainer, error.learner)
                raise TrainingError(str(error)) from error
            metrics = jax.device_get(metrics)
            if command.resume and iteration == begun_at:
                record(config, run_dir, line)  # not before these values work
            iteration += 1
            env_steps += trainer.steps_per_iteration
            check_finite(metrics, iteration)
            row = report.summarize(
                metrics,
                env_steps=trainer.steps_per_iteration,
                total_env_steps=env_steps,
                seconds=time.monotonic() - begun,
            )
            if run_log:
                run_log.write(iteration, row, clock.minutes_left(env_steps))
    checkpoints.close()
    if processes.is_main():
        report.plot_learning_curve(run_dir)
        print(f"saved {run_dir} at {env_steps:,} env steps")
        again = terminal.shell_command(
            "mjx_dex.train", "--resume", "--run-dir", run_dir
        )
        print(f"  continue: {again}")
        print(f"  evaluate: {terminal.shell_command('mjx_dex.evaluate', run_dir)}")


def record(config: Config, run_dir: Path, line: Lineage) -> None:
    """Write down what a run is trained with, and where it is from."""
    if processes.is_main():
        # The configuration comes last: a run that has one can be resumed.
        lineage.write(run_dir, line)
        settings.save(config, run_dir / run_folder.CONFIG)


def begin(
    config: Config,
    run_dir: Path,
    command: TrainCommand,
    trainer: Trainer,
    checkpoints: Checkpoints,
    started: float,
) -> tuple[Learner, Lineage]:
    """A new learner, or one that continues this or another run; and its lineage."""
    engine, _ = choose_engine(config.engine)
    line, iteration, env_steps, before = Lineage(), 0, 0, config
    if command.resume:
        line, before = lineage.read(run_dir), settings.load(run_dir / run_folder.CONFIG)
        learner = _resumed(config, before, run_dir, trainer, checkpoints, line)
        iteration = checkpoints.latest()
        env_steps = line.env_steps(iteration)
    elif command.from_run:
        source = sources.read(command.from_run)
        before = source.config
        line = Lineage(origin=str(source.path), before=source.sessions)
        iteration, env_steps = source.iteration, source.env_steps
        learner = _continued(source, config, trainer)
    else:
        log.info("run: %s; starting %d environments", run_dir, config.num_envs)
        learner = trainer.init(jax.random.key(config.seed))
    trainer.vector_env.check(learner.actors.env_state)
    learner = with_learning_rate(learner, config, before)
    session = lineage.session_of(config, run_dir, engine, iteration, env_steps, started)
    return learner, line.joined_by(session)


def with_learning_rate(learner: Learner, config: Config, before: Config) -> Learner:
    """With the configured rate if that is fixed; says what becomes of another one.

    Args:
        learner: its rate is what the KL divergence last made of it.
        config: of the run.
        before: of what it continues.
    """
    configured, rate = config.ppo.learning_rate, float(learner.learning_rate)
    if config.ppo.kl_target is None:
        if not np.isclose(configured, rate):
            log.info("learning rate: %.3g before, %.3g from now on", rate, configured)
        rate = jnp.full_like(learner.learning_rate, configured)
        return learner.replace(learning_rate=rate)
    if configured != before.ppo.learning_rate and not np.isclose(configured, rate):
        log.info(
            "ppo.learning_rate %.3g is the initial one; training continues with %.3g, "
            "which follows ppo.kl_target",
            *(configured, rate),
        )
    return learner


def _resumed(
    config: Config,
    before: Config,
    run_dir: Path,
    trainer: Trainer,
    checkpoints: Checkpoints,
    line: Lineage,
) -> Learner:
    """The run's latest learner: bit for bit, or on other environments."""
    if config.seed != before.seed:
        raise ValueError(
            f"--seed {config.seed}: a run that is resumed keeps its own, "
            f"{before.seed}; --from-run {run_dir} begins a new run with what this one "
            "has learned, and any seed"
        )
    learner = checkpoints.restore(trainer)
    iteration = checkpoints.latest()
    sessions, env_steps = line.up_to(iteration), line.env_steps(iteration)
    if learner is not None:
        log.info(
            "continues %s after %s env steps (iteration %d). Everything is carried, "
            "environments included",
            *(run_dir, f"{env_steps:,}", iteration),
        )
        return learner
    arrays = checkpoints.learned()
    source = Source(
        run_dir, before, line.origin, sessions, iteration, env_steps, arrays
    )
    return _continued(source, config, trainer)


def _continued(source: Source, config: Config, trainer: Trainer) -> Learner:
    """What was learned elsewhere, with environments started anew; says what is not."""
    engine, _ = choose_engine(config.engine)
    # Not the environments that training began with.
    key = jax.random.fold_in(jax.random.key(config.seed), source.iteration)
    try:
        learner, carried, anew = resuming.resume(trainer, source.arrays, key)
    except ValueError as error:
        different = shape_differences(source.config, config)
        reason = (
            f"its networks are others: {'; '.join(different)}; give its values, or "
            "begin with new networks in another --run-dir"
        )
        raise ValueError(f"{source.path}: {reason if different else error}") from error
    there = source.sessions[-1] if source.sessions else None
    sizes = f"{config.num_envs} on {engine} now"
    if there:
        sizes = f"{there.num_envs} on {there.engine} before, {sizes}"
    log.info(
        "continues %s after %s env steps (iteration %d). Carried: %s. Started anew: "
        "%s (%s)",
        *(source.path, f"{source.env_steps:,}", source.iteration, ", ".join(carried)),
        *(", ".join((*anew, "environments")), sizes),
    )
    return learner


def shape_differences(there: Config, here: Config) -> list[str]:
    """Values that networks' shapes depend on, where two configurations differ."""
    shaping = ("network.", "task.policy_inputs", "task.action_bins")
    here = replace(here, **{"network.matmul_precision": there.network.matmul_precision})
    return [x for x in settings.differences(there, here) if x.startswith(shaping)]


def environment_digest(config: Config, engine: str) -> np.ndarray:
    """[32] bytes that are the same where environments are: they may be continued."""
    parts = ("hand", "object", "physics", "task", "randomization")
    content = {part: settings.plain(getattr(config, part)) for part in parts}
    content["physics"].pop("threads")  # which changes no result
    text = json.dumps([engine, content], sort_keys=True)
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)


def check_finite(metrics: dict[str, np.ndarray], iteration: int) -> None:
    """Raise TrainingError if an iteration spoiled the networks."""
    if not metrics["finite_parameters"]:
        raise TrainingError(
            f"the networks' parameters became infinite or NaN in iteration "
            f"{iteration}; a lower --ppo.learning-rate may help"
        )


XLA_STATUS = re.compile("[A-Z_]+: ")
"""How errors of running programs begin, under whatever type JAX raises them."""


@contextlib.contextmanager
def explained(checkpoints: Checkpoints):
    """Turn what ends training into one line that says from where it can go on."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if not XLA_STATUS.match(reason):
            raise
        if "RESOURCE_EXHAUSTED" in reason:
            reason = (
                f"out of memory ({reason}); lower --num-envs, or raise "
                "--ppo.accumulation"
            )
        elif jax.process_count() > 1:
            reason = f"another process was lost, or could not be reached ({reason})"
        raise TrainingError(f"{reason}; {_latest(checkpoints)}") from error
    except (TrainingError, OSError) as error:
        raise TrainingError(f"{error}; {_latest(checkpoints)}") from error


def _latest(checkpoints: Checkpoints) -> str:
    latest = checkpoints.latest()
    if latest is None:
        return "there is no checkpoint yet"
    return f"--resume continues from the checkpoint of iteration {latest}"


class Clock:
    """When training ends, and how long until then."""

    def __init__(self, env_steps: int, max_minutes: float | None, started: float):
        self._end = env_steps
        self._deadline = None if max_minutes is None else started + 60 * max_minutes
        self._first: tuple[float, int] | None = None

    def is_over(self, env_steps: int) -> bool:
        """Whether to stop before the next iteration."""
        if self._first is None:
            self._first = time.monotonic(), env_steps
        timed_out = self._deadline is not None and time.monotonic() > self._deadline
        return env_steps >= self._end or timed_out

    def minutes_left(self, env_steps: int) -> float:
        """Estimate from the pace of this process so far."""
        now, (begun, first) = time.monotonic(), self._first
        pace = (now - begun) / (env_steps - first)
        seconds = (self._end - env_steps) * pace
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - now)
        return max(seconds, 0.0) / 60


INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ended_by_signals():
    """SIGTERM, which SLURM and containers send, interrupts as Ctrl-C does.

    So does SIGINT where a shell has started this process in the background.
    """

    def interrupt(*_):
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopOnInterrupt:
    """Turns the first Ctrl-C (or SIGTERM) into a request; a second one interrupts."""

    def __enter__(self):
        self.asked = False
        self._previous = {s: signal.signal(s, self._ask) for s in INTERRUPTS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this iteration, with a checkpoint", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
