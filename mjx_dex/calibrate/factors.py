"""What is fitted: named factors and offsets around a calibration file's values.

A ``HandDraw`` is to a hand what ``PhysicsDraw`` is to a world, and shares its names.
Appendix C.3 counts 264 values: here 24 joints have seven, 20 actuators four, and the
elastic couplings of four fingers, which are no actuators in our model, four each.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import mujoco
import numpy as np

from mjx_dex.calibrate.config import CalibrateConfig
from mjx_dex.hand import names
from mjx_dex.types import HandDraw

JOINTS = [joint.shadow for joint in names.JOINTS]
ACTUATORS = [actuator.shadow for actuator in names.ACTUATORS]
COUPLINGS = [f"rh_{finger}J1-J2" for finger in names.COUPLED_FINGERS]

FACTORS = {
    "joint_damping": JOINTS,
    "joint_equilibrium": JOINTS,
    "joint_friction": JOINTS,
    "joint_stiffness": JOINTS,
    "joint_margin": JOINTS,
    "joint_lower_limit": JOINTS,
    "joint_upper_limit": JOINTS,
    "actuator_gain": ACTUATORS,
    "actuator_force": ACTUATORS,
    "backlash_closing": ACTUATORS,
    "backlash_opening": ACTUATORS,
    "coupling_stiffness": COUPLINGS,
    "coupling_rest": COUPLINGS,
    "coupling_ratio": COUPLINGS,
    "coupling_damping": COUPLINGS,
}
"""Each factor's entries, by Shadow's names."""

MULTIPLY = {
    "joint_damping",
    "joint_friction",
    "joint_margin",
    "actuator_gain",
    "actuator_force",
    "backlash_closing",
    "backlash_opening",
    "coupling_stiffness",
    "coupling_ratio",
    "coupling_damping",
}
"""Factors that multiply; the others are added."""

NARROWEST_RANGE = 0.05
"""Limits that come closer together are set this far apart [rad]."""


class Entry(NamedTuple):
    """One of the 264 values."""

    factor: str
    index: int

    def __str__(self) -> str:
        return f"{self.factor} {FACTORS[self.factor][self.index]}"


def nominal_draw() -> HandDraw:
    """The draw that changes nothing."""
    return HandDraw(
        **{
            name: np.full(len(entries), 1.0 if name in MULTIPLY else 0.0)
            for name, entries in FACTORS.items()
        }
    )


def entries_of(part: str, config: CalibrateConfig) -> list[Entry]:
    """What is free of one part of the hand.

    Args:
        part: 'WR', or a finger as in ``names.FINGERS``.
        config: says which factors are free.
    """
    return [
        Entry(factor, k)
        for factor, labels in FACTORS.items()
        if getattr(config.factors, factor).free
        for k, label in enumerate(labels)
        if label[3:5] == part
    ]


def with_values(
    draw: HandDraw, entries: list[Entry], z: np.ndarray, config: CalibrateConfig
) -> HandDraw:
    """Draws in which some entries have other values.

    Args:
        draw: of the others.
        entries: n of them.
        z: [..., n] their values in standard deviations of the prior, 0 the prior's
            mean; of factors that multiply, it is that of their logarithm.
        config: holds the priors.

    Returns:
        Draws with the leading axes of ``z``.
    """
    changed = {}
    for k, (factor, index) in enumerate(entries):
        if factor not in changed:
            value = getattr(draw, factor)
            changed[factor] = np.broadcast_to(value, (*z.shape[:-1], len(value))).copy()
        moved = getattr(config.factors, factor).deviation * z[..., k]
        if factor in MULTIPLY:
            moved = np.exp(moved)
        changed[factor][..., index] = moved
    rest = {
        name: np.broadcast_to(value, (*z.shape[:-1], len(value)))
        for name, value in vars(draw).items()
        if name not in changed
    }
    return HandDraw(**changed, **rest)


def z_of(draw: HandDraw, entries: list[Entry], config: CalibrateConfig) -> np.ndarray:
    """[n] the values of some entries, as ``with_values`` takes them."""
    values = []
    for factor, index in entries:
        value = getattr(draw, factor)[index]
        value = np.log(value) if factor in MULTIPLY else value
        values.append(value / getattr(config.factors, factor).deviation)
    return np.array(values)


def bounds(entries: list[Entry], config: CalibrateConfig) -> np.ndarray:
    """[n, 2] lowest and highest ``z``."""
    result = []
    for factor, _ in entries:
        prior = getattr(config.factors, factor)
        ends = np.array([prior.low, prior.high])
        ends = np.log(ends) if factor in MULTIPLY else ends
        result.append(ends / prior.deviation)
    return np.array(result)


def apply(draw: HandDraw, calibration: Mapping[str, Any]) -> dict[str, Any]:
    """The calibration that a draw makes of another."""
    result = copy.deepcopy(dict(calibration))
    for k, name in enumerate(names.JOINTS):
        joint = result["joints"][name.ours]
        joint["damping"] *= draw.joint_damping[k]
        joint["frictionloss"] *= draw.joint_friction[k]
        joint["margin"] *= draw.joint_margin[k]
        joint["springref"] += draw.joint_equilibrium[k]
        joint["stiffness"] = max(joint["stiffness"] + draw.joint_stiffness[k], 0.0)
        shift = np.array([draw.joint_lower_limit[k], draw.joint_upper_limit[k]])
        joint["range"] = _apart(np.array(joint["range"]) + shift).tolist()
    for k, name in enumerate(names.ACTUATORS):
        actuator = result["actuators"][name.ours]
        actuator["kp"] *= draw.actuator_gain[k]
        force = draw.actuator_force[k]
        actuator["forcerange"] = [force * end for end in actuator["forcerange"]]
        slack = np.log([draw.backlash_closing[k], draw.backlash_opening[k]])
        actuator["log_backlash"] = (actuator["log_backlash"] + slack).tolist()
    for k, finger in enumerate(names.COUPLED_FINGERS):
        coupling = result["couplings"][finger]
        coupling["stiffness"] *= draw.coupling_stiffness[k]
        coupling["moment_arm_distal"] *= draw.coupling_ratio[k]
        coupling["sum_damping"] *= draw.coupling_damping[k]
        # The angle at rest, and so in metres by the arm that it is wound on.
        coupling["rest_length"] += draw.coupling_rest[k] * coupling["moment_arm_middle"]
    return _plain(result)


def draw_between(calibration: Mapping[str, Any], other: Mapping[str, Any]) -> HandDraw:
    """The draw that makes the other of a calibration: ``apply``, backwards."""

    def values(table: str, entries: Iterable[str], name: str):
        pairs = ((calibration[table][e][name], other[table][e][name]) for e in entries)
        return np.moveaxis(np.array(list(pairs), float), 1, 0)

    joints = [joint.ours for joint in names.JOINTS]
    actuators = [actuator.ours for actuator in names.ACTUATORS]

    def ratio(table, entries, name):
        one, two = values(table, entries, name)
        return two / one

    def difference(table, entries, name):
        one, two = values(table, entries, name)
        return two - one

    fingers = names.COUPLED_FINGERS
    limits = difference("joints", joints, "range")
    slack = np.exp(difference("actuators", actuators, "log_backlash"))
    _, arms = values("couplings", fingers, "moment_arm_middle")
    return HandDraw(
        joint_damping=ratio("joints", joints, "damping"),
        joint_equilibrium=difference("joints", joints, "springref"),
        joint_friction=ratio("joints", joints, "frictionloss"),
        joint_stiffness=difference("joints", joints, "stiffness"),
        joint_margin=ratio("joints", joints, "margin"),
        joint_lower_limit=limits[:, 0],
        joint_upper_limit=limits[:, 1],
        actuator_gain=ratio("actuators", actuators, "kp"),
        actuator_force=ratio("actuators", actuators, "forcerange")[:, 1],
        backlash_closing=slack[:, 0],
        backlash_opening=slack[:, 1],
        coupling_stiffness=ratio("couplings", fingers, "stiffness"),
        coupling_rest=difference("couplings", fingers, "rest_length") / arms,
        coupling_ratio=ratio("couplings", fingers, "moment_arm_distal"),
        coupling_damping=ratio("couplings", fingers, "sum_damping"),
    )


def in_model(model: mujoco.MjModel) -> tuple[list[int], list[int]]:
    """Which of the 24 joints and 20 actuators a model has: some have one finger."""
    joint, actuator = mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_ACTUATOR
    joints, actuators = (
        [k for k, name in enumerate(table) if _has(model, kind, name.gymnasium)]
        for kind, table in ((joint, names.JOINTS), (actuator, names.ACTUATORS))
    )
    return joints, actuators


def _has(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> bool:
    return mujoco.mj_name2id(model, kind, name) >= 0


def model_fields(draw: HandDraw, model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """The same, as fields of a model of that calibration: [..., *field's shape].

    Many hands can be stepped at once without compiling a model for each. What a model
    does not have, of other fingers, is left out.
    """
    own, driven = in_model(model)
    joints, lead = slice(0, len(own)), draw.joint_damping.shape[:-1]

    def field(name: str) -> np.ndarray:
        value = getattr(model, name)
        return np.broadcast_to(value, (*lead, *value.shape)).copy()

    fields = {
        name: field(name)
        for name in (
            "dof_damping",
            "dof_frictionloss",
            "jnt_margin",
            "jnt_stiffness",
            "jnt_range",
            "qpos_spring",
            "actuator_gainprm",
            "actuator_biasprm",
            "actuator_forcerange",
            "tendon_stiffness",
            "tendon_lengthspring",
            "tendon_damping",
            "wrap_prm",
        )
    }
    fields["dof_damping"][..., joints] *= draw.joint_damping[..., own]
    fields["dof_frictionloss"][..., joints] *= draw.joint_friction[..., own]
    fields["jnt_margin"][..., joints] *= draw.joint_margin[..., own]
    fields["qpos_spring"][..., joints] += draw.joint_equilibrium[..., own]
    stiffness = fields["jnt_stiffness"][..., joints] + draw.joint_stiffness[..., own]
    fields["jnt_stiffness"][..., joints] = np.maximum(stiffness, 0.0)
    shift = np.stack([draw.joint_lower_limit, draw.joint_upper_limit], -1)
    ranges = fields["jnt_range"][..., joints, :]
    fields["jnt_range"][..., joints, :] = _apart(ranges + shift[..., own, :])
    fields["actuator_gainprm"][..., 0] *= draw.actuator_gain[..., driven]
    fields["actuator_biasprm"][..., 1] *= draw.actuator_gain[..., driven]
    fields["actuator_forcerange"] *= draw.actuator_force[..., driven, None]
    for k, finger in enumerate(names.COUPLED_FINGERS):
        if not _has(model, mujoco.mjtObj.mjOBJ_TENDON, f"robot0:{finger}_spring"):
            continue
        spring = model.tendon(f"robot0:{finger}_spring")
        middle = model.tendon_adr[spring.id]
        distal = middle + 1
        fields["tendon_stiffness"][..., spring.id] *= draw.coupling_stiffness[..., k]
        fields["wrap_prm"][..., distal] *= draw.coupling_ratio[..., k]
        fields["tendon_lengthspring"][..., spring.id, :] += (
            draw.coupling_rest[..., k] * model.wrap_prm[middle]
        )[..., None]
        total = model.tendon(f"robot0:{finger}_sum").id
        fields["tendon_damping"][..., total] *= draw.coupling_damping[..., k]
    return fields


def _apart(ranges: np.ndarray) -> np.ndarray:
    """[..., 2] limits, moved away from their middle where they are too close."""
    middle = ranges.mean(-1, keepdims=True)
    half = np.array([-NARROWEST_RANGE / 2, NARROWEST_RANGE / 2])
    too_close = ranges[..., 1:] - ranges[..., :1] < NARROWEST_RANGE
    return np.where(too_close, middle + half, ranges)


def _plain(value: Any) -> Any:
    """Python's own numbers, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
