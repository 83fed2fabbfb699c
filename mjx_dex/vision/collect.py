"""``python -m mjx_dex.vision.collect RUN``: states of a policy, to train a net on.

Section 5.2: the policy plays in its randomized worlds until there are a million.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from mjx_dex import runs, settings
from mjx_dex.config import Config
from mjx_dex.play import Play
from mjx_dex.ranges import Count
from mjx_dex.vision.states import QUATERNION
from robot_bridge import terminal
from robot_bridge.files import Output, check_outputs, written_at_once

LENGTH = QUATERNION.stop
"""Of a state: all of ``qpos``."""


@dataclass(frozen=True)
class CollectCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    states: Count = 1_000_000
    """How many."""
    worlds: Count = 512
    """Played in parallel."""
    every: Count = 5
    """Take every so-manieth control step of a world: neighbours look alike."""
    out: Path | None = None
    """File to write; RUN/states.npy by default. A bundle's states need one."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    run, command = runs.from_command_line(CollectCommand, arguments, __doc__)
    if command.out is None and not (run / "config.yaml").exists():
        raise ValueError(f"--out: {run} is a bundle; give a file for its states")
    out = command.out or run / "states.npy"
    if out.exists():
        raise ValueError(f"--out: {out} is there already; give another file")
    check_outputs(Output("--out", out))
    for name in ("states", "every"):
        if getattr(command, name) < 1:
            raise ValueError(f"--{name}: {getattr(command, name)} is not 1 or more")
    config = settings.config_of(command)
    play = Play(config, runs.load_policy(run, config).agent, command.worlds)
    with written_at_once(out) as unfinished:
        collect(play, command, unfinished)
    print(f"saved {out}: {command.states:,} states, {out.stat().st_size / 1e6:.0f} MB")
    train = terminal.shell_command("mjx_dex.vision.train", "--states.path", out)
    print(f"  train: {train}")


def collect(play: Play, command: CollectCommand, path: Path) -> None:
    """Write states of worlds at play to a file."""
    states = open_memmap(path, "w+", np.float32, (command.states, LENGTH))
    with path.open("r+b") as file:
        # A disk that is too small is reported now, not by a bus error later.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    done, key = 0, jax.random.key(command.seed)
    with tqdm(total=command.states, unit=" states", disable=None) as bar:
        for number, (_, after, _) in enumerate(play.steps(key)):
            if number % command.every:
                continue
            qpos = np.asarray(after.state.worlds.physics.qpos)[: command.states - done]
            states[done : done + len(qpos)] = qpos
            done += len(qpos)
            bar.update(len(qpos))
            if done == command.states:
                break
    states.flush()


if __name__ == "__main__":
    sys.exit(main())
