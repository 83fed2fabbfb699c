"""Calibrated values of the Shadow hand: reading, checking and applying them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from mjx_dex.hand import names

CALIBRATED = Path(__file__).with_name("calibrated.json")
"""OpenAI's calibrated hand; ``source`` and ``units`` inside the file."""

POLYNOMIAL = ("stiffness", "damping")

JOINT_VALUES = (
    "range",
    "damping",
    "stiffness",
    "springref",
    "frictionloss",
    "armature",
    "margin",
)
ACTUATOR_VALUES = ("kp", "forcerange", "ctrlrange", "log_backlash")
COUPLING_VALUES = (
    "stiffness",
    "moment_arm_middle",
    "moment_arm_distal",
    "rest_length",
    "sum_damping",
    "difference_range",
)

TABLES = {
    "joints": ([joint.ours for joint in names.JOINTS], JOINT_VALUES),
    "actuators": ([actuator.ours for actuator in names.ACTUATORS], ACTUATOR_VALUES),
    "couplings": (names.COUPLED_FINGERS, COUPLING_VALUES),
    "friction": (("link", "fingertip"), ()),
    "fingertip_markers": (names.FINGERS, ()),
}
"""The tables of a calibration file: the entries of each, and the values of each entry.
Friction and markers are lists of three numbers."""


def load_calibration(path: str | Path) -> dict[str, Any]:
    """Read a calibration file.

    Raises:
        ValueError: if the file is missing, is not JSON or lacks an entry; the message
            names the file and what is wrong.
    """
    path = Path(path)
    try:
        calibration = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"hand.calibration: cannot read {path}: {error.strerror}; "
            "give 'calibrated', 'gymnasium' or a calibration file"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"hand.calibration: {path} is not JSON: {error}") from error
    for table, (entries, values) in TABLES.items():
        _require(calibration, table, entries, path)
        for entry in entries:
            _require(calibration[table], entry, values, path, table)
    return calibration


def _require(parent: Any, name: str, keys: Iterable[str], path: Path, table: str = ""):
    """Raise ValueError unless ``parent[name]`` exists and has all ``keys``."""
    full_name = f"{table}.{name}" if table else name
    if not isinstance(parent, dict) or name not in parent:
        raise ValueError(f"hand.calibration: {path} lacks {full_name}")
    for key in keys:
        if not isinstance(parent[name], dict) or key not in parent[name]:
            raise ValueError(f"hand.calibration: {path} lacks {full_name}.{key}")


def apply_calibration(spec: mujoco.MjSpec, calibration: Mapping[str, Any]) -> None:
    """Set joints, actuators, finger coupling, friction and markers, in place."""
    for name in names.JOINTS:
        joint = spec.joint(name.gymnasium)
        for field in JOINT_VALUES:
            value = calibration["joints"][name.ours][field]
            # MjSpec holds stiffness and damping as polynomials in the angle.
            setattr(joint, field, [value, 0, 0] if field in POLYNOMIAL else value)
    for name in names.ACTUATORS:
        values = calibration["actuators"][name.ours]
        actuator = spec.actuator(name.gymnasium)
        actuator.forcerange = values["forcerange"]
        actuator.ctrlrange = values["ctrlrange"]
        actuator.gainprm[0], actuator.biasprm[1] = values["kp"], -values["kp"]
    for finger, coupling in calibration["couplings"].items():
        _add_elastic_coupling(spec, finger, coupling)
    for geom in spec.geoms:
        if geom.name.startswith("robot0:C_"):
            part = "fingertip" if geom.name.endswith("distal") else "link"
            geom.friction = calibration["friction"][part]
    for finger, position in calibration["fingertip_markers"].items():
        spec.site(f"robot0:S_{finger.lower()}tip").pos = position


def log_backlash(calibration: Mapping[str, Any]) -> np.ndarray:
    """[20, 2] of every actuator: logarithm of 1/(rad s), closing and opening."""
    return np.array(
        [
            calibration["actuators"][actuator.ours]["log_backlash"]
            for actuator in names.ACTUATORS
        ]
    )


def _add_elastic_coupling(
    spec: mujoco.MjSpec, finger: str, coupling: Mapping[str, Any]
) -> None:
    """The passive coupling of middle (J1) and distal (J0) joint, in joint space.

    robogym winds an elastic spatial tendon around two pulleys. Its moment arms are
    nearly constant, so a linear spring on ``r1 J1 - r0 J0`` does the same work at a
    fraction of the cost, and on every engine.
    """
    middle, distal = f"robot0:{finger}J1", f"robot0:{finger}J0"
    limit = spec.add_tendon(
        name=f"robot0:{finger}_difference",
        range=coupling["difference_range"],
        limited=True,
    )
    limit.wrap_joint(middle, 1.0)
    limit.wrap_joint(distal, -1.0)
    spring = spec.add_tendon(
        name=f"robot0:{finger}_spring",
        stiffness=[coupling["stiffness"], 0, 0],
        springlength=[coupling["rest_length"]] * 2,
    )
    spring.wrap_joint(middle, coupling["moment_arm_middle"])
    spring.wrap_joint(distal, -coupling["moment_arm_distal"])
    spec.tendon(f"robot0:{finger}_sum").damping = [coupling["sum_damping"], 0, 0]
