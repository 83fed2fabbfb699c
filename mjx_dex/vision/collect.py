"""``python -m mjx_dex.vision.collect RUN``: states of a policy, to train a net on.

Section 5.2: the policy plays in its randomized worlds until there are a million.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from mjx_dex import runs, settings
from mjx_dex.config import Config
from mjx_dex.files import with_folder
from mjx_dex.play import Play
from mjx_dex.vision.states import QUATERNION

LENGTH = QUATERNION.stop
"""Of a state: all of ``qpos``."""


@dataclass(frozen=True)
class CollectCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    states: int = 1_000_000
    """How many."""
    worlds: int = 512
    """Played in parallel."""
    every: int = 5
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
    for name in ("states", "every"):
        if getattr(command, name) < 1:
            raise ValueError(f"--{name}: {getattr(command, name)} is not 1 or more")
    config = settings.config_of(command)
    play = Play(config, runs.load_policy(run, config).agent, command.worlds)
    unfinished = with_folder(out).with_suffix(".unfinished")
    states = open_memmap(unfinished, "w+", np.float32, (command.states, LENGTH))
    done, key = 0, jax.random.key(config.seed)
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
    unfinished.replace(out)
    print(f"saved {out}: {command.states:,} states, {out.stat().st_size / 1e6:.0f} MB")
    print(f"  train: python -m mjx_dex.vision.train --states.path {out}")


if __name__ == "__main__":
    sys.exit(main())
