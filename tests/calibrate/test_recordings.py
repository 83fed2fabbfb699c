"""Recordings: three kinds of files, and what is wrong with them."""

import csv

import numpy as np
import pytest

from mjx_dex.calibrate import recordings
from mjx_dex.calibrate.recordings import ACTUATORS, JOINTS, RecordingError, read

SECONDS, RATE, TICK = 20.0, 125.0, 0.08


def motion() -> tuple[np.ndarray, ...]:
    """Each actuator swings in its own second, and its joints follow, as Shadow's do."""
    time = np.arange(0, SECONDS, 1 / RATE)
    ticks = np.arange(0, SECONDS, TICK)

    def swing(t):
        own = np.floor(t)[:, None] == np.arange(len(ACTUATORS))
        return 0.5 + 0.4 * np.sin(2 * np.pi * t)[:, None] * own

    targets, angles = swing(ticks), swing(time - 0.02)
    shares = {"1": 0.5, "2": 0.5}
    columns = []
    for name in JOINTS:
        coupled = name[3:5] in ("FF", "MF", "RF", "LF") and name[-1] in shares
        actuator = name[:-1] + "0" if coupled else name
        column = angles[:, ACTUATORS.index(actuator)]
        columns.append(column * (0.5 if coupled else 1.0))
    return time, np.stack(columns, 1), ticks, targets


def write_csv(path, change=lambda columns: None) -> None:
    """Both, a row for each reading or command."""
    time, angles, ticks, targets = motion()
    columns = {"time": np.concatenate([time, ticks])}
    empty = np.full(len(ticks), np.nan), np.full(len(time), np.nan)
    for name, column in zip(JOINTS, angles.T, strict=True):
        columns[name] = np.concatenate([column, empty[0]])
    for name, column in zip(ACTUATORS, targets.T, strict=True):
        columns[f"target:{name}"] = np.concatenate([empty[1], column])
    order = np.argsort(columns["time"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    change(columns)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(["" if np.isnan(x) else x for x in row])


def test_a_table_is_read_in_our_order_and_signs(tmp_path):
    write_csv(tmp_path / "hand.csv")
    found = read(tmp_path / "hand.csv")
    time, angles, ticks, targets = motion()
    np.testing.assert_allclose(found.time, time)
    np.testing.assert_allclose(found.target_time, ticks)
    # The first finger spreads, and the thumb bends, the other way in our model.
    flipped = {"rh_FFJ4", "rh_MFJ4", "rh_THJ2", "rh_THJ1"}
    for k, name in enumerate(JOINTS):
        sign = -1 if name in flipped else 1
        np.testing.assert_allclose(found.angles[:, k], sign * angles[:, k])
    for k, name in enumerate(ACTUATORS):
        sign = -1 if name in flipped else 1
        np.testing.assert_allclose(found.targets[:, k], sign * targets[:, k])


def test_a_bag_is_read_like_a_table(tmp_path):
    write_bag(tmp_path / "hand.bag")
    write_csv(tmp_path / "hand.csv")
    bag, table = (read(tmp_path / f"hand.{kind}") for kind in ("bag", "csv"))
    np.testing.assert_allclose(bag.angles, table.angles)
    np.testing.assert_allclose(bag.targets[-1], table.targets[-1])
    # Commands come one by one: all are there with the last one's.
    assert len(bag.targets) >= len(table.targets)
    np.testing.assert_allclose(bag.time - bag.time[0], table.time - table.time[0])


def write_bag(path, skip: str = "") -> None:
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    state, header, stamp, number = (
        store.types[name]
        for name in (
            "sensor_msgs/msg/JointState",
            "std_msgs/msg/Header",
            "builtin_interfaces/msg/Time",
            "std_msgs/msg/Float64",
        )
    )
    time, angles, ticks, targets = motion()
    # As on the hand: in another order, by name.
    order = np.argsort(JOINTS)
    messages = []
    with Writer(path) as writer:
        joints = writer.add_connection(
            "/joint_states", state.__msgtype__, typestore=store
        )
        commands = {
            name: writer.add_connection(
                f"/sh_{name.lower()}_position_controller/command",
                number.__msgtype__,
                typestore=store,
            )
            for name in ACTUATORS
            if name != skip
        }
        for when, angle in zip(time, angles, strict=True):
            message = state(
                header(0, stamp(0, 0), ""),
                [JOINTS[k] for k in order],
                angle[order],
                np.zeros(0),
                np.zeros(0),
            )
            messages.append((when, joints, message))
        for when, row in zip(ticks, targets, strict=True):
            for name, value in zip(ACTUATORS, row, strict=True):
                if name != skip:
                    messages.append((when, commands[name], number(value)))
        messages.sort(key=lambda each: each[0])
        for when, connection, message in messages:
            data = store.serialize_ros1(message, connection.msgtype)
            writer.write(connection, 10**9 + round(1e9 * when), data)


def test_a_bag_without_a_command_is_named(tmp_path):
    write_bag(tmp_path / "hand.bag", skip="rh_MFJ3")
    with pytest.raises(RecordingError, match=r"hand\.bag: no command to rh_MFJ3"):
        read(tmp_path / "hand.bag")


def still(columns):
    column = columns["rh_MFJ3"]
    columns["rh_MFJ3"] = np.where(np.isnan(column), np.nan, 0.5)


def gone(columns):
    del columns["rh_THJ4"]


def renamed(columns):
    columns["FFJ3"] = columns.pop("rh_FFJ3")


def gap(columns):
    inside = (columns["time"] > 3) & (columns["time"] < 4)
    for name, column in columns.items():
        columns[name] = column[~inside]


def degrees(columns):
    columns["rh_LFJ3"] = np.rad2deg(columns["rh_LFJ3"])


def target_degrees(columns):
    columns["target:rh_LFJ3"] = np.rad2deg(columns["target:rh_LFJ3"])


def exchanged(columns):
    columns["rh_FFJ3"], columns["rh_RFJ3"] = columns["rh_RFJ3"], columns["rh_FFJ3"]


def mirrored(columns):
    columns["rh_THJ1"] = -columns["rh_THJ1"]


def backwards(columns):
    columns["time"] = np.where(
        columns["time"] > 10, columns["time"] - 5, columns["time"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (still, "rh_MFJ3 does not move .* while rh_MFJ3 is told to.* dead"),
        (gone, "rh_THJ4 is missing"),
        (renamed, "rh_FFJ3 is missing; it has FFJ3"),
        (gap, "no joint angles for 1.0. s, from 3.0. s"),
        (degrees, "rh_LFJ3 reaches 5.: .* degrees"),
        (target_degrees, "the target of rh_LFJ3 reaches 5.: .* degrees"),
        (
            exchanged,
            "rh_FFJ3 follows the targets of rh_RFJ3, and rh_RFJ3 those of rh_FFJ3",
        ),
        (mirrored, "rh_THJ1 moves against its targets"),
        (backwards, "the time of readings goes back at 10.0"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(change, message, tmp_path):
    path = tmp_path / "hand.csv"
    write_csv(path, change)
    with pytest.raises(RecordingError, match=rf"hand\.csv: {message}") as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hand.txt", "", "ends in .mcap, .bag, .csv"),
        ("none.csv", None, "no such file"),
        ("hand.csv", "a,b\n1,2\n", "no column 'time'"),
        ("hand.csv", "", "is empty"),
        ("hand.csv", "time,a\n1,x\n", "could not convert"),
        ("hand.mcap", "nothing", "is no recording"),
        ("hand.bag", "nothing", "hand.bag"),
    ],
)
def test_what_is_no_recording_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RecordingError, match=message):
        read(tmp_path / name)


def test_every_joint_has_the_actuator_that_moves_it():
    by_name = {
        JOINTS[joint]: ACTUATORS[own]
        for joint, own in enumerate(recordings.JOINT_ACTUATORS)
    }
    assert by_name["rh_FFJ2"] == by_name["rh_FFJ1"] == "rh_FFJ0"
    assert by_name["rh_THJ1"] == "rh_THJ1"
    assert by_name["rh_WRJ2"] == "rh_WRJ2"
