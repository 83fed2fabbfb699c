"""Shadow's hand through ROS 1, by the names of its own driver.

Needs rospy; see docs/robot_bridge.md for where it comes from. Times are of this
process's monotonic clock: messages' stamps are only compared with each other.
"""

from __future__ import annotations

import threading
import time
import xmlrpc.client
from typing import Any, Sequence

import numpy as np

from robot_bridge.controller import Command
from robot_bridge.description import read_hand
from robot_bridge.messages import HandInfo, Sample, Snapshot
from robot_bridge.transports import TransportError

HOT = 57.0
"""Temperature of a motor at which the hand is let go; its firmware does so at 60."""

MASTER_PERIOD = 0.5
"""Between two questions whether the master lives [s]."""


class RosHand:
    """See ``Transport``.

    Args:
        manifest: of the bundle: names and orders of joints and actuators.
        node: name of this node.
        markers: topic of motion capture's markers.
        markers_type: 'sensor_msgs/PointCloud' or 'phasespace_msgs/Markers'.
        marker_ids: of the three base markers, then of the five fingertips' in the order
            FF, MF, RF, LF, TH; in a point cloud, their places in the array.
        object: topic of the object's pose, geometry_msgs/PoseStamped, from motion
            capture or from cameras.
        object_age: of each pose when it comes [s], for a camera's.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        node: str = "dex_bridge",
        markers: str = "/mocap/markers",
        markers_type: str = "sensor_msgs/PointCloud",
        marker_ids: Sequence[int] = tuple(range(8)),
        object: str = "/object/pose",
        object_age: float = 0.0,
    ):
        self._node = node
        self._joints = [joint["name"] for joint in manifest["joints"]]
        self._actuators = [actuator["name"] for actuator in manifest["actuators"]]
        self._topics = {"markers": markers, "object": object}
        self._markers_type, self._marker_ids = markers_type, tuple(marker_ids)
        self._object_age = object_age
        self._samples: dict[str, Sample] = {}
        self._set_points = np.full(len(self._actuators), np.nan)
        self._fault = self._danger = ""
        self._force: float | None = None
        self._trajectory_heard = False
        self._closed = threading.Event()

    def connect(self, timeout: float) -> HandInfo:
        """See ``Transport``."""
        try:
            import rospy
        except ImportError as error:
            raise TransportError(
                "the ros1 transport needs rospy, which this Python does not find "
                f"({error}); see docs/robot_bridge.md"
            ) from error
        self._rospy = rospy
        self._find_master(timeout)
        rospy.init_node(self._node, disable_signals=True)
        self._subscribe()
        self._advertise()
        self._wait_for_joints(timeout)
        if not rospy.has_param("/robot_description"):
            raise TransportError(
                "the parameter /robot_description is not set: is the hand's driver up?"
            )
        serials = list(rospy.get_param("/hand/mapping", {})) or ["unknown"]
        info = read_hand(
            rospy.get_param("/robot_description"),
            serials[0],
            mode="trajectory" if self._trajectory_heard else "position",
            simulated=bool(rospy.get_param("/dex_sim/simulated", False)),
        )
        threading.Thread(target=self._watch_master, daemon=True).start()
        return info

    def now(self) -> float:
        """See ``Transport``."""
        return time.monotonic()

    def wait_until(self, due: float) -> None:
        """See ``Transport``."""
        # Never rospy's own rate: a simulator may set /use_sim_time.
        time.sleep(max(0.0, due - time.monotonic()))

    def latest(self) -> Snapshot:
        """See ``Transport``."""
        return Snapshot(**self._samples, fault=self._fault, danger=self._danger)

    def send(self, command: Command) -> None:
        """See ``Transport``."""
        float64 = self._float64
        if command.targets is not None:
            for publisher, target in zip(self._targets, command.targets):
                publisher.publish(float64(float(target)))
        if command.force != self._force:
            self._force = command.force
            for publisher in self._forces:
                publisher.publish(float64(float(command.force)))

    def new_trial(self, with_object: bool = True) -> None:
        """See ``Transport``."""
        self._again.publish(self._bool(with_object))

    def close(self) -> None:
        """See ``Transport``."""
        self._closed.set()
        if hasattr(self, "_rospy"):
            self._rospy.signal_shutdown("the bridge ends")

    def _find_master(self, timeout: float) -> None:
        from rosgraph import get_master_uri

        self._master_uri, deadline = get_master_uri(), self.now() + timeout
        while not self._master_answers():
            if self.now() > deadline:
                raise TransportError(
                    f"no ROS master at {self._master_uri} (ROS_MASTER_URI); start "
                    "roscore, or the hand's driver"
                )
            time.sleep(0.1)

    def _master_answers(self) -> bool:
        try:
            xmlrpc.client.ServerProxy(self._master_uri).getPid("/dex_bridge")
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def _watch_master(self) -> None:
        """Connections outlive a master, but nobody could join them any more."""
        while not self._closed.wait(MASTER_PERIOD):
            if not self._master_answers():
                self._fault = f"the ROS master at {self._master_uri} is gone"

    def _subscribe(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState, PointCloud

        from robot_bridge.ros_messages import message_class

        kinds = {
            "sensor_msgs/PointCloud": (PointCloud, self._on_cloud),
            "phasespace_msgs/Markers": (None, self._on_phasespace),
        }
        if self._markers_type not in kinds:
            raise TransportError(
                f"markers_type {self._markers_type!r} is not one of {', '.join(kinds)}"
            )
        markers, on_markers = kinds[self._markers_type]
        markers = markers or message_class(self._markers_type)
        state = message_class("control_msgs/JointControllerState")
        self._on("/joint_states", JointState, self._on_joints)
        self._on(self._topics["markers"], markers, on_markers)
        self._on(self._topics["object"], PoseStamped, self._on_object)
        self._on("/diagnostics", DiagnosticArray, self._on_diagnostics)
        self._on(
            "/rh_trajectory_controller/state", self._rospy.AnyMsg, self._on_trajectory
        )
        for index, name in enumerate(self._actuators):
            self._on(f"{controller_of(name)}/state", state, self._on_controller, index)

    def _on(self, topic: str, kind, callback, *arguments) -> None:
        self._rospy.Subscriber(
            topic,
            kind,
            callback,
            callback_args=arguments or None,
            queue_size=1,
            tcp_nodelay=True,
        )

    def _advertise(self) -> None:
        from std_msgs.msg import Bool, Float64

        self._float64, self._bool = Float64, Bool

        def publishers(topic: str) -> list:
            # A longer queue would keep us waiting for a subscriber that has stopped.
            return [
                self._rospy.Publisher(
                    f"{controller_of(name)}/{topic}", Float64, queue_size=1
                )
                for name in self._actuators
            ]

        self._targets = publishers("command")
        self._forces = publishers("max_force_factor")
        self._again = self._rospy.Publisher("/dex_sim/new_trial", Bool, queue_size=1)

    def _wait_for_joints(self, timeout: float) -> None:
        deadline = self.now() + timeout
        while "joints" not in self._samples:
            if self.now() > deadline:
                raise TransportError(
                    f"nothing on /joint_states for {timeout:.0f} s: is the driver up?"
                )
            time.sleep(0.05)
        # Long enough to hear a trajectory controller, which speaks 50 times a second.
        time.sleep(0.5)

    def _take(self, channel: str, value, stamp: float, age: float = 0.0) -> None:
        received = time.monotonic()
        self._samples = {
            **self._samples,
            channel: Sample(np.asarray(value, float), received, stamp or received, age),
        }

    def _on_joints(self, message) -> None:
        places = {name: place for place, name in enumerate(message.name)}
        try:
            order = [places[name] for name in self._joints]
        except KeyError as error:
            self._fault = f"/joint_states has no {error.args[0]}"
            return
        angles = np.array(message.position)[order]
        self._take("joints", angles, message.header.stamp.to_sec())

    def _on_cloud(self, message) -> None:
        points = np.array([[p.x, p.y, p.z] for p in message.points]).reshape(-1, 3)
        if len(points) <= max(self._marker_ids):
            self._fault = (
                f"{self._topics['markers']} has {len(points)} points, and marker_ids "
                f"asks for number {max(self._marker_ids)}"
            )
            return
        self._take(
            "markers", points[list(self._marker_ids)], message.header.stamp.to_sec()
        )

    def _on_phasespace(self, message) -> None:
        value, newest = np.full((len(self._marker_ids), 3), np.nan), 0
        for marker in message.markers:
            # The condition number of a marker that is not seen is not positive.
            if marker.id in self._marker_ids and marker.cond > 0:
                value[self._marker_ids.index(marker.id)] = marker.x, marker.y, marker.z
                newest = max(newest, marker.time)
        # Its header is never filled in; markers' times are in microseconds.
        self._take("markers", value, newest * 1e-6)

    def _on_object(self, message) -> None:
        position, turn = message.pose.position, message.pose.orientation
        # ROS puts a quaternion's w last; from here on it is first.
        value = [position.x, position.y, position.z, turn.w, turn.x, turn.y, turn.z]
        self._take("object", value, message.header.stamp.to_sec(), self._object_age)

    def _on_controller(self, message, arguments) -> None:
        (index,) = arguments
        self._set_points[index] = message.set_point
        if index == 0 and np.isfinite(self._set_points).all():
            stamp = message.header.stamp.to_sec()
            self._take("set_points", self._set_points.copy(), stamp)

    def _on_trajectory(self, message) -> None:
        self._trajectory_heard = True
        if self._force is not None:
            self._fault = "a trajectory controller runs: it overwrites targets"

    def _on_diagnostics(self, message) -> None:
        for status in message.status:
            for item in status.values:
                if "temperature" in item.key.lower() and _number(item.value) > HOT:
                    self._danger = (
                        f"{status.name}: {item.key} {item.value} (limit {HOT:g})"
                    )


def controller_of(actuator: str) -> str:
    """Shadow's name of an actuator's position controller."""
    return f"/sh_{actuator.lower()}_position_controller"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -np.inf
