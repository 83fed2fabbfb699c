"""``python -m robot_bridge.guard``: holds the hand when the bridge dies.

Shadow's controllers follow their last target for ever. The guard has a connection of
its own and listens to the bridge's heartbeat; when that stops while the hand is
commanded, it sends the measured pose once, and lets go of it little by little. ``run``
starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from robot_bridge import bundle, policies, terminal
from robot_bridge.controller import COMMANDING, Command, actuator_limits
from robot_bridge.ros_options import ros_options
from robot_bridge.safety import State
from robot_bridge.task import Task

SILENCE = 0.2
"""Without a heartbeat for so long, the guard takes over [s]."""
RELEASE = ((2.0, 0.3), (10.0, 0.0))
"""Times after that [s], and the share of force from then on."""

REPEATS = 5
"""Times that the pose is sent, ``SILENCE / 4`` apart: a bridge that wakes late may send
one last target."""

COMMANDED = {state.value for state in COMMANDING if state is not State.LIMP}
"""States in which a silent bridge leaves a hand that pushes against something."""


class NoGuard:
    """Stands in where there is none: in lockstep no process can die alone."""

    def beat(self, state: State, force: float) -> None:
        """Nobody listens."""

    def heard(self) -> str:
        """Nobody speaks."""
        return ""

    def close(self, clean: bool) -> None:
        """Nothing to end."""


class Guard:
    """The bridge's end: starts the process, feeds it heartbeats.

    Args:
        arguments: how the guard reaches the hand: see ``main``.
    """

    def __init__(self, arguments: list[str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robot_bridge.guard", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C in the terminal is for the bridge.
            start_new_session=True,
        )
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stdout.fileno(), False)
        self._message, self._pending = "", b""

    def wait_until_ready(self, timeout: float) -> None:
        """Return when it has reached the hand.

        Raises:
            RuntimeError: if it has not in that time [s].
        """
        deadline = time.monotonic() + timeout
        while not self._read():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the guard process did not start; nothing is armed")
            time.sleep(0.02)
        self._message = ""

    def beat(self, state: State, force: float) -> None:
        """Say that the bridge lives, what it is doing, and with what force."""
        line = f"{state.value} {force}\n"
        try:
            os.write(self._process.stdin.fileno(), line.encode())
        except BlockingIOError:
            pass  # it does not listen; ``heard`` tells if it is gone
        except OSError:
            self._message = "the guard process is gone"

    def heard(self) -> str:
        """What is wrong according to the guard; '' if nothing."""
        self._read()
        if self._process.poll() is not None:
            self._message = self._message or "the guard process is gone"
        return self._message

    def close(self, clean: bool) -> None:
        """Let it go.

        Args:
            clean: the hand was left as it should be. Otherwise the guard is not told
                so, and takes over.
        """
        with contextlib.suppress(OSError):
            if clean:
                os.write(self._process.stdin.fileno(), b"bye 0\n")
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if clean:
            self._process.wait(timeout=15)
        self._process.stdout.close()

    def _read(self) -> str:
        """The last whole line that it has said so far."""
        with contextlib.suppress(BlockingIOError):
            self._pending += os.read(self._process.stdout.fileno(), 4096)
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            self._message = line.decode().strip() or self._message
        return self._message


def main(arguments: list[str] | None = None) -> int:
    """Guard a hand until the bridge says bye; returns the exit status."""
    terminal.make_printable()
    parser = argparse.ArgumentParser(
        prog="python -m robot_bridge.guard", description=__doc__.splitlines()[0]
    )
    parser.add_argument("bundle", type=policies.find)
    hand = parser.add_mutually_exclusive_group(required=True)
    hand.add_argument("--socket", type=Path, help="of a simulated hand")
    hand.add_argument("--ros", type=ros_options, help="options of ros1, a JSON object")
    options = parser.parse_args(arguments)
    try:
        loaded = bundle.load(options.bundle)
        transport = _transport(options, loaded)
        info = transport.connect(timeout=10.0)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("ready", flush=True)
    watch(transport, Task(loaded.manifest), actuator_limits(loaded, info))
    transport.close()
    return 0


def _transport(options: argparse.Namespace, loaded: bundle.Bundle):
    if options.socket:
        from robot_bridge.transports.socket import SocketHand

        return SocketHand(options.socket)
    from robot_bridge.transports.ros1 import RosHand

    return RosHand(loaded.manifest, node="dex_guard", **options.ros)


def watch(transport, task: Task, limits: np.ndarray) -> None:
    """Listen to heartbeats on the standard input; take over when they stop.

    Args:
        transport: to the hand.
        task: knows which joints are coupled.
        limits: [20, 2] of actuators [rad].
    """
    state, force, last, buffer = State.CONNECT.value, 0.0, time.monotonic(), b""
    pipe = sys.stdin.fileno()
    while True:
        readable, _, _ = select.select([pipe], [], [], SILENCE / 4)
        snapshot = transport.latest()
        ended = False
        if readable:
            data = os.read(pipe, 65536)
            ended, buffer = not data, buffer + data
            *lines, buffer = buffer.split(b"\n")
            if lines:
                state, number = lines[-1].decode().split()
                force, last = float(number), time.monotonic()
        if state == "bye":
            return
        silent = time.monotonic() - last > SILENCE
        if (ended or silent) and state in COMMANDED:
            why = "ended" if ended else f"was silent for {1000 * SILENCE:.0f} ms"
            pose = measured_pose(snapshot, task, limits)
            take_over(transport, pose, force, f"the bridge {why}")
            return
        if ended:
            return


def measured_pose(snapshot, task: Task, limits: np.ndarray) -> np.ndarray | None:
    """[20] as targets; None if it is not known."""
    angles = None if snapshot.joints is None else snapshot.joints.value
    if angles is None or not np.isfinite(angles).all():
        return None
    return np.clip(task.actuator_angles(angles), *limits.T)


def take_over(
    transport,
    pose: np.ndarray | None,
    force: float,
    why: str,
    clock=time,
) -> None:
    """Hold a pose, then with less and less force. Nothing else ever.

    Args:
        transport: to the hand.
        pose: [20] measured; None makes the hand limp at once.
        force: that the bridge used; it is never exceeded.
        why: for the log.
        clock: with ``monotonic`` and ``sleep``.
    """
    began = clock.monotonic()
    force = 0.0 if pose is None else force
    transport.send(Command(pose, force))
    message = f"the guard took over: {why}"
    # The bridge, which may only have slept, must not go on as if nothing had been; it,
    # and the terminal, may also be gone.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            print(message, file=stream, flush=True)
    for _ in range(REPEATS):
        clock.sleep(SILENCE / 4)
        transport.send(Command(pose, force))
    for after, share in RELEASE:
        clock.sleep(max(0.0, began + after - clock.monotonic()))
        transport.send(Command(None if share == 0 else pose, min(force, share)))


if __name__ == "__main__":
    sys.exit(main())
