"""Being on time: a priority above all that is not in a hurry (Linux)."""

from __future__ import annotations

import os

from robot_bridge.arguments import Number

PRIORITY = Number(1, 99, is_whole=True)
"""Priorities that Linux has for processes in a hurry."""


def take_priority(priority: int | None) -> None:
    """Run this process's threads before others (SCHED_FIFO).

    Threads that it starts later, and its children, do not.

    Args:
        priority: of ``PRIORITY``; None leaves everything as it is.

    Raises:
        OSError: if this user may not.
    """
    if priority is None:
        return
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), policy, os.sched_param(priority))
    except PermissionError as error:
        raise OSError(
            f"--rt-priority {priority}: not permitted; it takes root, or a line "
            "'@realtime - rtprio 99' in /etc/security/limits.conf"
        ) from error
