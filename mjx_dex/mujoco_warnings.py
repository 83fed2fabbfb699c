"""MuJoCo's warnings: each kind is said once, and all are counted.

MuJoCo itself prints every one and appends it to MUJOCO_LOG.TXT in the current folder.
"""

import atexit
import json
import logging
import re
import threading
from collections import Counter
from pathlib import Path

import mujoco

from robot_bridge.files import write_at_once

FILE = "mujoco_warnings.json"
"""In a run's folder: number of warnings by kind, of all of its sessions."""

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")

log = logging.getLogger("mjx_dex")

_counts: Counter[str] = Counter()
_said: set[str] = set()
_lock = threading.Lock()


def start_counting() -> None:
    """From now on, count what MuJoCo warns of in this process, and write no log."""
    silent = mujoco.MjLogConfig.get()
    silent.logto_file = silent.logto_console = False
    silent.set()
    mujoco.set_mju_user_warning(count)
    # A thread of MuJoCo's may still step when Python has ended.
    atexit.register(mujoco.set_mju_user_warning, None)


def count(message: str) -> None:
    """Count a warning, and say it if it is the first of its kind. From any thread."""
    kind = kind_of(message)
    with _lock:
        _counts[kind] += 1
        is_new = kind not in _said
        _said.add(kind)
    if is_new:
        log.warning("MuJoCo warns, and this kind is only counted from now: %s", message)


def kind_of(message: str) -> str:
    """The message without what differs from one to the next.

    >>> kind_of("Nan, Inf or huge value in QVEL at DOF 3. Time = 0.0800.")
    'Nan, Inf or huge value in QVEL at DOF N. Time = N.'
    """
    return NUMBER.sub("N", message)


def take() -> Counter[str]:
    """Number of warnings by kind since this was last called."""
    with _lock:
        taken = _counts.copy()
        _counts.clear()
    return taken


def save(folder: Path) -> None:
    """Add what was counted since the last call to a run's file."""
    new = take()
    if new:
        counts = read(folder) + new
        write_at_once(folder / FILE, json.dumps(counts, indent=1) + "\n")


def read(folder: Path) -> Counter[str]:
    """Number of warnings by kind, as a run's file has them."""
    try:
        return Counter(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return Counter()


def report() -> None:
    """Say what was counted since the last call, where there is no run's folder."""
    for kind, number in take().items():
        log.warning("%d x MuJoCo: %s", number, kind)
