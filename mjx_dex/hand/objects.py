"""The objects the hand turns: one small function each, primitive shapes only.

Primitive shapes (never meshes) keep one meaning of "object size" on every engine: the
randomization menu scales ``geom_size`` and ``geom_pos`` and nothing else.
"""

import math
from collections.abc import Callable

import mujoco
import numpy as np

from mjx_dex.config import ObjectConfig

FACE_COLORS = (
    (0.85, 0.15, 0.15, 1.0),
    (0.95, 0.55, 0.10, 1.0),
    (0.15, 0.60, 0.25, 1.0),
    (0.15, 0.35, 0.80, 1.0),
    (0.90, 0.85, 0.20, 1.0),
    (0.95, 0.95, 0.95, 1.0),
)
"""Colours of the faces +x, -x, +y, -y, +z, -z."""


def add_block(body: mujoco.MjsBody, config: ObjectConfig) -> None:
    """Add a cube of edge ``config.size`` [m] to ``body``."""
    half = config.size / 2
    _add_box(body, (half, half, half), angle=0.0)
    _set_inertia(body, config.mass, (config.mass * config.size**2 / 6,) * 3)


def add_prism(body: mujoco.MjsBody, config: ObjectConfig) -> None:
    """Add a regular octagonal prism, ``config.size`` [m] across flats and in length.

    Four boxes, each spanning two opposite sides, make up exactly the octagon: the
    triangle between its centre and any side lies inside that side's box.
    """
    half = config.size / 2
    half_side = half * math.tan(math.pi / 8)
    for k in range(4):
        _add_box(body, (half, half_side, half), angle=k * math.pi / 4)
    # A regular n-gon of apothem a has polar second moment m a^2 (3 + tan^2(pi/n)) / 6.
    axial = config.mass * half**2 * (3 + math.tan(math.pi / 8) ** 2) / 6
    radial = axial / 2 + config.mass * config.size**2 / 12
    _set_inertia(body, config.mass, (radial, radial, axial))


def add_sphere(body: mujoco.MjsBody, config: ObjectConfig) -> None:
    """Add a ball of diameter ``config.size`` [m] to ``body``."""
    radius = config.size / 2
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(radius, 0, 0))
    _set_inertia(body, config.mass, (0.4 * config.mass * radius**2,) * 3)


ADD_SHAPE: dict[str, Callable[[mujoco.MjsBody, ObjectConfig], None]] = {
    "block": add_block,
    "prism": add_prism,
    "sphere": add_sphere,
}


def add_object(spec: mujoco.MjSpec, config: ObjectConfig) -> None:
    """Add the body ``object`` with a free joint, its contact settings and its looks.

    Args:
        spec: the scene, edited in place.
        config: shape, size, mass and friction.
    """
    body = spec.worldbody.add_body(name="object", pos=config.start_position)
    body.add_freejoint(name="object")
    ADD_SHAPE[config.shape](body, config)
    for i, geom in enumerate(body.geoms):
        geom.name = f"object{i}"
        geom.friction = config.friction
        geom.condim = 4
        geom.contype, geom.conaffinity = 1, 1
        geom.rgba = (0.55, 0.75, 0.95, 1.0)
    body.add_site(name="object", size=(0.001,) * 3, rgba=(0, 0, 0, 0))
    _add_face_marks(body, config.size)


FRICTION_POWERS = {"geometric_mean": (0.5, 0.5, 0.5), "product": (1.0, 0.5, 0.5)}
"""Powers of the product of two surfaces' sliding, torsional and rolling friction. The
latter two are lengths, whose product is none: they always take the geometric mean."""


def contact_friction(hand, obj, rule: str):
    """[3] friction of a contact from both surfaces', or its factors from both factors.

    Args:
        hand: [3], or a factor of all three.
        obj: the same of the object.
        rule: of ``FRICTION_POWERS``.
    """
    return (hand * obj) ** np.array(FRICTION_POWERS[rule])


def share_friction(spec: mujoco.MjSpec, config: ObjectConfig, rule: str) -> None:
    """Let contacts of the object have the friction of ``rule``, on every engine.

    Engines take the larger coefficients of two geoms. So those of the hand get the
    contact's friction, and the object's none at all. Nothing else changes: all contacts
    are the object's, but for those between fingers, which are frictionless pairs.

    Args:
        spec: the scene with the object, edited in place.
        config: of the object.
        rule: see ``PhysicsConfig.friction_rule``.
    """
    if rule == "maximum":
        return
    own = {geom.name for geom in spec.body("object").geoms}
    for geom in spec.geoms:
        shared = contact_friction(geom.friction, np.array(config.friction), rule)
        geom.friction = np.zeros(3) if geom.name in own else shared


def add_goal(
    spec: mujoco.MjSpec, config: ObjectConfig, position: tuple[float, float, float]
) -> None:
    """Add the mocap body ``goal``, which looks like the object and touches nothing.

    Args:
        spec: the scene, edited in place.
        config: of the object.
        position: where it floats [m], world frame.
    """
    body = spec.worldbody.add_body(name="goal", pos=position, mocap=True)
    ADD_SHAPE[config.shape](body, config)
    for geom in body.geoms:
        geom.contype, geom.conaffinity = 0, 0
        geom.rgba = (0.55, 0.95, 0.65, 1.0)
    _add_face_marks(body, config.size)


def _add_box(
    body: mujoco.MjsBody, half_size: tuple[float, float, float], angle: float
) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=half_size,
        quat=(math.cos(angle / 2), 0, 0, math.sin(angle / 2)),
    )


def _set_inertia(body: mujoco.MjsBody, mass: float, inertia: tuple) -> None:
    body.mass, body.inertia, body.ipos = mass, inertia, (0, 0, 0)
    body.explicitinertial = True


def _add_face_marks(body: mujoco.MjsBody, size: float) -> None:
    """Coloured plates just above the six faces: they show orientation, never touch."""
    for i, color in enumerate(FACE_COLORS):
        axis, sign = divmod(i, 2)[0], 1 - 2 * (i % 2)
        half = [0.15 * size] * 3
        half[axis] = 0.001 * size
        position = [0.0] * 3
        position[axis] = sign * size / 2
        body.add_site(
            name=f"{body.name}:face{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=half,
            pos=position,
            rgba=color,
        )
