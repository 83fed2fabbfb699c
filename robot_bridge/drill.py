"""``python -m robot_bridge.drill BUNDLE``: everything that can go wrong, on purpose.

A bridge runs a simulated hand, in processes of their own; something is broken; how long
the hand goes on being moved is measured at the hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from robot_bridge import bundle as bundles
from robot_bridge import policies, terminal
from robot_bridge.arguments import Number
from robot_bridge.controller import Command
from robot_bridge.guard import SILENCE
from robot_bridge.transports.socket import SocketHand

STARTING = 30.0
"""Processes that have not started in this time never will [s]."""
AFTERWARDS = 1.5
"""For so long after its reaction the hand is watched [s]."""
QUIET = 1.0
"""Time at the end of an exercise in which nothing may move the hand [s]."""
ATTEMPTS = 10
"""Until the policy does not drop the object before the fault shows."""
STILL = 1e-3
"""Targets that change by less do not move the hand [rad]."""


@dataclass(frozen=True)
class Exercise:
    """One thing that goes wrong."""

    name: str
    limit: float | None
    """The hand must be held or limp after this [s]; None: it must go on."""
    act: Callable[[Stage], None]
    ros_only: bool = False


@dataclass
class Outcome:
    """What came of an exercise."""

    name: str
    reaction: float | None
    """Time from the fault until the bridge has stopped and the last command that moves
    the hand has reached it [s]; None if it never stopped."""
    reason: str
    """What the bridge or its guard said."""
    moved_afterwards: bool
    """Whether a command moved the hand in the last ``QUIET`` seconds."""
    limit: float | None

    @property
    def is_good(self) -> bool:
        """Whether it went as it should."""
        if self.limit is None:
            return self.reaction is None and self.moved_afterwards
        held = self.reaction is not None and self.reaction <= self.limit
        return held and not self.moved_afterwards and bool(self.reason)


class Stage:
    """A simulated hand, a bridge that runs it, and on ROS a master.

    Args:
        bundle: path of the policy's.
        ros: through ROS.
        folder: for sockets, logs and recordings.
        seed: of hand, goals and actions.
        limit_files: bytes that the bridge may write to a file; None: any number.
    """

    def __init__(
        self,
        bundle: Path,
        ros: bool,
        folder: Path,
        seed: int = 1,
        limit_files: int | None = None,
    ):
        self.folder, self._processes = folder, []
        environment = dict(os.environ)
        self.master = None
        if ros:
            environment.update(ros_environment(folder))
            port = environment["ROS_MASTER_URI"].rsplit(":", 1)[1]
            self.master = self._start(["rosmaster", "--core", "-p", port], environment)
        path = folder / "hand"
        module = [sys.executable, "-m"]
        driver = [*module, "robot_bridge.sim_hand", bundle, "--socket", path]
        driver += ["--log", folder / "commands", "--seed", seed, *["--ros"] * ros]
        self.driver = self._start(driver, environment)
        self.control = SocketHand(path)
        try:
            said = self.driver.stdout.readline()
            if self.driver.poll() is not None or said.startswith("error: "):
                raise RuntimeError(said.strip().replace("error: ", "", 1))
            self.control.connect(STARTING)
        except Exception:
            self.close()
            raise
        through_ros = ["--transport", "ros1", "--arm", "--rehearse"]
        reach = through_ros if ros else ["--socket", path]
        bridge = [*module, "robot_bridge.run", bundle, *reach, "--events"]
        # Goals without end: nothing but the fault may end the trial.
        bridge += ["--seconds", "600", "--goals", "1000", "--trials", "1"]
        bridge += ["--record", folder / "drill.mcap", "--seed", seed]
        self.bridge = self._start(bridge, environment, limit_files)
        self.events: list[dict] = []
        self.lines: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_for(self, state: str, timeout: float = STARTING) -> dict:
        """The event that brought the bridge into a state.

        Raises:
            RuntimeError: if that does not come in this time [s].
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for event in list(self.events):
                if event["to"] == state:
                    return event
            time.sleep(0.01)
        raise RuntimeError(f"the bridge never was {state}: {self.lines[-5:]}")

    def commands(self) -> list[dict]:
        """What the hand was told, and when faults began."""
        text = (self.folder / "commands").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            for number in (signal.SIGCONT, signal.SIGTERM):
                if process.poll() is None:
                    process.send_signal(number)
        for process in reversed(self._processes):
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self.control.close()

    def _start(self, command, environment, limit_files=None) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
        if limit_files is not None:
            sizes = (limit_files, limit_files)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, sizes)
        self._processes.append(process)
        return process

    def _listen(self) -> None:
        for line in self.bridge.stdout:
            if line.startswith("{"):
                self.events.append(json.loads(line))
            else:
                self.lines.append(line.strip())


def ros_environment(folder: Path) -> dict[str, str]:
    """Of a ROS master of its own, which nobody else will meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "ROS_MASTER_URI": f"http://127.0.0.1:{port}",
        "ROS_IP": "127.0.0.1",
        "ROS_HOME": str(folder),
    }


def _inject(kind: str, channel: str = "all", amount: float = 0.0):
    def act(stage: Stage) -> None:
        stage.control.inject({"kind": kind, "channel": channel, "amount": amount})

    return act


def _signal(process: str, number: int):
    def act(stage: Stage) -> None:
        getattr(stage, process).send_signal(number)

    return act


def _stall(stage: Stage) -> None:
    """As an inference that takes half a second."""
    stage.bridge.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    stage.bridge.send_signal(signal.SIGCONT)


def _interfere(stage: Stage) -> None:
    """Somebody else publishes targets, ten times a second."""
    pose = stage.control.latest().set_points.value

    def publish():
        with contextlib.suppress(OSError):  # the stage may be closed before its end
            for _ in range(10):
                stage.control.send(Command(pose + 0.2, 1.0))
                time.sleep(0.1)

    threading.Thread(target=publish, daemon=True).start()


def _fill_disk(stage: Stage) -> None:
    """Nothing to do: the disk is so small that it is full soon after the start."""


EXERCISES = (
    Exercise("a fifth of messages dropped", None, _inject("drop", amount=0.2)),
    Exercise("messages three times", None, _inject("duplicate")),
    Exercise("messages in wrong order", None, _inject("reorder")),
    Exercise("sensors' clocks an hour on", None, _inject("clock", amount=3600.0)),
    Exercise("no joint angles", 0.15, _inject("silence", "joints")),
    Exercise("no markers", 0.35, _inject("silence", "markers")),
    Exercise("no object pose", 0.35, _inject("silence", "object")),
    Exercise("all later and later", 0.8, _inject("delay", amount=0.2)),
    Exercise("joint angles frozen", 0.4, _inject("freeze", "joints")),
    Exercise("markers frozen", 1.3, _inject("freeze", "markers")),
    Exercise("object pose frozen", 0.4, _inject("freeze", "object")),
    Exercise("NaN in joint angles", 0.15, _inject("nan", "joints")),
    Exercise("NaN in a base marker", 1.3, _inject("nan", "markers")),
    Exercise("NaN in the object pose", 0.2, _inject("nan", "object")),
    Exercise("mirrored axes", 0.8, _inject("mirror")),
    Exercise("two fingers' markers swapped", 0.8, _inject("swap", "markers")),
    Exercise("driver killed", 0.15, _signal("driver", signal.SIGKILL)),
    Exercise("driver stopped", 0.15, _signal("driver", signal.SIGSTOP)),
    Exercise("bridge killed", 0.35, _signal("bridge", signal.SIGKILL)),
    Exercise("bridge stopped", 0.35, _signal("bridge", signal.SIGSTOP)),
    Exercise("inference stalled for 500 ms", 0.35, _stall),
    Exercise("a second commander", 0.6, _interfere),
    Exercise("disk full", 0.5, _fill_disk),
    Exercise("ROS master killed", 1.2, _signal("master", signal.SIGKILL), True),
)


def run(exercise: Exercise, bundle: Path, ros: bool) -> Outcome:
    """Do one exercise from start to end, again if the policy drops the object first."""
    for seed in range(1, ATTEMPTS + 1):
        outcome = _run_once(exercise, bundle, ros, seed)
        if outcome.reason != "dropped":
            return outcome
    raise RuntimeError(f"{exercise.name}: the policy drops the object too soon")


def _run_once(exercise: Exercise, bundle: Path, ros: bool, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="dex_") as folder:
        small = 200_000 if exercise.act is _fill_disk else None
        stage = Stage(bundle, ros, Path(folder), seed, small)
        try:
            stage.wait_for("running")
            time.sleep(0.7)
            began = time.monotonic()
            exercise.act(stage)
            return _watch(stage, exercise, began)
        finally:
            stage.close()


def _watch(stage: Stage, exercise: Exercise, began: float) -> Outcome:
    """Wait for the reaction, and see that nothing follows."""
    patience = (exercise.limit or 2.0) + 1.0
    if exercise.act is _fill_disk:
        patience += 15.0
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if any(event["to"] in ("hold", "limp") for event in stage.events):
            break
        if stage.bridge.poll() is not None:
            break
        time.sleep(0.01)
    time.sleep(AFTERWARDS)
    held = [event for event in stage.events if event["to"] in ("hold", "limp")]
    if exercise.act is _fill_disk:
        written = (stage.folder / "drill.mcap").stat().st_mtime
        began = written - time.time() + time.monotonic()
    guards = [line for line in stage.lines if "guard took over" in line]
    moves = _moves(stage, began)
    return outcome_of(exercise, began, time.monotonic(), moves, held, guards)


def outcome_of(
    exercise: Exercise,
    began: float,
    ended: float,
    moves: list[float],
    stops: list[dict],
    guards: list[str],
) -> Outcome:
    """Outcome of an exercise, from what was recorded.

    Args:
        exercise: the fault.
        began: time of the fault [s].
        ended: time until which the hand was watched [s].
        moves: times at which commands that move the hand reached it [s].
        stops: the bridge's changes to HOLD or LIMP.
        guards: the guard's messages that it took over.
    """
    last = moves[-1] if moves else began
    if guards:
        # The guard commands a pose, too, and not before the silence.
        silence = 0.0 if "ended" in guards[0] else SILENCE
        reason, end = guards[0], last if last >= began + 0.8 * silence else None
    elif stops:
        # The pose to hold arrives after the decision, on busy cores much later.
        reason, end = stops[0]["why"], max(stops[0]["monotonic"], last)
    else:
        reason, end = "", None
    reaction = None if end is None else max(0.0, end - began)
    moved = last > max(began, ended - QUIET)
    return Outcome(exercise.name, reaction, reason, moved, exercise.limit)


def _moves(stage: Stage, since: float) -> list[float]:
    """Times of commands that asked for another pose than those before; not of what this
    process sends, as the other commander."""
    times, last = [], None
    for entry in stage.commands():
        if not entry.get("targets") or entry["from"] == stage.control.address:
            continue
        targets = np.array(entry["targets"])
        moved = last is None or np.abs(targets - last).max() > STILL
        if moved and entry["time"] > since:
            times.append(entry["time"])
        last = targets
    return times


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    terminal.make_printable()
    parser = argparse.ArgumentParser(
        prog="python -m robot_bridge.drill", description=__doc__.split("\n")[0]
    )
    parser.add_argument("bundle", type=policies.find)
    parser.add_argument("--ros", action="store_true", help="through a ROS master")
    parser.add_argument("--only", help="exercises whose name has this in it")
    times = "of each exercise: %(type)s (default: 1)"
    parser.add_argument(
        "--times", type=Number(1, 1000, is_whole=True), default=1, help=times
    )
    options = parser.parse_args(arguments)
    chosen = [
        exercise
        for exercise in EXERCISES
        if exercise.ros_only <= options.ros and (options.only or "") in exercise.name
    ]
    if not chosen:
        names = "; ".join(exercise.name for exercise in EXERCISES)
        print(f"error: nothing to do; there is: {names}", file=sys.stderr)
        return 1
    try:
        bundles.load(options.bundle)
        return _carry_out(chosen, options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _carry_out(chosen: list[Exercise], options: argparse.Namespace) -> int:
    """Do exercises and print their table; returns the exit status."""
    print("| fault | reaction, median / worst | limit | said |\n|---|---|---|---|")
    good = True
    for exercise in chosen:
        outcomes = [
            run(exercise, options.bundle, options.ros) for _ in range(options.times)
        ]
        print(_row(exercise, outcomes), flush=True)
        good = good and all(outcome.is_good for outcome in outcomes)
    return good


def _row(exercise: Exercise, outcomes: list[Outcome]) -> str:
    times = [o.reaction for o in outcomes if o.reaction is not None]
    if times:
        shown = f"{1000 * np.median(times):.0f} / {1000 * max(times):.0f} ms"
    else:
        shown = "goes on"
    limit = "goes on" if exercise.limit is None else f"{1000 * exercise.limit:.0f} ms"
    worst = next((o for o in outcomes if not o.is_good), None)
    said = (worst or outcomes[0]).reason
    if worst:
        moved = worst.moved_afterwards
        said += f" **{'MOVED AFTERWARDS' if moved else 'NOT AS IT SHOULD BE'}**"
    return f"| {exercise.name} | {shown} | {limit} | {said} |"


if __name__ == "__main__":
    sys.exit(main())
