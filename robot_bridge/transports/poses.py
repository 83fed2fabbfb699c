"""The object's pose from another process, in place of the hand's own motion capture.

A net that looks through cameras is too slow for the control process. It runs at its own
pace in its own, and says how old each pose is.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path

import numpy as np

from robot_bridge import wire
from robot_bridge.messages import Sample, Snapshot
from robot_bridge.transports import Transport, TransportError

FRAMES = ("mocap", "hand")
"""Of poses: motion capture's, or, as the pose net of ``mjx_dex.vision`` has them, with
position in the base markers' frame and orientation in the training's world."""


class PoseSocket:
    """A transport whose object poses come to a unix socket; see ``Transport``.

    Args:
        inner: for everything else.
        path: of the socket; must not exist.
        frame: one of ``FRAMES``.

    Raises:
        TransportError: if the socket cannot be made.
    """

    def __init__(self, inner: Transport, path: Path, frame: str = "hand"):
        self._inner, self._path, self._frame = inner, Path(path), frame
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            self._socket.close()
            raise TransportError(f"--poses {path}: {error.strerror}") from error
        self._socket.setblocking(False)
        self._pose: Sample | None = None

    def __getattr__(self, name: str):
        """Everything else is the inner transport's."""
        return getattr(self._inner, name)

    def latest(self) -> Snapshot:
        """See ``Transport``."""
        while True:
            try:
                message = wire.unpack(self._socket.recv(4096))
            except BlockingIOError:
                break
            if message is not None and np.shape(message.content) == (8,):
                age, *pose = message.content
                if not 0 <= age < np.inf:
                    continue  # a pose that knows no age is as good as none
                now = self._inner.now()
                self._pose = Sample(np.array(pose), now, message.time, float(age))
        snapshot = self._inner.latest()
        return dataclasses.replace(
            snapshot, object=self._pose, object_frame=self._frame
        )

    def close(self) -> None:
        """See ``Transport``."""
        self._socket.close()
        self._path.unlink()
        self._inner.close()


class PoseSender:
    """The other end, for the process that knows the poses.

    Args:
        path: of the bridge's socket.
    """

    def __init__(self, path: Path):
        self._path, self._sequence = os.fspath(path), 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, position: np.ndarray, orientation: np.ndarray, age: float) -> bool:
        """Tell the bridge; whether it was there to hear.

        Args:
            position: [3] [m].
            orientation: [4] quaternion (w, x, y, z).
            age: of the images that show it [s].
        """
        self._sequence += 1
        content = np.concatenate([[age], position, orientation])
        data = wire.pack(wire.SENSOR, self._sequence, time.monotonic(), content)
        try:
            self._socket.sendto(data, self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
