"""What a hand was told and what its joints did, from any of three kinds of files."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from mjx_dex.hand import names

JOINTS = [joint.shadow for joint in names.JOINTS]
"""Joints by Shadow's names, in our order."""
ACTUATORS = [actuator.shadow for actuator in names.ACTUATORS]

SIGNS = np.array([joint.menagerie_sign for joint in names.JOINTS], float)
"""[24] Shadow's angles are these times ours."""
ACTUATOR_SIGNS = np.array(
    [
        SIGNS[[joint.ours for joint in names.JOINTS].index(actuator.joints[0])]
        for actuator in names.ACTUATORS
    ]
)

LONGEST_GAP = 0.1
"""Between two readings of joint angles [s]."""
LARGEST_ANGLE = 4.0
"""No joint reaches so far, nor does the sum of two [rad]; degrees do."""
MOVED, UNMOVED = 0.3, 0.03
"""A joint is dead if it moves less than the second [rad] while its targets move more
than the first."""
ALIKE, UNLIKE = 0.7, 0.4
"""Correlation from which a joint is said to follow a target, and up to which not to."""


class RecordingError(ValueError):
    """What is wrong with a recording: one line that names the file and the joint."""


@dataclass(frozen=True)
class Recording:
    """Angles and targets in our names' order and signs."""

    path: Path
    time: np.ndarray
    """[n] of each reading [s], rising."""
    angles: np.ndarray
    """[n, 24] [rad]."""
    target_time: np.ndarray
    """[m] of each command [s], rising."""
    targets: np.ndarray
    """[m, 20] absolute, each held until the next [rad]."""


def read(path: Path) -> Recording:
    """Read a recording and check it.

    Args:
        path: ``.mcap`` of ``robot_bridge.run``, ``.bag`` of ``rosbag record``, or
            ``.csv`` with the header ``time``, the 24 joints' names (``rh_FFJ3``), and
            the 20 actuators' after ``target:`` (``target:rh_FFJ0``); seconds and
            radians by Shadow's names and signs. An empty cell is no reading, or no new
            command.

    Raises:
        RecordingError: if it cannot be read, or something is wrong with it.
    """
    path = Path(path)
    readers = {".mcap": _read_mcap, ".bag": _read_bag, ".csv": _read_csv}
    if path.suffix not in readers:
        raise RecordingError(
            f"{path}: a recording ends in {', '.join(readers)}, not {path.suffix!r}"
        )
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    recording = readers[path.suffix](path)
    check(recording)
    return recording


def make(
    path: Path,
    time: Sequence[float],
    angles: Sequence[Sequence[float]],
    target_time: Sequence[float],
    targets: Sequence[Sequence[float]],
) -> Recording:
    """A recording from Shadow's signs.

    Raises:
        RecordingError: if there is next to nothing in it.
    """
    if len(time) < 2 or not len(target_time):
        raise RecordingError(
            f"{path}: {len(time)} readings of joint angles and {len(target_time)} "
            "commands are not enough"
        )
    return Recording(
        path,
        np.asarray(time, float),
        SIGNS * np.asarray(angles, float),
        np.asarray(target_time, float),
        ACTUATOR_SIGNS * np.asarray(targets, float),
    )


def _read_mcap(path: Path) -> Recording:
    """A recording of the bridge."""
    from robot_bridge import recording as bridge

    time, angles, target_time, targets = [], [], [], []
    try:
        for topic, entry in bridge.read(path):
            if topic == "start":
                start = entry
            if topic == "look" and "joints" in entry["samples"]:
                sample = bridge.sample_of(entry["samples"]["joints"])
                if np.isfinite(sample.value).all():
                    time.append(sample.received)
                    angles.append(sample.value)
            if topic == "tick" and entry["sent"] and entry["command"]["targets"]:
                target_time.append(entry["done"])
                targets.append(bridge.numbers(entry["command"]["targets"]))
        manifest = json.loads(
            (Path(start["bundle"]) / "manifest.json").read_text(encoding="utf-8")
        )
    except (bridge.RecordingError, OSError, KeyError, UnboundLocalError) as error:
        raise RecordingError(f"{path}: {error}") from error
    joints = _order(path, [j["name"] for j in manifest["joints"]], JOINTS)
    actuators = _order(path, [a["name"] for a in manifest["actuators"]], ACTUATORS)
    return make(
        path,
        time,
        np.reshape(angles, (-1, len(joints)))[:, joints],
        target_time,
        np.reshape(targets, (-1, len(actuators)))[:, actuators],
    )


def _read_bag(path: Path) -> Recording:
    """Of ``/joint_states`` and the position controllers' ``command`` topics."""
    from rosbags.highlevel import AnyReader, AnyReaderError
    from rosbags.typesys import Stores, get_typestore

    topics = {
        f"/sh_{name.lower()}_position_controller/command": k
        for k, name in enumerate(ACTUATORS)
    }
    time, angles, target_time, targets = [], [], [], []
    latest, order = np.full(len(ACTUATORS), np.nan), None
    try:
        store = get_typestore(Stores.ROS1_NOETIC)
        with AnyReader([path], default_typestore=store) as reader:
            for connection, stamp, data in reader.messages():
                if connection.topic == "/joint_states":
                    message = reader.deserialize(data, connection.msgtype)
                    if order is None:
                        order = _order(path, list(message.name), JOINTS)
                    time.append(1e-9 * stamp)
                    angles.append(np.asarray(message.position)[order])
                elif connection.topic in topics:
                    message = reader.deserialize(data, connection.msgtype)
                    latest = latest.copy()
                    latest[topics[connection.topic]] = message.data
                    if np.isfinite(latest).all():
                        target_time.append(1e-9 * stamp)
                        targets.append(latest)
    except (AnyReaderError, OSError) as error:
        raise RecordingError(f"{path}: {error}") from error
    silent = [n for n, value in zip(ACTUATORS, latest, strict=True) if np.isnan(value)]
    if silent:
        raise RecordingError(
            f"{path}: no command to {silent[0]}; record /joint_states and "
            "/sh_rh_.*_position_controller/command"
        )
    return make(path, time, angles, target_time, targets)


def _read_csv(path: Path) -> Recording:
    # Spreadsheets begin a file with a byte order mark.
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise RecordingError(f"{path} is empty")
    header, *rows = rows
    columns = {name.strip(): k for k, name in enumerate(header)}
    if "time" not in columns:
        raise RecordingError(f"{path}: the header has no column 'time'")
    try:
        table = np.array([[float(x) if x else np.nan for x in row] for row in rows])
    except ValueError as error:
        raise RecordingError(f"{path}: {error}") from error
    if table.ndim != 2 or table.shape[1] != len(header):
        raise RecordingError(f"{path}: rows are not all as long as the header")
    joints = _order(path, list(columns), JOINTS)
    actuators = _order(path, list(columns), [f"target:{name}" for name in ACTUATORS])
    time, angles, targets = (
        table[:, columns["time"]],
        table[:, joints],
        table[:, actuators],
    )
    read, told = np.isfinite(angles).all(1), np.isfinite(targets).all(1)
    return make(path, time[read], angles[read], time[told], targets[told])


def _order(path: Path, found: list[str], wanted: list[str]) -> list[int]:
    """Where the wanted ones are among those found."""
    missing = [name for name in wanted if name not in found]
    if missing:
        others = sorted(set(found) - set(wanted) - {"time"})
        hint = f"; it has {', '.join(others)} instead" if others else ""
        raise RecordingError(f"{path}: {missing[0]} is missing{hint}")
    return [found.index(name) for name in wanted]


def check(recording: Recording) -> None:
    """Look for what would spoil a fit.

    Raises:
        RecordingError: for the first thing that is wrong: time that goes back, a gap,
            angles in degrees, a joint that does not move, two that are exchanged, one
            that moves the wrong way.
    """
    path, time = recording.path, recording.time
    for what, times in (("readings", time), ("commands", recording.target_time)):
        back = np.flatnonzero(np.diff(times) < 0)
        if len(back):
            raise RecordingError(
                f"{path}: the time of {what} goes back at {times[back[0]]:.3f} s"
            )
    gap = int(np.diff(time).argmax())
    if time[gap + 1] - time[gap] > LONGEST_GAP:
        since = time[gap] - time[0]
        raise RecordingError(
            f"{path}: no joint angles for {time[gap + 1] - time[gap]:.2f} s, from "
            f"{since:.2f} s after the first on; cut the recording there"
        )
    for names_, values in (
        (JOINTS, recording.angles),
        ([f"the target of {n}" for n in ACTUATORS], recording.targets),
    ):
        reach = np.abs(values).max(0)
        if reach.max() > LARGEST_ANGLE:
            raise RecordingError(
                f"{path}: {names_[int(reach.argmax())]} reaches {reach.max():.0f}: "
                "angles are in rad, and this looks like degrees"
            )
    _check_movements(recording)


def _check_movements(recording: Recording) -> None:
    angles, followed = recording.angles, _targets_followed(recording)
    spans = np.ptp(recording.targets, axis=0)
    for joint, own in enumerate(JOINT_ACTUATORS):
        span = spans[own]
        if span > MOVED and np.ptp(angles[:, joint]) < UNMOVED:
            raise RecordingError(
                f"{recording.path}: {JOINTS[joint]} does not move "
                f"({np.ptp(angles[:, joint]):.3f} rad) while {ACTUATORS[own]} is told "
                f"to, by {span:.2f} rad: a dead joint or sensor"
            )
    alike = _correlations(angles, followed)
    for joint, own in enumerate(JOINT_ACTUATORS):
        if spans[own] > MOVED and alike[joint, own] < -ALIKE:
            raise RecordingError(
                f"{recording.path}: {JOINTS[joint]} moves against its targets: its "
                "sign is wrong"
            )
    told = _correlations(followed, followed)
    for one, two in combinations(range(len(JOINTS)), 2):
        first, second = JOINT_ACTUATORS[one], JOINT_ACTUATORS[two]
        own = max(alike[one, first], alike[two, second])
        other = min(alike[one, second], alike[two, first])
        # Where targets move together nobody could tell.
        if own < UNLIKE and other > ALIKE and abs(told[first, second]) < UNLIKE:
            raise RecordingError(
                f"{recording.path}: {JOINTS[one]} follows the targets of "
                f"{ACTUATORS[second]}, and {JOINTS[two]} those of {ACTUATORS[first]}: "
                "their names are exchanged"
            )


JOINT_ACTUATORS = [
    next(k for k, a in enumerate(names.ACTUATORS) if joint.ours in a.joints)
    for joint in names.JOINTS
]
"""Which actuator moves each joint."""


def _targets_followed(recording: Recording) -> np.ndarray:
    """[n, 20] the target that held at each reading."""
    held = np.searchsorted(recording.target_time, recording.time, side="right") - 1
    return recording.targets[np.maximum(held, 0)]


def _correlations(angles: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[24, 20] of joints with targets; 0 where one of them does not move."""

    def normal(x: np.ndarray) -> np.ndarray:
        x = x - x.mean(0)
        size = np.linalg.norm(x, axis=0)
        return np.divide(x, size, out=np.zeros_like(x), where=size > 1e-9)

    return normal(angles).T @ normal(targets)
