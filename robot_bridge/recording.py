"""Everything that happened, as an MCAP file, written off the control thread."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import io
import json
import queue
import struct
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from robot_bridge.messages import Sample

TOPICS = ("start", "look", "wish", "tick", "event", "exit")
"""``start``: what ran. ``look``: what sensors said. ``wish``: what a person asked.
``tick``: what was thought and sent. ``event``: changes of state and their reasons.
``exit``: what the hand was told last."""

BACKLOG = 1000
"""Entries that wait to be written: some ten seconds."""

CHUNK = 64 * 1024
"""Bytes that a killed process can lose."""


class RecordingError(ValueError):
    """A recording that cannot be written or read; the message names the file."""


class Recorder:
    """Writes in a thread of its own; ``put`` never waits.

    Args:
        path: of the file; must not exist.

    Raises:
        RecordingError: if it cannot be opened, or the package mcap is missing.
    """

    def __init__(self, path: Path):
        try:
            from mcap.writer import Writer
        except ImportError as error:
            raise RecordingError(
                "recording needs the package mcap: pip install mcap, or --no-record"
            ) from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        except OSError as error:
            raise RecordingError(f"--record {path}: {error.strerror}") from error
        self.path, self.error = path, ""
        self._writer = Writer(self._file, chunk_size=CHUNK)
        self._writer.start()
        schema = self._writer.register_schema("json", "jsonschema", b"{}")
        self._channels = {
            topic: self._writer.register_channel(f"bridge/{topic}", "json", schema)
            for topic in TOPICS
        }
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put(self, topic: str, content: dict[str, Any]) -> None:
        """Record something; arrays and dataclasses are turned to JSON later."""
        if self._queue.qsize() > BACKLOG:
            self.error = f"cannot write {self.path}: the disk does not keep up"
        if not self.error:
            self._queue.put((topic, time.time_ns(), content))

    def close(self) -> None:
        """Finish the file. What went wrong is in ``error``."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        try:
            while True:
                item = self._queue.get()
                if item is None:
                    self._writer.finish()
                    self._file.close()
                    return
                topic, when, content = item
                data = json.dumps(_plain(content), allow_nan=False).encode()
                self._writer.add_message(self._channels[topic], when, data, when)
                self._file.flush()
        except Exception as error:
            # Whatever it is, the hand must not move unrecorded.
            reason = getattr(error, "strerror", None) or error
            self.error = f"cannot write {self.path}: {reason}"
            with contextlib.suppress(OSError):
                self._file.close()


class NoRecorder:
    """Stands in where nothing is to be recorded."""

    error = ""

    def put(self, topic: str, content: dict[str, Any]) -> None:
        """Drop it."""

    def close(self) -> None:
        """Nothing to finish."""


def read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Topics and contents in the order in which they were put.

    A file that was cut off, by a kill or a full disk, is read as far as it goes.

    Raises:
        RecordingError: if it is no recording.
    """
    from mcap.exceptions import McapError
    from mcap.reader import NonSeekingReader

    found = 0
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    with io.BytesIO(data) as file:
        messages = NonSeekingReader(file).iter_messages(log_time_order=False)
        try:
            for _, channel, message in messages:
                found += 1
                yield channel.topic.split("/")[-1], json.loads(message.data)
        except (McapError, EOFError, struct.error) as error:
            if not found:
                raise RecordingError(f"{path} is no recording: {error}") from error
    if not found:
        raise RecordingError(f"{path} is no recording: it has no messages")


def numbers(values: Any) -> np.ndarray:
    """Numbers as they were recorded; what was no number is NaN."""
    return np.array(values, float)


def sample_of(content: dict[str, Any]) -> Sample:
    """A recorded sample."""
    return Sample(**{**content, "value": numbers(content["value"])})


def _plain(value: Any) -> Any:
    """What JSON can hold; NaN, which it cannot, becomes null."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {f.name: _plain(getattr(value, f.name)) for f in fields}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
