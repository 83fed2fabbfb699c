"""Shadow's hand through ROS 1, by the names of its own driver.

Needs rospy; see docs/robot_bridge.md for where it comes from. Times are of this
process's monotonic clock: messages' stamps are only compared with each other.
"""

from __future__ import annotations

import dataclasses
import re
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

SIMULATED = "/dex_sim_hand"
"""Node that publishes a simulated hand's joint angles."""

MOTOR = re.compile(r"\b(rh|lh|[WFMRLT][RFH]J\d)", re.IGNORECASE)
"""In a diagnostic status's name: of the hand."""

ANSWER = 0.5
"""A server that has not answered in this time is not there [s]."""

MASTER_PERIOD = 0.4
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
        self._rospy: Any = None
        self._samples: dict[str, Sample] = {}
        self._set_points = np.full(len(self._actuators), np.nan)
        self._heard_states: set[int] = set()
        self._faults: dict[str, str] = {}
        self._danger, self._publisher = "", ""
        self._commanding = self._trajectory_heard = False
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
        self._claim_name()
        rospy.init_node(self._node, disable_signals=True)
        if not rospy.has_param("/robot_description"):
            raise TransportError(
                "the parameter /robot_description is not set: is the hand's driver up?"
            )
        serials = list(rospy.get_param("/hand/mapping", {})) or ["unknown"]
        info = read_hand(rospy.get_param("/robot_description"), serials[0])
        if not set(self._joints) <= set(info.limits):
            return info  # another hand, whose joints we would wait for in vain
        self._subscribe()
        self._advertise()
        self._wait_for_driver(timeout)
        threading.Thread(target=self._watch_master, daemon=True).start()
        return dataclasses.replace(
            info,
            mode="trajectory" if self._trajectory_heard else "position",
            # Not a parameter, which would outlive the simulated hand.
            simulated=self._publisher == SIMULATED,
        )

    def now(self) -> float:
        """See ``Transport``."""
        return time.monotonic()

    def wait_until(self, due: float) -> None:
        """See ``Transport``."""
        # Never rospy's own rate: a simulator may set /use_sim_time.
        time.sleep(max(0.0, due - time.monotonic()))

    def latest(self) -> Snapshot:
        """See ``Transport``."""
        if self._rospy is not None and self._rospy.is_shutdown():
            self._faults["rospy"] = f"ROS has shut this node ({self._node}) down"
        fault = next(iter(self._faults.values()), "")
        return Snapshot(**dict(self._samples), fault=fault, danger=self._danger)

    def send(self, command: Command) -> None:
        """See ``Transport``."""
        if self._rospy.is_shutdown():
            # Publishing would do nothing and say nothing.
            raise TransportError(f"ROS has shut this node ({self._node}) down")
        float64, self._commanding = self._float64, True
        if command.targets is not None:
            for publisher, target in zip(self._targets, command.targets):
                publisher.publish(float64(float(target)))
        # Every time: a driver that was restarted has forgotten it.
        for publisher in self._forces:
            publisher.publish(float64(float(command.force)))

    def new_trial(self, with_object: bool = True) -> None:
        """See ``Transport``."""
        self._again.publish(self._bool(with_object))

    def close(self) -> None:
        """See ``Transport``."""
        self._closed.set()
        # Publishers write in threads of their own: the last command must leave.
        time.sleep(0.2)
        if self._rospy is not None:
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
        return _ask(self._master_uri, "getPid", f"/{self._node}") is not None

    def _claim_name(self) -> None:
        """ROS would shut down another node of this name, whatever it commands."""
        found = _ask(self._master_uri, "lookupNode", f"/{self._node}", f"/{self._node}")
        known = found is not None and found[0] == 1
        if known and _ask(found[2], "getPid", f"/{self._node}") is not None:
            raise TransportError(
                f"a node /{self._node} runs already: another bridge; end it first"
            )

    def _watch_master(self) -> None:
        """Connections outlive a master, but nobody could join them any more."""
        missed = 0
        while not self._closed.wait(MASTER_PERIOD):
            missed = 0 if self._master_answers() else missed + 1
            if missed > 1:
                gone = f"the ROS master at {self._master_uri} is gone"
                self._faults["master"] = gone
            else:
                self._faults.pop("master", None)

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

    def _wait_for_driver(self, timeout: float) -> None:
        """Joint angles, and somebody who listens to every command."""
        deadline = self.now() + timeout
        while True:
            deaf = [p.name for p in self._targets if not p.get_num_connections()]
            if "joints" in self._samples and not deaf:
                break
            if self.now() > deadline:
                raise TransportError(
                    f"nobody listens to {deaf[0]}: do the position controllers run?"
                    if deaf
                    else f"nothing on /joint_states for {timeout:.0f} s: is the driver "
                    "up?"
                )
            time.sleep(0.05)
        # Long enough to hear a trajectory controller, which speaks 50 times a second.
        time.sleep(0.5)

    def _take(self, channel: str, value, stamp: float, age: float = 0.0) -> None:
        received = time.monotonic()
        # One assignment: ROS calls from a thread for each connection.
        self._samples[channel] = Sample(
            np.asarray(value, float), received, stamp or received, age
        )
        self._faults.pop(channel, None)

    def _on_joints(self, message) -> None:
        places = {name: place for place, name in enumerate(message.name)}
        if not set(self._joints) & set(places):
            return  # an arm's, on the same topic
        try:
            order = [places[name] for name in self._joints]
        except KeyError as error:
            self._faults["joints"] = f"/joint_states has no {error.args[0]}"
            return
        self._publisher = getattr(message, "_connection_header", {}).get("callerid", "")
        angles = np.array(message.position)[order]
        self._take("joints", angles, message.header.stamp.to_sec())

    def _on_cloud(self, message) -> None:
        points = np.array([[p.x, p.y, p.z] for p in message.points]).reshape(-1, 3)
        if len(points) <= max(self._marker_ids):
            self._faults["markers"] = (
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
        self._heard_states.add(index)
        if len(self._heard_states) == len(self._actuators):
            self._heard_states.clear()
            self._take("set_points", self._set_points.copy(), 0.0)

    def _on_trajectory(self, message) -> None:
        self._trajectory_heard = True
        if self._commanding:
            self._faults["trajectory"] = (
                "a trajectory controller runs: it overwrites targets"
            )

    def _on_diagnostics(self, message) -> None:
        hot = ""
        for status in message.status:
            # The hand's own motors, not the computer's processor.
            if not MOTOR.search(status.name):
                continue
            for item in status.values:
                if "temperature" in item.key.lower() and _number(item.value) > HOT:
                    hot = f"{status.name}: {item.key} {item.value} (limit {HOT:g})"
        self._danger = hot or self._danger


def controller_of(actuator: str) -> str:
    """Shadow's name of an actuator's position controller."""
    return f"/sh_{actuator.lower()}_position_controller"


def _number(text: str) -> float:
    """The number that a text begins with, whatever its unit."""
    found = re.match(r"\s*[-+]?\d+(\.\d+)?", text)
    return float(found.group()) if found else -np.inf


class _Impatient(xmlrpc.client.Transport):
    """Asks with a limit of time: a cable may be out."""

    def make_connection(self, host):
        """See ``xmlrpc.client.Transport``."""
        connection = super().make_connection(host)
        connection.timeout = ANSWER
        return connection


def _ask(uri: str, method: str, *arguments):
    """What an XML-RPC server answers; None if nothing that makes sense."""
    try:
        server = xmlrpc.client.ServerProxy(uri, transport=_Impatient())
        return getattr(server, method)(*arguments)
    except Exception:
        return None
