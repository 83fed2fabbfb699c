"""``python -m mjx_dex.train``: train a policy, or go on with a run that was stopped."""

import contextlib
import dataclasses
import logging
import os
import re
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex import processes, report, settings
from mjx_dex.checkpoints import CheckpointError
from mjx_dex.config import Config, replace
from mjx_dex.learning import Learner, Trainer
from mjx_dex.learning.checkpoints import Checkpoints
from mjx_dex.physics import choose_engine
from mjx_dex.task import BankedEnvironments, make_env, with_buffers

log = logging.getLogger("mjx_dex")

RUNS = Path("runs")
ORIGIN = "origin.txt"
"""In the folder of a fine-tuned run: the run whose networks it began with."""


@dataclass(frozen=True)
class TrainCommand(Config):
    """Options of the command itself, beside the configuration's."""

    config: str | None = None
    """A YAML file or a preset (quickstart, single_gpu, paper). By default quickstart
    on a CPU, single_gpu on an accelerator, and a resumed run's own."""
    run_dir: Path | None = None
    """Folder of the run; a new one under runs/ by default, or the latest to resume."""
    resume: bool = False
    """Go on from the run's latest checkpoint."""
    from_run: Path | None = None
    """Begin with the networks of another run, and its configuration unless --config
    says otherwise: fine-tuning, for another object or a locked wrist."""
    max_minutes: float | None = None
    """Stop, with a checkpoint, after so many minutes."""
    distributed: bool = False
    """Train together with the other processes of a SLURM, Open MPI or Kubernetes job;
    elsewhere the three options below say which. All need the same --run-dir."""
    coordinator: str | None = None
    """host:port of process 0."""
    processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and from where it can."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    started = time.monotonic()
    set_up_process()
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        config = settings.config_of(command)
        log.info("physics engine: %s (%s)", *choose_engine(config.engine))
        run_dir = prepare_run(command)
        train(config, run_dir, command, started)
    except (ValueError, OSError, ImportError, CheckpointError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        processes.leave()
        return 1
    except BaseException:
        if jax.process_count() > 1:
            traceback.print_exc()
        processes.leave()
        raise
    return 0


def set_up_process() -> None:
    """Quiet logs, and a cache that makes the second start faster than the first."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache is None:
        cache = str(Path.home() / ".cache" / "mjx_dex" / "jax")
        jax.config.update("jax_compilation_cache_dir", cache)


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
    origin = settings.early_option(arguments, "--from-run")
    if origin:
        if "--resume" in arguments:
            raise ValueError("--from-run begins a run and --resume goes on: give one")
        if not (Path(origin) / "config.yaml").exists():
            raise ValueError(f"--from-run: there is no run in {origin}")
        base = base or Path(origin) / "config.yaml"
    if "--resume" in arguments:
        run_dir = run_dir or latest_run()
        if not (run_dir / "config.yaml").exists():
            raise ValueError(f"--resume: there is no run in {run_dir}")
        base = base or run_dir / "config.yaml"
    if base is None:
        base = "quickstart" if jax.default_backend() == "cpu" else "single_gpu"
        log.info("configuration: %s (JAX runs on %s)", base, jax.default_backend())
    command = settings.from_command_line(
        TrainCommand, settings.load(base), arguments, description=__doc__
    )
    if command.resume:
        # Env steps of a checkpoint are told from its iteration.
        horizon = settings.load(run_dir / "config.yaml").ppo.horizon
        if command.ppo.horizon != horizon:
            raise ValueError(
                f"--ppo.horizon: {run_dir} has iterations of {horizon} steps; to learn "
                "on with others begin another run with --from-run"
            )
    return dataclasses.replace(command, run_dir=run_dir)


def latest_run() -> Path:
    """The run in ``runs/`` that was written to last."""
    runs = sorted(RUNS.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ValueError(f"--resume: there is no run in {RUNS.resolve()}")
    return runs[-1].parent


def prepare_run(command: TrainCommand) -> Path:
    """Make the run's folder.

    Raises:
        ValueError: if it holds a run already; in all processes, if in any.
    """
    run_dir = command.run_dir or RUNS / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    # Checkpoints alone are what is left of a run that lost its configuration.
    parts = (run_dir / "config.yaml", run_dir / "checkpoints")
    is_taken = not command.resume and any(part.exists() for part in parts)
    if any(processes.any_process(is_taken)):
        raise ValueError(
            f"--run-dir: {run_dir} holds a run already; add --resume to go on with it, "
            "or give another folder"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


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
        if total % number:
            raise ValueError(
                f"{name} ({total}) must be a multiple of the number of devices "
                f"({number})"
            )
    share = replace(config, **{name: n // number for name, n in totals.items()})
    vector_env = BankedEnvironments(make_env(config), share.num_envs, share.bank)
    return Trainer(vector_env, config.network, config.ppo, devices)


def train(config: Config, run_dir: Path, command: TrainCommand, started: float) -> None:
    """Train until ``max_env_steps``, ``max_minutes`` or Ctrl-C, saving on the way.

    Args:
        config: of the run.
        run_dir: where everything is written.
        command: what to begin with, and how long to train since ``started``.
        started: ``time.monotonic()`` when the command began.
    """
    trainer = make_trainer(with_buffers(config))
    checkpoints = Checkpoints(run_dir / "checkpoints")
    with explained(checkpoints):
        learner = begin(config, run_dir, command, trainer, checkpoints)
        # A run that has a configuration has a checkpoint, too, and can be resumed.
        checkpoints.save(learner)
    if processes.is_main():
        settings.save(config, run_dir / "config.yaml")
    iteration = int(learner.iteration)
    open_log = contextlib.nullcontext()
    if processes.is_main():
        open_log = report.RunLog(run_dir, config.max_env_steps, iteration)
    clock = Clock(config, trainer.steps_per_iteration, command.max_minutes, started)
    last_saved = time.monotonic()
    with open_log as run_log, StopOnInterrupt() as interrupt, explained(checkpoints):
        while True:
            is_old = time.monotonic() - last_saved > 60 * config.checkpoint_minutes
            stop, save = processes.any_process(
                interrupt.asked or clock.is_over(iteration), is_old
            )
            if stop or save:
                checkpoints.save(learner)
                last_saved = time.monotonic()
            if stop:
                break
            begun = time.monotonic()
            learner, metrics = trainer.iterate(learner)
            metrics = jax.device_get(metrics)
            iteration += 1
            check_finite(metrics, iteration)
            row = report.summarize(
                metrics,
                env_steps=trainer.steps_per_iteration,
                total_env_steps=iteration * trainer.steps_per_iteration,
                seconds=time.monotonic() - begun,
            )
            if run_log:
                run_log.write(iteration, row, clock.minutes_left(iteration))
    checkpoints.close()
    if processes.is_main():
        report.plot_learning_curve(run_dir)
        steps = iteration * trainer.steps_per_iteration
        print(f"saved {run_dir} at {steps:,} env steps")
        print(f"  go on:    python -m mjx_dex.train --resume --run-dir {run_dir}")
        print(f"  evaluate: python -m mjx_dex.evaluate {run_dir}")


def begin(
    config: Config,
    run_dir: Path,
    command: TrainCommand,
    trainer: Trainer,
    checkpoints: Checkpoints,
) -> Learner:
    """A new learner, with another run's networks if so asked; or the latest one."""
    key = jax.random.key(config.seed)
    if command.resume:
        learner = checkpoints.restore(trainer, key)
    else:
        log.info("run: %s; starting %d worlds", run_dir, config.num_envs)
        learner = trainer.init(key)
        trainer.vector_env.check(learner.actors.env_state)
    if command.from_run:
        learner = _with_networks_of(command.from_run, trainer, learner)
        if processes.is_main():
            (run_dir / ORIGIN).write_text(f"{command.from_run}\n")
    if config.ppo.kl_target is None:
        # It may be another one than before.
        rate = jnp.full_like(learner.learning_rate, config.ppo.learning_rate)
        learner = learner.replace(learning_rate=rate)
    return learner


def _with_networks_of(run: Path, trainer: Trainer, learner: Learner) -> Learner:
    """Everything that a run learned, at the start of a new one."""
    checkpoints = Checkpoints(run / "checkpoints")
    learned = checkpoints.restore_learned(trainer, learner)
    checkpoints.close()
    log.info("networks: of iteration %d of %s", int(learned.iteration), run)
    return learned.replace(iteration=learner.iteration)


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
    except TrainingError as error:
        raise TrainingError(f"{error}; {_latest(checkpoints)}") from error


def _latest(checkpoints: Checkpoints) -> str:
    latest = checkpoints.latest()
    if latest is None:
        return "there is no checkpoint yet"
    return f"--resume goes on from the checkpoint of iteration {latest}"


class Clock:
    """When training ends, and how long until then."""

    def __init__(
        self,
        config: Config,
        steps_per_iteration: int,
        max_minutes: float | None,
        started: float,
    ):
        self._iterations = -(-config.max_env_steps // steps_per_iteration)
        self._deadline = None if max_minutes is None else started + 60 * max_minutes
        self._first: tuple[float, int] | None = None

    def is_over(self, iteration: int) -> bool:
        """Whether to stop before the next iteration."""
        if self._first is None:
            self._first = time.monotonic(), iteration
        out_of_time = self._deadline is not None and time.monotonic() > self._deadline
        return iteration >= self._iterations or out_of_time

    def minutes_left(self, iteration: int) -> float:
        """Estimate from the pace of this process so far."""
        now, (begun, first) = time.monotonic(), self._first
        pace = (now - begun) / (iteration - first)
        seconds = (self._iterations - iteration) * pace
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - now)
        return max(seconds, 0.0) / 60


class StopOnInterrupt:
    """Turns the first Ctrl-C (or SIGTERM) into a request; a second one interrupts."""

    def __enter__(self):
        self.asked = False
        self._previous = {s: signal.signal(s, self._ask) for s in self._SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this iteration, with a checkpoint", file=sys.stderr)

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
