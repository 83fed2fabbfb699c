"""Being on time: a priority above all that is not in a hurry (Linux)."""

from __future__ import annotations

import os


def take_priority(priority: int | None) -> None:
    """Run this process before others (SCHED_FIFO), its children not.

    Args:
        priority: 1 to 99; None leaves everything as it is.

    Raises:
        OSError: if this user may not.
    """
    if priority is None:
        return
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError as error:
        raise OSError(
            f"--rt-priority {priority}: not permitted; it takes root, or a line "
            "'@realtime - rtprio 99' in /etc/security/limits.conf"
        ) from error
