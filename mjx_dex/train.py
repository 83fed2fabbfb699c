"""``python -m mjx_dex.train``: train a policy, or go on with a run that was stopped."""

import dataclasses
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jax

from mjx_dex import report, settings
from mjx_dex.config import Config
from mjx_dex.learning import Trainer
from mjx_dex.learning.checkpoints import CheckpointError, Checkpoints
from mjx_dex.task import BankedEnvironments, make_env

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
    """Go on from the run's latest checkpoint."""
    max_minutes: float | None = None
    """Stop, with a checkpoint, after so many minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    started = time.monotonic()
    set_up_process()
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        config = settings.config_of(command)
        run_dir = prepare_run(command, config)
        train(config, run_dir, command.resume, command.max_minutes, started)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
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
    if "--resume" in arguments:
        run_dir = run_dir or latest_run()
        base = base or run_dir / "config.yaml"
    if base is None:
        base = "quickstart" if jax.default_backend() == "cpu" else "single_gpu"
        log.info("configuration: %s (JAX runs on %s)", base, jax.default_backend())
    command = settings.from_command_line(
        TrainCommand, settings.load(base), arguments, description=__doc__
    )
    return dataclasses.replace(command, run_dir=run_dir)


def latest_run() -> Path:
    """The run in ``runs/`` that was written to last."""
    runs = sorted(RUNS.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ValueError(f"--resume: there is no run in {RUNS.resolve()}")
    return runs[-1].parent


def prepare_run(command: TrainCommand, config: Config) -> Path:
    """Make the run's folder and write its resolved configuration there."""
    run_dir = command.run_dir or RUNS / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if not command.resume and (run_dir / "config.yaml").exists():
        raise ValueError(
            f"--run-dir: {run_dir} holds a run already; add --resume to go on with it"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    settings.save(config, run_dir / "config.yaml")
    return run_dir


def make_trainer(config: Config) -> Trainer:
    """Environments and networks of a configuration, on all local devices.

    Raises:
        ValueError: if ``num_envs`` cannot be split over the devices.
    """
    devices = jax.local_devices()
    if config.num_envs % len(devices):
        raise ValueError(
            f"num_envs ({config.num_envs}) must be a multiple of the number of "
            f"devices ({len(devices)})"
        )
    vector_env = BankedEnvironments(
        make_env(config), config.num_envs // len(devices), config.bank
    )
    return Trainer(vector_env, config.network, config.ppo, devices)


def train(
    config: Config,
    run_dir: Path,
    resume: bool,
    max_minutes: float | None,
    started: float,
) -> None:
    """Train until ``max_env_steps``, ``max_minutes`` or Ctrl-C, saving on the way.

    Args:
        config: of the run.
        run_dir: where everything is written.
        resume: whether to begin with the latest checkpoint.
        max_minutes: since ``started``.
        started: ``time.monotonic()`` when the command began.
    """
    trainer = make_trainer(config)
    checkpoints = Checkpoints(run_dir / "checkpoints")
    key = jax.random.key(config.seed)
    if resume:
        learner = checkpoints.restore(trainer, key)
    else:
        log.info("run: %s; starting %d worlds", run_dir, config.num_envs)
        learner = trainer.init(key)
        trainer.vector_env.check(learner.actors.env_state)
    iteration = int(learner.iteration)
    run_log = report.RunLog(run_dir, config.max_env_steps, iteration)
    clock = Clock(config, trainer.steps_per_iteration, max_minutes, started)
    last_saved = time.monotonic()
    with StopOnInterrupt() as interrupt:
        while not (interrupt.asked or clock.is_over(iteration)):
            begun = time.monotonic()
            learner, metrics = trainer.iterate(learner)
            metrics = jax.device_get(metrics)
            iteration += 1
            row = report.summarize(
                metrics,
                env_steps=trainer.steps_per_iteration,
                total_env_steps=iteration * trainer.steps_per_iteration,
                seconds=time.monotonic() - begun,
            )
            run_log.write(iteration, row, clock.minutes_left(iteration))
            if time.monotonic() - last_saved > 60 * config.checkpoint_minutes:
                checkpoints.save(learner)
                last_saved = time.monotonic()
        run_log.close()
        checkpoints.save(learner)
        checkpoints.close()
    report.plot_learning_curve(run_dir)
    print(f"saved {run_dir} at {iteration * trainer.steps_per_iteration:,} env steps")
    print(f"  go on:    python -m mjx_dex.train --resume --run-dir {run_dir}")
    print(f"  evaluate: python -m mjx_dex.evaluate {run_dir}")


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
