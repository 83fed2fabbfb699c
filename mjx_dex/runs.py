"""What came out of a run: its configuration and its policy, for other commands."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
import mujoco

from mjx_dex import mujoco_warnings, settings, sources, startup
from mjx_dex.checkpoints import CheckpointError
from mjx_dex.config import Config, replace
from mjx_dex.learning import resuming
from mjx_dex.learning.agent import Agent
from mjx_dex.sources import Source
from mjx_dex.train import make_trainer
from robot_bridge import policies

C = TypeVar("C", bound=Config)

PROTOCOL = {"task.goal.seconds": 80.0, "task.goal.count": 50}
"""A trial's limits (section 6.2), where a training episode's are those of C.1."""


@dataclass(frozen=True)
class Policy:
    """Networks as a run left them."""

    agent: Agent
    env_steps: int
    """They were trained for."""
    source: Source | None = None
    """Where they are from; None before training."""

    @property
    def history(self) -> str:
        """What a report says of it."""
        origin = self.source.origin if self.source else ""
        before = f" after {origin}" if origin else ""
        return f"trained for {self.env_steps:,} env steps{before}"


def command_line(
    command: Callable[[list[str]], None], arguments: list[str] | None
) -> int:
    """Run a command that reads a run; what a user can mend is told in one line.

    Args:
        command: does it, given the command line without the program's name.
        arguments: the process's own if None.

    Returns:
        The exit status.
    """
    startup.set_up()
    try:
        startup.check_jax()
        command(sys.argv[1:] if arguments is None else arguments)
    except mujoco.FatalError as error:
        reason = f"{error}; try MUJOCO_GL=egl or osmesa in the environment"
        print(f"error: nothing can be drawn: {reason}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        mujoco_warnings.report()
    return 0


def load_config(run: Path) -> Config:
    """The configuration of a run, or of a bundle.

    Raises:
        ValueError: if there is neither in that folder.
    """
    return sources.config_of(run)


def from_command_line(
    command: type[C],
    arguments: list[str],
    description: str,
    changes: dict[str, object] | None = None,
) -> tuple[Path, C]:
    """Parse a command that reads a run: its folder, then options.

    Args:
        command: a dataclass derived from ``Config``: options change the run's own.
        arguments: the command line without the program's name.
        description: for ``--help``; its first line says how the command is called.
        changes: what differs from the run's configuration unless an option says so.

    Raises:
        ValueError: if there is no run, bundle or packaged policy of that name.
    """
    if {"-h", "--help"} & set(arguments):
        base = Config()
        arguments = ["", "--help"]
    elif not arguments or arguments[0].startswith("-"):
        usage = description.splitlines()[0].split("``")[1]
        raise ValueError(f"give a run's folder: {usage}")
    else:
        base = load_config(Path(arguments[0]))
    base = replace(base, **PROTOCOL | (changes or {}))
    parsed = settings.from_command_line(command, base, arguments[1:], description)
    return policies.find(arguments[0]), parsed


def load_policy(run: Path, config: Config, untrained: bool = False) -> Policy:
    """The policy of a run's latest checkpoint, or of a bundle.

    Args:
        run: folder.
        config: of the run, or one whose worlds differ: object, hand, physics,
            randomization, goals.
        untrained: as it was before training.

    Raises:
        CheckpointError: if there is none, or its networks are not of this
            configuration.
        ValueError: if it is asked for as before training, and began with another run's.
    """
    # Its own engine may not run here, and its environments are not needed.
    small = {"engine": "native", "num_envs": 1, "bank.size": 1, "bank.starting": 1}
    small |= {"ppo.minibatch_size": None, "ppo.accumulation": 1}
    trainer = make_trainer(replace(config, **small), jax.local_devices()[:1])
    source = sources.read(run)
    if untrained:
        if source.origin or not (run / "config.yaml").exists():
            raise ValueError(
                f"--untrained: {run} did not begin with new networks, but with those "
                f"of {source.origin or 'another run'}; give that run, with these "
                "environments"
            )
        key = jax.random.key(source.config.seed)
        return Policy(trainer.agent(trainer.init(key)), env_steps=0)
    try:
        agent = resuming.agent(trainer, source.arrays)
    except ValueError as error:
        raise CheckpointError(f"{run}: {error}") from error
    return Policy(agent, source.env_steps, source)
