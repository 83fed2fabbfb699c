"""The scene that cameras see, against the physics that it shows."""

import mujoco
import numpy as np
import pytest

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import build_hand
from mjx_dex.vision import lettering
from mjx_dex.vision.config import RigConfig
from mjx_dex.vision.scene import GAZE, build_scene


def scene_of(shape="block", **rig):
    return build_scene(HandConfig(), ObjectConfig(shape=shape), RigConfig(**rig))


def test_bodies_are_where_physics_has_them(scene, poses, data):
    physics = build_hand(HandConfig(), ObjectConfig(), PhysicsConfig()).model
    other = mujoco.MjData(physics)
    for qpos in poses(4):
        data.qpos[:], other.qpos[:] = qpos, qpos
        mujoco.mj_kinematics(scene.model, data)
        mujoco.mj_kinematics(physics, other)
        for body in range(physics.nbody):
            name = physics.body(body).name
            np.testing.assert_allclose(data.body(name).xpos, other.body(name).xpos)
            np.testing.assert_allclose(data.body(name).xmat, other.body(name).xmat)


def test_every_part_of_the_hand_and_every_face_has_a_material_of_its_own(scene):
    model = scene.model
    parts = [g for g in range(model.ngeom) if model.geom(g).name.startswith("robot0:")]
    assert len(parts) == 23
    assert sorted(model.geom_matid[parts]) == sorted(scene.robot_materials)
    plates = [model.geom(f"plate{i}").matid[0] for i in range(6)]
    assert plates == scene.face_materials.tolist()
    # Elsewhere MuJoCo's renderers read a geom's own colour.
    np.testing.assert_allclose(model.geom_rgba, [[0.5, 0.5, 0.5, 1.0]] * model.ngeom)


@pytest.mark.parametrize(("shape", "faces"), [("block", 6), ("prism", 10)])
def test_what_is_seen_fills_the_object_and_does_not_leave_it(shape, faces):
    model = scene_of(shape).model
    vertices = []
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] == model.body("object").id:
            mesh = model.geom_dataid[geom]
            begin, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            local = model.mesh_vert[begin : begin + count]
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
            vertices.append(local @ rotation.reshape(3, 3).T + model.geom_pos[geom])
    assert len(vertices) == 3 * faces
    half, proud = 0.057 / 2, lettering.PROUD
    every = np.concatenate(vertices)
    np.testing.assert_allclose(every.max(0), half + proud, atol=2e-5)
    np.testing.assert_allclose(every.min(0), -half - proud, atol=2e-5)
    if shape == "prism":
        angles = np.pi / 8 * np.arange(16)
        across = every[:, :2] @ np.stack([np.cos(angles), np.sin(angles)])
        np.testing.assert_allclose(across[:, ::2].max(0), half + proud, atol=2e-5)
        assert across[:, 1::2].max() < half / np.cos(np.pi / 8) + proud


def test_letters_can_be_read_from_outside():
    """Drawn pixel by pixel as seen from outside, the face is the glyph."""
    square = 0.0285 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    for normal in (*np.eye(3), *-np.eye(3)):
        face = lettering.Face(0.0285 * normal, normal, square)
        across, up, outward = face.axes
        np.testing.assert_allclose(np.cross(across, up), outward)
        vertices, triangles = lettering.letter(face, "P")
        flat = (vertices - face.center) @ face.axes.T
        pixel = 0.6 * 0.057 / 7
        seen = []
        for i in range(7):
            middles = [((k - 2) * pixel, (3 - i) * pixel) for k in range(5)]
            inside = [_covers(flat[:, :2], triangles, middle) for middle in middles]
            seen.append("".join("#" if x else "." for x in inside))
        assert tuple(seen) == lettering.GLYPHS["P"]


def _covers(flat, triangles, point):
    def turn(a, b, c):
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    for a, b, c in flat[triangles]:
        signs = [turn(*edge, point) for edge in ((a, b), (b, c), (c, a))]
        if abs(turn(a, b, c)) > 1e-12 and (min(signs) >= 0 or max(signs) <= 0):
            return True
    return False


def test_meshes_face_outward():
    """By the divergence theorem their volume is that of their boxes."""
    square = 0.03 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    face = lettering.Face(np.array([0, 0, 0.03]), np.array([0, 0, 1.0]), square)
    vertices, triangles = lettering.letter(face, "E")
    a, b, c = np.moveaxis(vertices[triangles], 1, 0)
    volume = np.sum(a * np.cross(b, c)) / 6
    pixels = sum(row.count("#") for row in lettering.GLYPHS["E"])
    pixel = 0.6 * 0.06 / 7
    np.testing.assert_allclose(volume, pixels * pixel**2 * lettering.PROUD, rtol=1e-6)


@pytest.mark.parametrize("cameras", ["paper", "orrb"])
def test_cameras_see_the_palm(cameras, data):
    scene = scene_of(cameras=cameras)
    mujoco.mj_forward(scene.model, data)
    for camera in range(3):
        offset = GAZE - data.cam_xpos[camera]
        if cameras == "paper":
            np.testing.assert_allclose(np.linalg.norm(offset), 0.5)
        right, up, back = data.cam_xmat[camera].reshape(3, 3).T
        depth = -offset @ back
        half = depth * np.tan(np.deg2rad(scene.model.cam_fovy[camera]) / 2)
        assert abs(offset @ right) < 0.3 * half and abs(offset @ up) < 0.3 * half


def test_a_field_of_view_can_be_asked_for():
    np.testing.assert_allclose(scene_of(fovy=20.0).model.cam_fovy, 20.0)


def test_a_ball_cannot_be_oriented():
    with pytest.raises(ValueError, match="block and prism, not 'sphere'"):
        scene_of("sphere")
