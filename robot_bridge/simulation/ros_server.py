"""What Shadow's driver and a motion-capture node publish, of a simulated hand."""

from __future__ import annotations

import queue
from typing import Iterator

import numpy as np

from robot_bridge.ros_messages import message_class
from robot_bridge.simulation.hand import SimulatedHand
from robot_bridge.transports.ros1 import controller_of

STATE_EVERY = 4
"""Messages of joint angles for each message of a controller's state: 31 Hz."""


class RosServer:
    """Publishes and listens; ``sim_hand`` calls it.

    Args:
        hand: whose description, names and limits are told.
        trajectory: speak as a trajectory controller, too, which overwrites targets.

    Raises:
        ImportError: if rospy is missing.
    """

    def __init__(self, hand: SimulatedHand, trajectory: bool = False):
        import rospy
        from geometry_msgs.msg import Point32, PoseStamped
        from sensor_msgs.msg import JointState, PointCloud
        from std_msgs.msg import Bool, Empty, Float64

        self._rospy, self._point = rospy, Point32
        self._state = message_class("control_msgs/JointControllerState")
        self._kinds = JointState, PointCloud, PoseStamped
        rospy.init_node("dex_sim_hand", disable_signals=True)
        rospy.set_param("/robot_description", hand.urdf)
        rospy.set_param("/hand/mapping", {hand.serial: hand.info.side[0] + "h"})
        self._hand, self._names = hand, hand.joint_names
        # As the driver lists them: by name.
        self._order = np.argsort(self._names)
        self._commands: queue.SimpleQueue = queue.SimpleQueue()
        self.asked = hand.set_points.copy()
        """[20] targets that it was told last; None after a new trial [rad]."""
        self._count = 0
        topics = zip(("/joint_states", "/mocap/markers", "/object/pose"), self._kinds)
        self._publishers = [
            rospy.Publisher(topic, kind, queue_size=1, tcp_nodelay=True)
            for topic, kind in topics
        ]
        self._states = []
        for index, name in enumerate(hand.actuator_names):
            controller = controller_of(name)
            self._states.append(
                rospy.Publisher(f"{controller}/state", self._state, queue_size=1)
            )
            for topic, callback in (
                ("command", self._on_target),
                ("max_force_factor", self._on_force),
            ):
                rospy.Subscriber(
                    f"{controller}/{topic}",
                    Float64,
                    callback,
                    callback_args=index,
                    tcp_nodelay=True,
                )
        rospy.Subscriber("/dex_sim/new_trial", Bool, self._on_new_trial)
        self._trajectory = None
        if trajectory:
            topic = "/rh_trajectory_controller/state"
            self._trajectory = rospy.Publisher(topic, Empty, queue_size=1)

    def commands(self) -> Iterator[tuple]:
        """Targets [20] or None, and force, as they have come."""
        changed, force = False, None
        while not self._commands.empty():
            kind, index, value = self._commands.get()
            if kind == "target":
                if self.asked is None:
                    self.asked = self._hand.set_points.copy()
                self.asked[index], changed = value, True
            elif kind == "force":
                force = value
            else:
                self.put_back(value)
                self.asked, changed = None, False
        if changed or force is not None:
            force = self._hand.force if force is None else force
            yield (self.asked.copy() if changed else None), force

    def publish(self, channel: str, value: np.ndarray, stamp: float) -> None:
        """One channel's value, as ``SimulatedHand.messages`` has it."""
        joint_state, cloud, pose = self._kinds
        when = self._rospy.Time.from_sec(stamp)
        if channel == "joints":
            if self._trajectory:
                self._trajectory.publish()
            message = joint_state()
            message.header.stamp = when
            message.name = [self._names[k] for k in self._order]
            message.position = value[self._order].tolist()
            self._publishers[0].publish(message)
        elif channel == "markers":
            message = cloud()
            message.header.stamp = when
            message.points = [self._point(*place) for place in value]
            self._publishers[1].publish(message)
        elif channel == "object":
            message = pose()
            message.header.stamp = when
            x, y, z, *turn = value.tolist()
            message.pose.position.x, message.pose.position.y = x, y
            message.pose.position.z = z
            orientation = message.pose.orientation
            orientation.w, orientation.x, orientation.y, orientation.z = turn
            self._publishers[2].publish(message)
        elif channel == "set_points":
            self._count += 1
            if self._count % STATE_EVERY == 0:
                self._publish_states(value, when)

    def _publish_states(self, set_points: np.ndarray, when) -> None:
        # The first goes last: when it has come, all have.
        for index in [*range(1, len(set_points)), 0]:
            message = self._state()
            message.header.stamp = when
            message.set_point = float(set_points[index])
            self._states[index].publish(message)

    def _on_target(self, message, index: int) -> None:
        self._commands.put(("target", index, message.data))

    def _on_force(self, message, index: int) -> None:
        # The real controller ignores factors outside [0, 1].
        if 0 <= message.data <= 1:
            self._commands.put(("force", index, message.data))

    def _on_new_trial(self, message) -> None:
        self._commands.put(("new trial", 0, message.data))
