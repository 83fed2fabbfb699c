"""Against a real ROS master, under Shadow's names; without rospy these fail."""

import contextlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import rospy  # noqa: F401  the tests fail, not skip, without it
from sensor_msgs.msg import JointState, PointCloud

from robot_bridge import replay
from robot_bridge.drill import ros_environment
from robot_bridge.ros_messages import message_class

SHADOWS_TOPICS = {
    "/joint_states": "sensor_msgs/JointState",
    "/sh_rh_ffj0_position_controller/command": "std_msgs/Float64",
    "/sh_rh_ffj0_position_controller/state": "control_msgs/JointControllerState",
    "/sh_rh_thj5_position_controller/max_force_factor": "std_msgs/Float64",
    "/sh_rh_wrj1_position_controller/command": "std_msgs/Float64",
}


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """A ROS master of these tests' own; its environment."""
    changes = ros_environment(tmp_path_factory.mktemp("ros"))
    port = changes["ROS_MASTER_URI"].rsplit(":", 1)[1]
    process = subprocess.Popen(
        ["rosmaster", "--core", "-p", port], env={**os.environ, **changes}
    )
    yield {**os.environ, **changes}
    process.terminate()
    process.wait(timeout=10)


@contextlib.contextmanager
def simulated_hand(bundle, environment, folder, *options):
    command = [sys.executable, "-m", "robot_bridge.sim_hand", str(bundle), "--ros"]
    command += ["--socket", str(folder / "hand"), "--log", str(folder / "commands")]
    process = subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def run(bundle, environment, *options):
    command = [sys.executable, "-m", "robot_bridge.run", str(bundle)]
    return subprocess.run(
        [*command, "--transport", "ros1", *options],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def test_messages_made_from_text_are_the_real_ones():
    """MD5 sums are how ROS nodes find out whether they mean the same message."""
    found = message_class("control_msgs/JointControllerState")._md5sum
    assert found == "987ad85e4756f3aef7f1e5e7fe0595d1"
    marker = message_class("phasespace_msgs/Markers")
    assert marker._type == "phasespace_msgs/Markers"


def test_a_rehearsal_through_ros(careful_path, master, tmp_path):
    file = tmp_path / "ros.mcap"
    arguments = ["--arm", "--rehearse", "--trials", "2", "--seconds", "1.5"]
    # Other tests run on the same cores.
    arguments += ["--record", str(file), "--joints-age", "0.3"]
    with simulated_hand(careful_path, master, tmp_path):
        topics = subprocess.run(
            ["rostopic", "list", "-v"], env=master, capture_output=True, text=True
        ).stdout
        done = run(careful_path, master, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial 2" in done.stdout
    for topic, kind in SHADOWS_TOPICS.items():
        assert f"{topic} [{kind}]" in topics
    assert replay.replay(file).different == 0
    sent = [json.loads(s) for s in (tmp_path / "commands").read_text().splitlines()]
    assert sent and all(entry["from"] == "ros" for entry in sent)
    assert np.ptp([entry["targets"] for entry in sent if entry["targets"]], 0).max() > 0


def test_without_arm_nothing_is_sent(careful_path, master, tmp_path):
    with simulated_hand(careful_path, master, tmp_path):
        arguments = ["--rehearse", "--minutes", "0.1", "--no-record"]
        done = run(careful_path, master, *arguments)
    assert "dry run: nothing is sent (--arm to move)" in done.stdout
    assert "ticks: late" in done.stdout
    assert (tmp_path / "commands").read_text() == ""


def test_trajectory_mode_is_refused(careful_path, master, tmp_path):
    with simulated_hand(careful_path, master, tmp_path, "--trajectory"):
        done = run(careful_path, master, "--arm", "--no-record")
    assert done.returncode == 1
    assert "error: the hand is in trajectory mode" in done.stderr


def test_a_real_hand_is_not_rehearsed_with(careful_path, master, tmp_path):
    """Whoever stands before it is asked: here nobody, so that it ends at once."""
    with simulated_hand(careful_path, master, tmp_path):
        done = run(careful_path, master, "--arm", "--no-record")
    assert "nobody is at the keyboard" in done.stdout
    assert (tmp_path / "commands").read_text() == ""


def test_a_second_bridge_does_not_end_the_first(careful_path, master, tmp_path):
    command = [sys.executable, "-m", "robot_bridge.run", str(careful_path)]
    command += ["--transport", "ros1", "--rehearse", "--no-record"]
    with simulated_hand(careful_path, master, tmp_path):
        first = subprocess.Popen(
            [*command, "--minutes", "0.15"], env=master, stdout=subprocess.PIPE
        )
        first.stdout.readline()
        done = run(careful_path, master, "--rehearse", "--no-record")
        out, _ = first.communicate(timeout=60)
    assert done.returncode == 1
    assert "error: a node /dex_bridge runs already" in done.stderr
    assert b"ticks: late" in out


def test_a_left_hand_is_refused_by_its_description(careful_path, master, tmp_path):
    with simulated_hand(careful_path, master, tmp_path, "--side", "left"):
        done = run(careful_path, master, "--no-record")
    assert done.stderr.startswith("error: the policy was trained for a right hand")


def test_a_missing_master_is_named(careful_path, tmp_path, monkeypatch):
    environment = {**os.environ, **ros_environment(tmp_path)}
    code = f"""
from robot_bridge import run
run.CONNECTING = 0.5
raise SystemExit(run.main([{str(careful_path)!r}, "--transport", "ros1"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    uri = environment["ROS_MASTER_URI"]
    assert done.stderr.startswith(f"error: no ROS master at {uri}")


def test_joint_states_come_by_name_in_any_order(bundle, monkeypatch):
    from robot_bridge.transports.ros1 import RosHand

    hand = RosHand(bundle.manifest)
    names = sorted(bundle.joints)
    message = JointState(name=names, position=[float(n) for n in range(24)])
    hand._on_joints(message)
    angles = hand.latest().joints.value
    assert angles[bundle.joints.index("rh_FFJ1")] == names.index("rh_FFJ1")
    hand._on_joints(JointState(name=names[1:], position=[0.0] * 23))
    assert f"/joint_states has no {names[0]}" in hand.latest().fault
    # An arm's joints on the same topic are none of ours; a good message mends all.
    hand._on_joints(JointState(name=["ra_elbow"], position=[0.0]))
    assert hand.latest().fault
    hand._on_joints(message)
    assert hand.latest().fault == ""


def test_markers_come_by_place_or_by_id(bundle):
    from geometry_msgs.msg import Point32

    from robot_bridge.transports.ros1 import RosHand

    cloud = PointCloud(points=[Point32(n, 0, 0) for n in range(10)])
    hand = RosHand(bundle.manifest, marker_ids=[9, 8, 7, 6, 5, 4, 3, 2])
    hand._on_cloud(cloud)
    np.testing.assert_array_equal(
        hand.latest().markers.value[:, 0], [9, 8, 7, 6, 5, 4, 3, 2]
    )
    hand._on_cloud(PointCloud(points=cloud.points[:4]))
    assert "has 4 points, and marker_ids asks for number 9" in hand.latest().fault

    markers = message_class("phasespace_msgs/Markers")()
    markers.markers = [
        SimpleNamespace(id=9, time=5_000_000, x=0.5, y=0.0, z=0.0, cond=1.0),
        SimpleNamespace(id=8, time=4_000_000, x=0.6, y=0.0, z=0.0, cond=-1.0),
    ]
    hand._on_phasespace(markers)
    sample = hand.latest().markers
    assert sample.value[0, 0] == pytest.approx(0.5)
    assert np.isnan(sample.value[1:]).all()
    assert sample.stamp == pytest.approx(5.0)


def test_a_quaternions_w_is_moved_to_the_front(bundle):
    from geometry_msgs.msg import PoseStamped

    from robot_bridge.transports.ros1 import RosHand

    pose = PoseStamped()
    pose.pose.orientation.w, pose.pose.orientation.x = 0.8, 0.6
    hand = RosHand(bundle.manifest, object_age=0.15)
    hand._on_object(pose)
    np.testing.assert_array_equal(hand.latest().object.value[3:], [0.8, 0.6, 0, 0])
    assert hand.latest().object.age == 0.15


def test_a_hot_motor_is_a_danger(bundle):
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

    from robot_bridge.transports.ros1 import RosHand

    hand = RosHand(bundle.manifest)

    def say(temperature):
        value = KeyValue("Temperature", str(temperature))
        status = DiagnosticStatus(name="SRDMotor rh_FFJ3", values=[value])
        hand._on_diagnostics(DiagnosticArray(status=[status]))

    hand._on_diagnostics(
        DiagnosticArray(
            status=[
                DiagnosticStatus(name="CPU", values=[KeyValue("Temperature", "81")])
            ]
        )
    )
    say("51.5 C")
    assert hand.latest().danger == ""
    say("58.0 C")
    assert "rh_FFJ3: Temperature 58.0 C" in hand.latest().danger
