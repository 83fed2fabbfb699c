"""Where a run's experience is from: which runs before it, which machines, how much."""

import dataclasses
import json
import platform
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jax

from mjx_dex.config import Config
from robot_bridge.files import write_at_once

FILE = "lineage.json"
"""In a run's folder."""


@dataclass(frozen=True)
class Session:
    """One process that trained a run, from its start to its end."""

    run: str
    """Name of the run's folder."""
    began: str
    """ISO date and time at which the process started."""
    iteration: int
    """Number of iterations before it."""
    env_steps: int
    """Environment steps before it, those of runs that this one continues included."""
    engine: str
    """Physics engine that it trained on."""
    device: str
    """Number and kind of JAX's devices."""
    machine: str
    """Host name of the main process."""
    num_envs: int
    horizon: int
    """Control steps of an environment in one iteration."""
    commit: str | None
    """Of the checkout that it ran from, if it was one."""

    def env_steps_at(self, iteration: int) -> int:
        """Environment steps before an iteration of this session."""
        each = self.num_envs * self.horizon
        return self.env_steps + (iteration - self.iteration) * each


@dataclass(frozen=True)
class Lineage:
    """All sessions that a run's networks have learned in, the oldest first."""

    origin: str = ""
    """The run or bundle that this run continues; empty if it began from nothing."""
    before: tuple[Session, ...] = ()
    """Sessions of that run, and of those that it continues."""
    here: tuple[Session, ...] = ()
    """Sessions of this run."""

    def env_steps(self, iteration: int) -> int:
        """Environment steps that were learned from before an iteration of this run."""
        return self.session_at(iteration).env_steps_at(iteration)

    def session_at(self, iteration: int) -> Session:
        """The session of this run that reached an iteration.

        Raises:
            ValueError: if there is none.
        """
        before = [s for s in self.here if s.iteration <= iteration]
        if not before:
            raise ValueError(
                f"{FILE} begins after iteration {iteration}: it belongs to other "
                "checkpoints"
            )
        return before[-1]

    @property
    def begun_at(self) -> int:
        """Environment steps before this run."""
        return self.here[0].env_steps

    def joined_by(self, session: Session) -> "Lineage":
        """With one session more.

        A session that saved nothing after that iteration has taught nothing and is
        left out.
        """
        kept = [s for s in self.here if s.iteration < session.iteration]
        return dataclasses.replace(self, here=(*kept, session))

    def up_to(self, iteration: int) -> tuple[Session, ...]:
        """All sessions that have taught what an iteration of this run begins with."""
        first, *others = self.here
        return (*self.before, first, *(s for s in others if s.iteration < iteration))


def read(run: Path) -> Lineage:
    """A run's lineage.

    Raises:
        ValueError: if it is damaged or not there.
    """
    path = run / FILE
    if not path.exists():
        raise ValueError(
            f"{path} is not there: an earlier version of mjx_dex made this run; export "
            "a bundle with that version, which train --from-run continues"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Lineage(
            content["origin"], sessions(content["before"]), sessions(content["here"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def sessions(rows: list[dict[str, Any]]) -> tuple[Session, ...]:
    """Sessions from what ``plain`` made of them.

    Raises:
        ValueError: if a field is missing or unknown.
    """
    try:
        return tuple(Session(**row) for row in rows)
    except TypeError as error:
        raise ValueError(f"a session of the lineage is damaged: {error}") from error


def plain(rows: tuple[Session, ...]) -> list[dict[str, Any]]:
    """Sessions as JSON holds them."""
    return [dataclasses.asdict(session) for session in rows]


def write(run: Path, lineage: Lineage) -> None:
    """Write a run's lineage into its folder."""
    content = {
        "origin": lineage.origin,
        "before": plain(lineage.before),
        "here": plain(lineage.here),
    }
    write_at_once(run / FILE, json.dumps(content, indent=1))


def session_of(
    config: Config,
    run: Path,
    engine: str,
    iteration: int,
    env_steps: int,
    started: float,
) -> Session:
    """The session that this process begins.

    Args:
        config: of the run.
        run: its folder.
        engine: that it trains on.
        iteration: number of iterations before it.
        env_steps: before it.
        started: ``time.monotonic()`` when the process began.
    """
    age = timedelta(seconds=time.monotonic() - started)
    return Session(
        run=run.resolve().name,
        began=(datetime.now() - age).isoformat(timespec="seconds"),
        iteration=iteration,
        env_steps=env_steps,
        engine=engine,
        device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        machine=platform.node(),
        num_envs=config.num_envs,
        horizon=config.ppo.horizon,
        commit=commit(),
    )


def commit() -> str | None:
    """Of the checkout that this runs from, if it is one."""
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True
        )
    except OSError:
        return None
    return result.stdout.strip() or None
