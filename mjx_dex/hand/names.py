"""One hand, four naming schemes: ours, Gymnasium's, Shadow's ROS and Menagerie's.

Ours are robogym's XML names: joints counted from 0 at the fingertip, so ``FFJ0`` is the
first finger's distal joint. Shadow and Menagerie count from 1, and Shadow's ``FFJ0`` is
not a joint but the coupled pair ``FFJ1 + FFJ2``.
"""

from typing import NamedTuple


class JointName(NamedTuple):
    """One joint in every scheme; the angle in Menagerie is ``sign`` times ours."""

    ours: str
    shadow: str
    menagerie_sign: int

    @property
    def gymnasium(self) -> str:
        """The name in gymnasium-robotics' MJCF, and in robogym at run time."""
        return f"robot0:{self.ours}"

    @property
    def menagerie(self) -> str:
        """The name in MuJoCo Menagerie's ``right_hand.xml``: the same as Shadow's."""
        return self.shadow


class ActuatorName(NamedTuple):
    """One actuator in every scheme, with the joints whose angles it moves in sum."""

    ours: str
    shadow: str
    menagerie_index: int
    joints: tuple[str, ...]

    @property
    def gymnasium(self) -> str:
        """The name in gymnasium-robotics' MJCF, and in robogym at run time."""
        return f"robot0:{self.ours}"

    @property
    def menagerie(self) -> str:
        """The name in MuJoCo Menagerie's ``right_hand.xml``."""
        return self.shadow.replace("rh_", "rh_A_")


FINGERS = ("FF", "MF", "RF", "LF", "TH")
"""First, middle, ring and little finger, thumb: the order of every [5, ...] array."""

COUPLED_FINGERS = ("FF", "MF", "RF", "LF")
"""Fingers whose middle and distal joints share one tendon and so one actuator."""

JOINTS = (
    JointName("WRJ1", "rh_WRJ2", +1),
    JointName("WRJ0", "rh_WRJ1", +1),
    JointName("FFJ3", "rh_FFJ4", -1),
    JointName("FFJ2", "rh_FFJ3", +1),
    JointName("FFJ1", "rh_FFJ2", +1),
    JointName("FFJ0", "rh_FFJ1", +1),
    JointName("MFJ3", "rh_MFJ4", -1),
    JointName("MFJ2", "rh_MFJ3", +1),
    JointName("MFJ1", "rh_MFJ2", +1),
    JointName("MFJ0", "rh_MFJ1", +1),
    JointName("RFJ3", "rh_RFJ4", +1),
    JointName("RFJ2", "rh_RFJ3", +1),
    JointName("RFJ1", "rh_RFJ2", +1),
    JointName("RFJ0", "rh_RFJ1", +1),
    JointName("LFJ4", "rh_LFJ5", +1),
    JointName("LFJ3", "rh_LFJ4", +1),
    JointName("LFJ2", "rh_LFJ3", +1),
    JointName("LFJ1", "rh_LFJ2", +1),
    JointName("LFJ0", "rh_LFJ1", +1),
    JointName("THJ4", "rh_THJ5", +1),
    JointName("THJ3", "rh_THJ4", +1),
    JointName("THJ2", "rh_THJ3", +1),
    JointName("THJ1", "rh_THJ2", -1),
    JointName("THJ0", "rh_THJ1", -1),
)
"""The 24 joints in the order of ``qpos``, the same in every scheme."""

ACTUATORS = (
    ActuatorName("A_WRJ1", "rh_WRJ2", 0, ("WRJ1",)),
    ActuatorName("A_WRJ0", "rh_WRJ1", 1, ("WRJ0",)),
    ActuatorName("A_FFJ3", "rh_FFJ4", 7, ("FFJ3",)),
    ActuatorName("A_FFJ2", "rh_FFJ3", 8, ("FFJ2",)),
    ActuatorName("A_FFJ1", "rh_FFJ0", 9, ("FFJ1", "FFJ0")),
    ActuatorName("A_MFJ3", "rh_MFJ4", 10, ("MFJ3",)),
    ActuatorName("A_MFJ2", "rh_MFJ3", 11, ("MFJ2",)),
    ActuatorName("A_MFJ1", "rh_MFJ0", 12, ("MFJ1", "MFJ0")),
    ActuatorName("A_RFJ3", "rh_RFJ4", 13, ("RFJ3",)),
    ActuatorName("A_RFJ2", "rh_RFJ3", 14, ("RFJ2",)),
    ActuatorName("A_RFJ1", "rh_RFJ0", 15, ("RFJ1", "RFJ0")),
    ActuatorName("A_LFJ4", "rh_LFJ5", 16, ("LFJ4",)),
    ActuatorName("A_LFJ3", "rh_LFJ4", 17, ("LFJ3",)),
    ActuatorName("A_LFJ2", "rh_LFJ3", 18, ("LFJ2",)),
    ActuatorName("A_LFJ1", "rh_LFJ0", 19, ("LFJ1", "LFJ0")),
    ActuatorName("A_THJ4", "rh_THJ5", 2, ("THJ4",)),
    ActuatorName("A_THJ3", "rh_THJ4", 3, ("THJ3",)),
    ActuatorName("A_THJ2", "rh_THJ3", 4, ("THJ2",)),
    ActuatorName("A_THJ1", "rh_THJ2", 5, ("THJ1",)),
    ActuatorName("A_THJ0", "rh_THJ1", 6, ("THJ0",)),
)
"""The 20 actuators in our order, which is also robogym's and Gymnasium's."""
