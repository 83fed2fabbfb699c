"""What goes between a hand and the bridge. Angles are the hand's own: Shadow's names,
signs and zeros, in the orders that the bundle lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    """The latest value of one sensor."""

    value: np.ndarray
    received: float
    """When it came, by the transport's clock [s]."""
    stamp: float
    """By the sensor's own clock [s]: only compared with itself, as clocks differ."""
    age: float = 0.0
    """How old it was when it came [s], where that is known: a camera's pose is."""


@dataclass(frozen=True)
class Snapshot:
    """The latest of every sensor; None until something has come."""

    joints: Sample | None = None
    """[24] joint angles [rad]."""
    markers: Sample | None = None
    """[8, 3] three markers of the hand base, then five fingertips, in the frame of
    motion capture [m]; NaN where one is not seen."""
    object: Sample | None = None
    """[7] position [m] and quaternion (w, x, y, z) in that frame."""
    set_points: Sample | None = None
    """[20] targets that the hand's controllers follow now [rad]."""
    raw: Sample | None = None
    """[24] what joint sensors read before any calibration, in no unit."""
    object_frame: str = "mocap"
    """Of the object's pose: see ``transports.poses``."""
    fault: str = ""
    """What the transport itself knows to be wrong, in one line."""
    danger: str = ""
    """The same, where the hand must not even hold its pose: a hot motor."""

    CHANNELS = ("joints", "markers", "object", "set_points", "raw")


@dataclass(frozen=True)
class HandInfo:
    """What a hand says of itself."""

    side: str
    """'right' or 'left'."""
    serial: str
    limits: dict[str, tuple[float, float]]
    """Lowest and highest angle of each joint [rad], by Shadow's name."""
    mode: str = "position"
    """Of its controllers: 'position', or 'trajectory', which overwrites targets."""
    simulated: bool = False
    """Whether the bridge may put the object back into the hand."""
    details: dict[str, Any] = field(default_factory=dict)
    """Anything else worth recording."""
