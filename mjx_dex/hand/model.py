"""The scene as a MuJoCo model: Shadow hand from gymnasium-robotics, and an object."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import calibration, names, objects

NUM_JOINTS = len(names.JOINTS)
"""Hand joints: the first entries of ``qpos`` and ``qvel``; the object's follow."""

REFERENCE_MARKERS = {
    "ref0": (0.007, -0.009, -0.006),
    "ref1": (0.085, -0.009, -0.006),
    "ref2": (0.085, -0.009, -0.084),
}
"""Motion-capture markers of the hand base, in the plate's frame [m] (robogym)."""

MARKER_PLATE_POSITION = (0.046, -0.035, 0.216)
MARKER_PLATE_QUATERNION = (0.0, 0.0, 0.7071067811865476, -0.7071067811865476)
"""Pose of the marker plate on the forearm: Euler angles (pi/2, 0, pi) in robogym."""

GOAL_POSITION = (1.12, 0.83, 0.2)
"""Where the goal is shown [m], world frame: beside the hand, in the camera's view."""


NAIL_BOXES = {
    "FF": ((0.0, 0.01, 0.027), (0.003, 0.008, 0.004)),
    "MF": ((0.0, 0.01, 0.027), (0.003, 0.006, 0.004)),
    "RF": ((0.0, 0.01, 0.027), (0.003, 0.006, 0.004)),
    "LF": ((0.0, 0.01, 0.027), (0.004, 0.007, 0.004)),
    "TH": ((0.01, 0.0, 0.028), (0.001, 0.003, 0.004)),
}
"""Centre and half sizes of a box on each nail, in its body's frame [m] (robogym): what
reaches into it hides the fingertip's marker. Not a part of the physics."""


@dataclass(frozen=True)
class Hand:
    """A compiled scene and the indices into it that the rest of the program needs."""

    model: mujoco.MjModel
    """The nominal physics: 24 hinge joints, then the object's free joint."""
    spec: mujoco.MjSpec
    """What ``model`` was compiled from."""
    actuator_joints: np.ndarray
    """[20, 24] 1 where a joint's angle counts toward an actuator's: coupled pairs
    are summed."""
    fingertip_sites: np.ndarray
    """[5] site ids of the fingertip markers, in the order of ``names.FINGERS``."""
    rest_angles: np.ndarray
    """[24] joint angles with every actuator at the middle of its range: a hand that is
    cupped around the palm [rad]."""
    frame_position: np.ndarray
    """[3] origin of the frame in which positions are sensed: base marker ref1 [m]."""
    frame_rotation: np.ndarray
    """[3, 3] rows are that frame's axes in the world, given by the base markers."""
    base_markers: np.ndarray
    """[3, 3] where the base markers are in that frame [m]."""
    log_backlash: np.ndarray
    """[20, 2] logarithm of the slack that each actuator takes up, closing and opening,
    in 1/(rad s)."""
    friction_rule: str
    """What ``model``'s friction stands for: see ``PhysicsConfig.friction_rule``."""

    @property
    def ctrl_range(self) -> np.ndarray:
        """[20, 2] lowest and highest target of each actuator [rad]."""
        return self.model.actuator_ctrlrange


def build_hand(
    hand: HandConfig,
    obj: ObjectConfig | None,
    physics: PhysicsConfig,
    visuals: bool = False,
    goal: bool = False,
) -> Hand:
    """Build the scene.

    Args:
        hand: which calibration, which collisions.
        obj: the object, or None for the hand alone.
        physics: timestep and solver.
        visuals: keep the visual meshes, add floor, light and camera. The physics
            is the same either way; without them the model is smaller.
        goal: add a second object beside the hand, which shows an orientation.

    Raises:
        ValueError: if a configured file or name does not exist.
        ModuleNotFoundError: if gymnasium-robotics is not installed.
    """
    spec = assemble(hand, obj, physics)
    if goal:
        objects.add_goal(spec, obj, GOAL_POSITION)
    if visuals:
        _add_stage(spec)
    else:
        _remove_visuals(spec)
    for actuator in spec.actuators:
        # Targets are clipped by the task, to ranges that may differ between worlds.
        actuator.ctrllimited = False
    log_backlash = calibration.log_backlash(_calibrated(hand))
    return _index(spec, log_backlash, physics.friction_rule)


def assemble(
    hand: HandConfig, obj: ObjectConfig | None, physics: PhysicsConfig
) -> mujoco.MjSpec:
    """The scene before it is compiled, visual meshes included: see ``build_hand``."""
    spec = mujoco.MjSpec.from_string(_scene_xml(asset_folder()))
    _set_solver(spec, physics)
    _use_primitive_shapes(spec, hand.self_collision)
    _drive_sums(spec)
    _drop_redundant_tendons(spec, keep_coupling=hand.calibration == "gymnasium")
    if hand.calibration != "gymnasium":
        calibration.apply_calibration(spec, _calibrated(hand))
    _add_reference_markers(spec)
    if obj is not None:
        objects.add_object(spec, obj)
        objects.share_friction(spec, obj, physics.friction_rule)
    return spec


def _calibrated(hand: HandConfig) -> dict:
    """Values of the calibration file; the package's own hand gets OpenAI's backlash."""
    shipped = hand.calibration in ("calibrated", "gymnasium")
    return calibration.load_calibration(
        calibration.CALIBRATED if shipped else hand.calibration
    )


def asset_folder() -> Path:
    """Folder of the Shadow hand's assets, found without importing gymnasium."""
    package = importlib.util.find_spec("gymnasium_robotics")
    if package is None:
        raise ModuleNotFoundError(
            "the Shadow hand's model comes with the package gymnasium-robotics: "
            "pip install gymnasium-robotics"
        )
    return Path(package.submodule_search_locations[0]) / "envs" / "assets"


def _scene_xml(assets: Path) -> str:
    return f"""
    <mujoco model="mjx_dex">
      <compiler angle="radian" meshdir="{assets}/stls/hand"/>
      <include file="{assets}/hand/shared.xml"/>
      <asset><include file="{assets}/hand/shared_asset.xml"/></asset>
      <worldbody><include file="{assets}/hand/robot.xml"/></worldbody>
    </mujoco>"""


def _set_solver(spec: mujoco.MjSpec, physics: PhysicsConfig) -> None:
    spec.option.timestep = physics.timestep
    spec.option.iterations = physics.iterations
    spec.option.ls_iterations = physics.ls_iterations
    if physics.max_contacts is not None:
        # Read by MJX alone: it keeps the deepest contacts of a world, up to so many.
        spec.add_numeric(name="max_contact_points", data=[physics.max_contacts], size=1)


def _use_primitive_shapes(spec: mujoco.MjSpec, self_collision: bool) -> None:
    forearm = spec.geom("robot0:C_forearm")
    forearm.type = mujoco.mjtGeom.mjGEOM_CAPSULE
    forearm.meshname = ""
    # Fitted to the convex mesh that it replaces: same radius, same ends.
    forearm.size, forearm.pos = (0.068, 0.046, 0.0), (0.0, 0.01, 0.154)
    for geom in spec.geoms:
        if geom.name.startswith("robot0:V_"):
            # Two of them, on the thumb, would collide.
            geom.contype, geom.conaffinity = 0, 0
    # The package's own pairs; it lists (little distal, ring distal) twice.
    seen = set()
    for pair in spec.pairs:
        shapes = frozenset((pair.geomname1, pair.geomname2))
        if shapes in seen or not self_collision:
            spec.delete(pair)
        seen.add(shapes)


def _drive_sums(spec: mujoco.MjSpec) -> None:
    """Let each coupled finger's actuator pull on the sum of its two angles."""
    for actuator in names.ACTUATORS:
        if len(actuator.joints) == 1:
            continue
        finger = actuator.joints[0][:2]
        tendon = spec.add_tendon(name=f"robot0:{finger}_sum")
        for joint in actuator.joints:
            tendon.wrap_joint(f"robot0:{joint}", 1.0)
        element = spec.actuator(actuator.gymnasium)
        element.trntype = mujoco.mjtTrn.mjTRN_TENDON
        element.target = tendon.name
        element.ctrlrange = (0.0, 3.142)


def _drop_redundant_tendons(spec: mujoco.MjSpec, keep_coupling: bool) -> None:
    """Remove the package's limit tendons, which the joint ranges imply.

    Only ``T_xJ1c``, its model of the finger coupling, does something of its own.
    """
    for tendon in spec.tendons:
        coupling = tendon.name.endswith("J1c") and keep_coupling
        if tendon.name.startswith("robot0:T_") and not coupling:
            spec.delete(tendon)


def _add_reference_markers(spec: mujoco.MjSpec) -> None:
    plate = spec.body("robot0:forearm").add_body(
        name="marker_plate", pos=MARKER_PLATE_POSITION, quat=MARKER_PLATE_QUATERNION
    )
    for name, position in REFERENCE_MARKERS.items():
        plate.add_site(name=name, pos=position, size=(0.0024,) * 3)


def _remove_visuals(spec: mujoco.MjSpec) -> None:
    for geom in spec.geoms:
        if geom.name.startswith("robot0:V_"):
            spec.delete(geom)
    for mesh in spec.meshes:
        spec.delete(mesh)
    for sensor in spec.sensors:
        spec.delete(sensor)


def _add_stage(spec: mujoco.MjSpec) -> None:
    """Floor (never touched: a dropped object ends the episode), light and camera."""
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=(1, 1, 0),
        size=(1, 1, 0.1),
        rgba=(0.6, 0.62, 0.65, 1),
        contype=0,
        conaffinity=0,
    )
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=(1.1, 0.85, 1.2),
        dir=(-0.1, 0.15, -1),
        diffuse=(0.5, 0.5, 0.5),
    )
    spec.worldbody.add_camera(
        name="overview",
        pos=(0.78, 0.55, 0.48),
        xyaxes=(0.80, -0.60, 0, 0.40, 0.53, 0.75),
        fovy=38,
    )
    spec.visual.headlight.diffuse = (0.3, 0.3, 0.3)
    spec.visual.headlight.ambient = (0.25, 0.25, 0.25)
    spec.stat.center, spec.stat.extent = (1.0, 1.0, 0.15), 0.5
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960


def _index(spec: mujoco.MjSpec, log_backlash: np.ndarray, friction_rule: str) -> Hand:
    model = spec.compile()
    joint_ids = {joint.ours: i for i, joint in enumerate(names.JOINTS)}
    actuator_joints = np.zeros((model.nu, NUM_JOINTS), np.float32)
    for i, actuator in enumerate(names.ACTUATORS):
        for joint in actuator.joints:
            actuator_joints[i, joint_ids[joint]] = 1.0
    markers = _base_markers(model)
    position, rotation = frame_from_markers(markers)
    return Hand(
        model=model,
        spec=spec,
        actuator_joints=actuator_joints,
        fingertip_sites=np.array(
            [model.site(f"robot0:S_{f.lower()}tip").id for f in names.FINGERS]
        ),
        rest_angles=_settle(model),
        frame_position=position,
        frame_rotation=rotation,
        base_markers=(markers - position) @ rotation.T,
        log_backlash=log_backlash,
        friction_rule=friction_rule,
    )


def _settle(model: mujoco.MjModel) -> np.ndarray:
    data = mujoco.MjData(model)
    # Far above the hand, where it stays while the hand comes to rest.
    data.qpos[NUM_JOINTS + 2 : NUM_JOINTS + 3] = 1000.0
    data.ctrl[:] = model.actuator_ctrlrange.mean(1)
    mujoco.mj_step(model, data, nstep=500)
    return data.qpos[:NUM_JOINTS].copy()


def _base_markers(model: mujoco.MjModel) -> np.ndarray:
    """[3, 3] markers of the hand base in the world [m]."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return np.stack([data.site(name).xpos for name in REFERENCE_MARKERS])


def frame_from_markers(markers, xp=np):
    """Origin [3] and axes [3, 3] (rows) of the frame that base markers [3, 3] define.

    Right-handed; robogym's y axis is ``x cross z``, which makes a left-handed frame.
    Axes of displaced markers need not be orthogonal: positions are projected on them
    all the same, as in robogym.

    Args:
        markers: positions of ``REFERENCE_MARKERS`` [m].
        xp: numpy or jax.numpy.
    """
    ref0, ref1, ref2 = markers
    x = (ref0 - ref1) / xp.linalg.norm(ref0 - ref1)
    z = (ref2 - ref1) / xp.linalg.norm(ref2 - ref1)
    return ref1, xp.stack([x, xp.cross(z, x), z])
