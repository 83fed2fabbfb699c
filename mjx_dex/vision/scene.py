"""What the cameras see: the hand, a lettered object, three cameras and six lights.

Everything that Table 9 colours has a material of its own, and letters are geometry and
not texture: an appearance is then a few rows of the MuJoCo model, on every renderer.
There is nothing to collide with: poses come from elsewhere, and are only looked at.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import Hand, build_hand
from mjx_dex.hand.model import assemble
from mjx_dex.vision import lettering
from mjx_dex.vision.config import MAX_LIGHTS, RigConfig

GAZE = (1.0, 0.87, 0.2)
"""What cameras and lights look at [m], world frame: the middle of the palm."""

CAMERA_DISTANCE = 0.5
"""From there [m] (section 5.2: approximately 50 cm)."""

CAMERAS = ("left", "right", "top")

ORRB_POSITIONS = ((1.754, 1.287, 0.901), (0.281, 1.307, 0.828), (1.017, 0.892, 0.880))
ORRB_QUATERNIONS = (
    (-0.5694, -0.1657, -0.3750, -0.7125),
    (-0.5433, -0.1675, 0.4003, 0.7187),
    (0.0246, 0.0183, 0.0217, 0.9993),
)
ORRB_FOVY = (15.0, 16.0, 28.0)
"""The rig that OpenAI released with its renderer (2019); fields of view [deg]."""

PAPER_FOVY = 32.0
"""At 50 cm the block then is 40 of 200 pixels wide [deg]; the paper does not say."""

BLOCK_COLORS = (
    (0.09, 0.12, 0.45),
    (0.13, 0.10, 0.27),
    (0.70, 0.62, 0.09),
    (0.33, 0.04, 0.02),
    (0.29, 0.54, 0.00),
    (0.62, 0.33, 0.00),
)
"""Calibrated colours of the block's faces (OpenAI's renderer)."""

PRISM_COLORS = (
    *BLOCK_COLORS,
    (0.05, 0.40, 0.42),
    (0.60, 0.08, 0.30),
    (0.75, 0.75, 0.70),
    (0.08, 0.08, 0.08),
)
"""Ours: eight sides and two ends."""


@dataclass(frozen=True)
class VisionScene:
    """A model to be looked at, and which of its rows Table 9 changes."""

    model: mujoco.MjModel
    """In its nominal appearance. ``qpos`` is 24 joint angles and the object's pose, as
    in the physics."""
    robot_materials: np.ndarray
    """[robot] ids, one for each visual geom of the hand."""
    face_materials: np.ndarray
    """[faces] ids, in the order of ``face_colors``."""
    face_colors: np.ndarray
    """[faces, 3] calibrated RGB."""
    half_size: float
    """Of the object [m]."""
    hand: Hand
    """The physics that is seen: joint ranges, and the frame of ``Sensors``."""


def build_scene(hand: HandConfig, obj: ObjectConfig, rig: RigConfig) -> VisionScene:
    """Build the scene that the cameras see.

    Raises:
        ValueError: if the object has no orientation to be seen, as the sphere.
    """
    if obj.shape not in FACES:
        known = " and ".join(FACES)
        raise ValueError(f"object.shape: vision knows {known}, not {obj.shape!r}")
    physics = build_hand(hand, obj, PhysicsConfig())
    spec = assemble(hand, obj, PhysicsConfig())
    robot = _keep_what_is_seen(spec)
    colors = _paint_object(spec, obj)
    _add_cameras(spec, rig)
    _add_lights(spec)
    _add_white_table(spec)
    model = spec.compile()
    return VisionScene(
        model=model,
        robot_materials=np.array([model.material(name).id for name in robot]),
        face_materials=np.array(
            [model.material(f"face{i}").id for i in range(len(colors))]
        ),
        face_colors=np.array(colors),
        half_size=obj.size / 2,
        hand=physics,
    )


def _keep_what_is_seen(spec: mujoco.MjSpec) -> list[str]:
    """Delete all but bodies, joints and visual meshes; a material for each of these."""
    for elements in (spec.pairs, spec.sensors, spec.actuators, spec.tendons):
        for element in elements:
            spec.delete(element)
    for site in spec.sites:
        spec.delete(site)
    names = []
    for geom in spec.geoms:
        is_mesh = geom.type == mujoco.mjtGeom.mjGEOM_MESH
        if not (geom.name.startswith("robot0:V_") and is_mesh):
            spec.delete(geom)
            continue
        name = geom.name.removeprefix("robot0:V_")
        spec.add_material(name=name, rgba=(0.93, 0.93, 0.93, 1))
        geom.material = name
        names.append(name)
    return names


def _paint_object(spec: mujoco.MjSpec, obj: ObjectConfig) -> tuple:
    """Dark core, a coloured plate on each face, a letter on each plate."""
    body = spec.body("object")
    faces, colors = FACES[obj.shape](obj.size)
    spec.add_material(name="core", rgba=(0.05, 0.05, 0.05, 1))
    spec.add_material(name="letter", rgba=(0.95, 0.95, 0.95, 1))
    for i, (face, color) in enumerate(zip(faces, colors, strict=True)):
        spec.add_material(name=f"face{i}", rgba=(*color, 1))
        parts = {
            "plate": (lettering.plate(face), f"face{i}"),
            "backing": (lettering.backing(face), "core"),
            "letter": (lettering.letter(face, lettering.LETTERS[i]), "letter"),
        }
        for part, ((vertices, triangles), material) in parts.items():
            mesh = spec.add_mesh(
                name=f"{part}{i}",
                uservert=vertices.ravel(),
                userface=triangles.ravel(),
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
            )
            body.add_geom(
                name=f"{part}{i}",
                type=mujoco.mjtGeom.mjGEOM_MESH,
                meshname=mesh.name,
                material=material,
                contype=0,
                conaffinity=0,
                group=1,
            )
    return colors


def _block_faces(size: float):
    half = size / 2
    square = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    faces = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            normal = sign * np.eye(3)[axis]
            faces.append(lettering.Face(half * normal, normal, square))
    return faces, BLOCK_COLORS


def _prism_faces(size: float):
    half, angles = size / 2, np.arange(8) * np.pi / 4
    half_side = half * np.tan(np.pi / 8)
    # Across: along the side; up: along the axis.
    side = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (half_side, half)
    corners = half / np.cos(np.pi / 8) * np.exp(1j * (angles + np.pi / 8))
    end = np.stack([corners.real, corners.imag], 1)
    faces = []
    for angle in angles:
        normal = np.array([np.cos(angle), np.sin(angle), 0])
        faces.append(lettering.Face(half * normal, normal, side))
    for sign in (1.0, -1.0):
        normal = np.array([0, 0, sign])
        faces.append(lettering.Face(half * normal, normal, end))
    return faces, PRISM_COLORS


FACES = {"block": _block_faces, "prism": _prism_faces}


def _add_cameras(spec: mujoco.MjSpec, rig: RigConfig) -> None:
    for i, name in enumerate(CAMERAS):
        position, fovy = np.array(ORRB_POSITIONS[i]), ORRB_FOVY[i]
        quaternion = np.array(ORRB_QUATERNIONS[i])
        if rig.cameras == "paper":
            direction = position - GAZE
            direction /= np.linalg.norm(direction)
            position = GAZE + CAMERA_DISTANCE * direction
            quaternion, fovy = _look_along(-direction), PAPER_FOVY
        spec.worldbody.add_camera(
            name=name, pos=position, quat=quaternion, fovy=rig.fovy or fovy
        )


def _look_along(direction: np.ndarray) -> np.ndarray:
    """Quaternion of a camera, upright; one that looks down has the fingers upward."""
    z = -direction
    up = np.array([0, -1.0, 0]) if z[2] > 0.9 else np.array([0, 0, 1.0])
    x = np.cross(up, z)
    x /= np.linalg.norm(x)
    quaternion = np.zeros(4)
    axes = np.stack([x, np.cross(z, x), z], 1)
    mujoco.mju_mat2Quat(quaternion, axes.ravel())
    return quaternion


def _add_lights(spec: mujoco.MjSpec) -> None:
    for i in range(MAX_LIGHTS):
        angle = 2 * np.pi * i / MAX_LIGHTS
        away = np.array([np.cos(angle), np.sin(angle), 1.2])
        away /= np.linalg.norm(away)
        spec.worldbody.add_light(
            name=f"light{i}",
            type=mujoco.mjtLightType.mjLIGHT_SPOT,
            pos=GAZE + 1.2 * away,
            dir=-away,
            # Wide and even, or the table would be dark behind the hand.
            cutoff=80.0,
            exponent=0.0,
            castshadow=False,
        )


def _add_white_table(spec: mujoco.MjSpec) -> None:
    """The white background that the paper advises, and white where nothing is.

    It is lit as everything is: once an image's brightness is normalized, a scene in dim
    light looks like one in bright light.
    """
    spec.add_material(name="table", rgba=(1, 1, 1, 1))
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        # The last is the spacing of the grid at whose corners MuJoCo computes light.
        size=(2, 2, 0.05),
        pos=(1, 1, 0),
        material="table",
        contype=0,
        conaffinity=0,
    )
    for texture in spec.textures:
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_FLAT
            texture.rgb1 = texture.rgb2 = (1, 1, 1)
    spec.visual.headlight.active = 0
    spec.visual.map.znear, spec.visual.map.zfar = 0.1, 20.0
    spec.stat.center, spec.stat.extent = GAZE, 0.5
    spec.visual.global_.offwidth = spec.visual.global_.offheight = 512
