"""ROS messages that a plain installation lacks, made from their text."""

from __future__ import annotations

import importlib

from genpy.dynamic import generate_dynamic

HEADER = """
================================================================================
MSG: std_msgs/Header
uint32 seq
time stamp
string frame_id
"""

TEXTS = {
    "control_msgs/JointControllerState": """Header header
float64 set_point
float64 process_value
float64 process_value_dot
float64 error
float64 time_step
float64 command
float64 p
float64 i
float64 d
float64 i_clamp
bool antiwindup
"""
    + HEADER,
    "phasespace_msgs/Markers": """Header header
phasespace_msgs/Marker[] markers
"""
    + HEADER
    + """
================================================================================
MSG: phasespace_msgs/Marker
uint32 id
uint32 flags
int64 time
float32 x
float32 y
float32 z
float32 cond
""",
}


def message_class(name: str):
    """The class of a message, the package's own where it is installed."""
    package, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except ImportError:
        return generate_dynamic(name, TEXTS[name])[name]
