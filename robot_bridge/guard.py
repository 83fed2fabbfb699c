"""``python -m robot_bridge.guard``: holds the hand when the bridge dies.

Shadow's controllers follow their last target for ever. The guard has a connection of
its own and listens to the bridge's heartbeat; when that stops while the hand is
commanded, it sends the measured pose once, and lets go of it little by little. ``run``
starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from robot_bridge import bundle
from robot_bridge.controller import Command, actuator_limits
from robot_bridge.safety import State
from robot_bridge.task import Task

SILENCE = 0.2
"""Without a heartbeat for so long, the guard takes over [s]."""
RELEASE = ((2.0, 0.3), (10.0, 0.0))
"""Times after that [s], and the share of force from then on."""

COMMANDED = {State.ARMED.value, State.RUNNING.value, State.HOLD.value}
"""States in which a silent bridge leaves a hand that pushes against something."""


class NoGuard:
    """Stands in where there is none: in lockstep no process can die alone."""

    def beat(self, state: State) -> None:
        """Nobody listens."""

    def heard(self) -> str:
        """Nobody speaks."""
        return ""

    def close(self) -> None:
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
        self._message = ""

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

    def beat(self, state: State) -> None:
        """Say that the bridge lives, and what it is doing."""
        try:
            os.write(self._process.stdin.fileno(), f"{state.value}\n".encode())
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

    def close(self) -> None:
        """End it in good order."""
        try:
            os.write(self._process.stdin.fileno(), b"bye\n")
            self._process.stdin.close()
        except OSError:
            pass
        self._process.wait(timeout=15)
        self._process.stdout.close()

    def _read(self) -> str:
        try:
            data = os.read(self._process.stdout.fileno(), 4096)
        except BlockingIOError:
            return ""
        if data:
            self._message = data.decode().strip().splitlines()[-1]
        return self._message


def main(arguments: list[str] | None = None) -> int:
    """Guard a hand until the bridge says bye; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--socket", type=Path)
    parser.add_argument("--ros", type=json.loads, help="options of the ROS transport")
    options = parser.parse_args(arguments)
    loaded = bundle.load(options.bundle)
    if options.socket:
        from robot_bridge.transports.socket import SocketHand

        transport = SocketHand(options.socket)
    else:
        from robot_bridge.transports.ros1 import RosHand

        transport = RosHand(loaded.manifest, node="dex_guard", **options.ros)
    info = transport.connect(timeout=10.0)
    print("ready", flush=True)
    watch(transport, Task(loaded.manifest), actuator_limits(loaded, info))
    transport.close()
    return 0


def watch(transport, task: Task, limits: np.ndarray) -> None:
    """Listen to heartbeats on the standard input; take over when they stop.

    Args:
        transport: to the hand.
        task: knows which joints are coupled.
        limits: [20, 2] of actuators [rad].
    """
    state, last, buffer = State.CONNECT.value, time.monotonic(), b""
    pipe = sys.stdin.fileno()
    while True:
        readable, _, _ = select.select([pipe], [], [], SILENCE / 4)
        snapshot = transport.latest()
        ended = False
        if readable:
            data = os.read(pipe, 65536)
            ended, buffer = not data, buffer + data
            lines = buffer.split(b"\n")
            buffer = lines.pop()
            if lines:
                state, last = lines[-1].decode(), time.monotonic()
        if state == "bye":
            return
        silent = time.monotonic() - last > SILENCE
        if (ended or silent) and state in COMMANDED:
            why = "ended" if ended else f"was silent for {1000 * SILENCE:.0f} ms"
            hold(transport, task, limits, snapshot, why)
            return
        if ended:
            return


def hold(transport, task: Task, limits: np.ndarray, snapshot, why: str) -> None:
    """Send the measured pose, then less and less force. Nothing else ever."""
    angles, pose = None if snapshot.joints is None else snapshot.joints.value, None
    if angles is not None and np.isfinite(angles).all():
        pose = np.clip(task.actuator_angles(angles), *limits.T)
    began = time.monotonic()
    transport.send(Command(pose, 0.0 if pose is None else 1.0))
    message = f"the guard took over: the bridge {why}"
    print(message, file=sys.stderr, flush=True)
    # The bridge, which may only have slept, must not go on as if nothing had been.
    with contextlib.suppress(BrokenPipeError):
        print(message, flush=True)
    if pose is None:
        return
    for after, force in RELEASE:
        time.sleep(max(0.0, began + after - time.monotonic()))
        transport.send(Command(None if force == 0 else pose, force))


if __name__ == "__main__":
    sys.exit(main())
