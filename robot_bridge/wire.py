"""What a simulated hand and its users say to each other over a unix socket.

Datagrams: magic, kind, sequence number, time, then numbers or JSON, then a CRC-32.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from robot_bridge.messages import Snapshot

MAGIC = b"DEX1"
HEADER = struct.Struct("<4sBId")

HELLO, INFO, SENSOR, COMMAND, NEW_TRIAL, FAULT, BYE = range(7)
"""Kinds. A user says HELLO and is sent INFO and from then on SENSORs."""

CHANNELS = Snapshot.CHANNELS
"""A SENSOR's numbers begin with the index of its channel and its age."""


class Message(NamedTuple):
    """A datagram that arrived whole."""

    kind: int
    sequence: int
    time: float
    """Of the sender, when it was sent [s]."""
    content: Any
    """[n] float64, or what JSON held."""


def pack(kind: int, sequence: int, time: float, content: Any) -> bytes:
    """A datagram of numbers [n], or of anything that JSON takes."""
    if isinstance(content, np.ndarray):
        body = b"N" + np.asarray(content, "<f8").tobytes()
    else:
        body = b"J" + json.dumps(content).encode()
    data = HEADER.pack(MAGIC, kind, sequence % 2**32, time) + body
    return data + struct.pack("<I", zlib.crc32(data))


def unpack(data: bytes) -> Message | None:
    """The message, or None if it did not arrive whole or is not one."""
    if len(data) < HEADER.size + 5 or data[:4] != MAGIC:
        return None
    (checksum,) = struct.unpack("<I", data[-4:])
    if zlib.crc32(data[:-4]) != checksum:
        return None
    _, kind, sequence, time = HEADER.unpack_from(data)
    is_numbers, body = data[HEADER.size : HEADER.size + 1], data[HEADER.size + 1 : -4]
    if is_numbers == b"N":
        return Message(kind, sequence, time, np.frombuffer(body, "<f8").copy())
    return Message(kind, sequence, time, json.loads(body))
