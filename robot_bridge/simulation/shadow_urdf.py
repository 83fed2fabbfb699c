"""The description that a Shadow hand's driver publishes, kinematics and limits alone.

Lengths, axes and limits are those of Shadow's own right hand. They are not taken from
the model that policies are trained with: the two must agree.
"""

from __future__ import annotations

FINGERS = {"ff": (0.033, 0.095), "mf": (0.011, 0.099), "rf": (-0.011, 0.095)}
"""Where knuckles are on the palm: along its width and its length [m]."""

ABDUCTION_AXES = {"ff": "0 -1 0", "mf": "0 -1 0", "rf": "0 1 0", "lf": "0 1 0"}
"""First and middle finger spread towards the thumb, ring and little away from it."""

HALF_TURN = 1.5707963267948966


def shadow_urdf(prefix: str = "rh_") -> str:
    """The text.

    Args:
        prefix: 'rh_', or 'lh_' for what a left hand calls its joints (the same
            geometry: enough for telling them apart).
    """
    joints = [
        _joint("WRJ2", "forearm", "wrist", (0, -0.01, 0.213), "0 1 0", (-0.524, 0.175)),
        _joint("WRJ1", "wrist", "palm", (0, 0, 0.034), "1 0 0", (-0.698, 0.489)),
        *(j for name, (x, z) in FINGERS.items() for j in _finger(name, "palm", x, z)),
        _joint(
            "LFJ5",
            "palm",
            "lfmetacarpal",
            (-0.033, 0, 0.02071),
            "0.573576 0 0.819152",
            (0, 0.785),
        ),
        *_finger("lf", "lfmetacarpal", 0.0, 0.06579),
        *_thumb(),
    ]
    links = sorted({name for joint in joints for name in (joint[1], joint[2])})
    body = [f'<link name="{prefix}{name}"/>' for name in links]
    body += [_xml(prefix, *joint) for joint in joints]
    return "\n".join(['<robot name="shadowhand_motor">', *body, "</robot>"])


def _finger(name: str, parent: str, x: float, z: float) -> list[tuple]:
    letters = name.upper()
    return [
        _joint(
            f"{letters}J4",
            parent,
            f"{name}knuckle",
            (x, 0, z),
            ABDUCTION_AXES[name],
            (-0.349, 0.349),
        ),
        _joint(
            f"{letters}J3",
            f"{name}knuckle",
            f"{name}proximal",
            (0, 0, 0),
            "1 0 0",
            (-0.262, 1.571),
        ),
        _joint(
            f"{letters}J2",
            f"{name}proximal",
            f"{name}middle",
            (0, 0, 0.045),
            "1 0 0",
            (0, 1.571),
        ),
        _joint(
            f"{letters}J1",
            f"{name}middle",
            f"{name}distal",
            (0, 0, 0.025),
            "1 0 0",
            (0, 1.571),
        ),
    ]


def _thumb() -> list[tuple]:
    return [
        _joint(
            "THJ5",
            "palm",
            "thbase",
            (0.034, -0.00858, 0.029),
            "0 0 -1",
            (-1.047, 1.047),
            (0, HALF_TURN / 2, 0),
        ),
        _joint("THJ4", "thbase", "thproximal", (0, 0, 0), "1 0 0", (0, 1.222)),
        _joint("THJ3", "thproximal", "thhub", (0, 0, 0.038), "1 0 0", (-0.209, 0.209)),
        _joint("THJ2", "thhub", "thmiddle", (0, 0, 0), "0 -1 0", (-0.698, 0.698)),
        _joint(
            "THJ1",
            "thmiddle",
            "thdistal",
            (0, 0, 0.032),
            "1 0 0",
            (-0.262, 1.571),
            (0, 0, -HALF_TURN),
        ),
    ]


def _joint(name, parent, child, position, axis, limits, turn=(0, 0, 0)) -> tuple:
    return name, parent, child, position, turn, axis, limits


def _xml(prefix, name, parent, child, position, turn, axis, limits) -> str:
    xyz, rpy = (" ".join(map(str, numbers)) for numbers in (position, turn))
    return (
        f'<joint name="{prefix}{name}" type="revolute">'
        f'<parent link="{prefix}{parent}"/><child link="{prefix}{child}"/>'
        f'<origin xyz="{xyz}" rpy="{rpy}"/><axis xyz="{axis}"/>'
        f'<limit lower="{limits[0]}" upper="{limits[1]}" effort="2" velocity="2"/>'
        "</joint>"
    )
