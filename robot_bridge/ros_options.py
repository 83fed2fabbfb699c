"""Options of the ROS transport, ``transports.ros1.RosHand``, on a command line."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

TOPIC = "the name of a topic"
EXPECTED = {
    "markers": TOPIC,
    "markers_type": "sensor_msgs/PointCloud or phasespace_msgs/Markers",
    "marker_ids": "eight whole numbers, 0 or more, no two the same",
    "object": TOPIC,
    "object_age": "seconds, 0 or more",
}
"""What each option takes."""


def ros_options(text: str) -> dict[str, Any]:
    """Options from a command line; ``type`` of ``--ros``.

    Args:
        text: JSON.

    Raises:
        ArgumentTypeError: if it is not JSON, or not of these options.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a JSON object, such as {{"object": "/pose"}}'
        )
    for name, value in options.items():
        if name not in EXPECTED:
            known = ", ".join(EXPECTED)
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {known}")
        if not _is_expected(name, value):
            raise argparse.ArgumentTypeError(f"{name} takes {EXPECTED[name]}")
    return options


def _is_expected(name: str, value: Any) -> bool:
    if name == "object_age":
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and 0 <= value < math.inf
    if name == "marker_ids":
        is_list = isinstance(value, list) and all(type(x) is int for x in value)
        return is_list and len(set(value)) == len(value) == 8 and min(value) >= 0
    if name == "markers_type":
        return value in EXPECTED[name].split(" or ")
    return isinstance(value, str) and bool(value)
