"""Being on time: a priority above all that is not in a hurry (Linux)."""

from __future__ import annotations

import os


def take_priority(priority: int | None) -> None:
    """Run this process's threads before others (SCHED_FIFO).

    Threads that it starts later, and its children, do not.

    Args:
        priority: 1 to 99; None leaves everything as it is.

    Raises:
        ValueError: if it is no priority.
        OSError: if this user may not.
    """
    if priority is None:
        return
    if not 1 <= priority <= 99:
        raise ValueError(f"--rt-priority {priority}: give 1 to 99")
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), policy, os.sched_param(priority))
    except PermissionError as error:
        raise OSError(
            f"--rt-priority {priority}: not permitted; it takes root, or a line "
            "'@realtime - rtprio 99' in /etc/security/limits.conf"
        ) from error
