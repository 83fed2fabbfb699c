"""Events for TensorBoard, written by the thread that trains.

tensorboardX writes in a thread of its own, which ends at a full disk: training then
waits for it for ever.
"""

import contextlib
import math
import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

UNFLUSHED = 20
"""Steps that may be lost when the process is killed."""


class Board:
    """Writes events of one run.

    Args:
        folder: of event files; this process adds one.
        step: at which it begins; what earlier processes wrote from there on is hidden.

    Raises:
        OSError: here and later, if something cannot be written.
    """

    def __init__(self, folder: Path, step: int):
        self._folder, self._calls = folder, 0
        with self._named():
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=step, session_log=start))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add numbers by name; those that are not finite cannot be drawn."""
        entries = [
            entry
            for name, value in values.items()
            if math.isfinite(value)
            for entry in summary.scalar(name, value).value
        ]
        self._add(Summary(value=entries), step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add an image [height, width, 3] of bytes."""
        self._add(summary.image(name, pixels, dataformats="HWC"), step)

    def close(self) -> None:
        """Write what is left."""
        with self._named():
            self._writer.close()

    def _add(self, content: Summary, step: int) -> None:
        event = Event(step=step, summary=content, wall_time=time.time())
        self._calls += 1
        with self._named():
            self._writer.write_event(event)
            if self._calls % UNFLUSHED == 0:
                self._writer.flush()

    @contextlib.contextmanager
    def _named(self):
        """Errors name the folder."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._folder)) from error
