"""A simulated hand in a process of its own, over a unix datagram socket."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from robot_bridge import wire
from robot_bridge.controller import Command
from robot_bridge.messages import HandInfo, Sample, Snapshot
from robot_bridge.terminal import shell_command
from robot_bridge.transports import TransportError

SHAPES = {"markers": (-1, 3)}
"""Of channels that are not flat."""


class SocketHand:
    """See ``Transport``.

    Args:
        path: of the hand's socket.
    """

    def __init__(self, path: Path):
        self._path = Path(path)
        self._folder = tempfile.TemporaryDirectory(prefix="dex_")
        self._own = os.path.join(self._folder.name, "bridge")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._own)
        # A timeout would make sending wait, too, where the hand does not read.
        self._socket.setblocking(False)
        self._sequence = 0
        self._samples: dict[str, Sample] = {}
        self._info: HandInfo | None = None
        self._fault = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def connect(self, timeout: float) -> HandInfo:
        """See ``Transport``."""
        deadline = self.now() + timeout
        while self._info is None:
            if self.now() > deadline:
                raise TransportError(
                    f"no simulated hand answers at {self._path}; start one: "
                    + shell_command(
                        "robot_bridge.sim_hand", "BUNDLE", "--socket", self._path
                    )
                )
            self._say(wire.HELLO, {})
            time.sleep(0.05)
        return self._info

    def now(self) -> float:
        """See ``Transport``."""
        return time.monotonic()

    def wait_until(self, due: float) -> None:
        """See ``Transport``."""
        time.sleep(max(0.0, due - time.monotonic()))

    def latest(self) -> Snapshot:
        """See ``Transport``."""
        known = {name: self._samples.get(name) for name in Snapshot.CHANNELS}
        return Snapshot(**known, fault=self._fault)

    def _listen(self) -> None:
        """In a thread: the kernel keeps a few datagrams only, and drops newer ones."""
        while not self._closed.is_set():
            readable, _, _ = select.select([self._socket], [], [], 0.2)
            if not readable:
                continue
            message = wire.unpack(self._socket.recv(65536))
            if message is not None:
                self._take(message)

    def _take(self, message: wire.Message) -> None:
        if message.kind == wire.INFO:
            limits = {k: tuple(v) for k, v in message.content["limits"].items()}
            self._info = HandInfo(**{**message.content, "limits": limits})
        elif message.kind == wire.SENSOR:
            channel = wire.CHANNELS[int(message.content[0])]
            value = message.content[2:].reshape(SHAPES.get(channel, -1))
            self._samples[channel] = Sample(
                value, time.monotonic(), message.time, message.content[1]
            )
        elif message.kind == wire.BYE:
            self._fault = "the simulated hand was closed"

    def send(self, command: Command) -> None:
        """See ``Transport``."""
        numbers = np.full(21, np.nan)
        numbers[0] = command.force
        if command.targets is not None:
            numbers[1:] = command.targets
        self._say(wire.COMMAND, numbers)

    def new_trial(self, with_object: bool = True) -> None:
        """See ``Transport``."""
        self._say(wire.NEW_TRIAL, {"with_object": with_object})

    @property
    def address(self) -> str:
        """By which the hand knows this user."""
        return self._own

    def inject(self, fault: dict) -> None:
        """Have the hand misbehave: see ``simulation.faults``."""
        self._say(wire.FAULT, fault)

    def close(self) -> None:
        """See ``Transport``."""
        self._say(wire.BYE, {})
        self._closed.set()
        self._thread.join()
        self._socket.close()
        self._folder.cleanup()

    def _say(self, kind: int, content) -> None:
        self._sequence += 1
        data = wire.pack(kind, self._sequence, time.monotonic(), content)
        try:
            self._socket.sendto(data, str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            # Not there, or not any more: silence is noticed where it matters.
            pass
        except BlockingIOError:
            # It does not read: a stopped driver. A full queue must not stop us.
            pass
