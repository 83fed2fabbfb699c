"""The compiled scene, against the calibration file and closed forms, in MuJoCo C."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import mjx_dex.hand
from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import build_hand

CALIBRATED = Path(mjx_dex.hand.__file__).with_name("calibrated.json")
COUPLED = ("FF", "MF", "RF", "LF")
PRIMITIVES = {
    mujoco.mjtGeom.mjGEOM_SPHERE,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_BOX,
}

# Robogym's hand with its block, every actuator at its middle, after 200 steps of 8 ms.
# Its finger coupling is an elastic tendon in space, and LFJ2 lies under the block.
SETTLED = {
    "WRJ1": -0.1744,
    "WRJ0": -0.1446,
    "FFJ2": 0.6889,
    "FFJ1": 1.1974,
    "FFJ0": 0.3744,
    "MFJ2": 0.7824,
    "MFJ1": 1.2773,
    "MFJ0": 0.2941,
    "RFJ2": 0.8052,
    "RFJ1": 1.4109,
    "RFJ0": 0.1633,
    "LFJ1": 1.1928,
    "LFJ0": 0.3739,
    "THJ3": 0.5858,
    "THJ0": -0.7834,
}


@pytest.fixture(scope="module")
def calibration():
    return json.loads(CALIBRATED.read_text())


@pytest.fixture(scope="module")
def bare(config):
    """The hand without an object."""
    return build_hand(config.hand, None, config.physics)


@pytest.fixture(scope="module")
def package_model():
    package = importlib.util.find_spec("gymnasium_robotics")
    folder = Path(package.submodule_search_locations[0]) / "envs/assets/hand"
    return mujoco.MjModel.from_xml_path(str(folder / "reach.xml"))


def build(obj=None, physics=None, visuals=False, **hand):
    physics = physics or PhysicsConfig()
    return build_hand(HandConfig(**hand), obj, physics, visuals)


def joint(model, name):
    return model.joint(f"robot0:{name}")


def joints_of(actuator: str) -> list[str]:
    """Joints that ``actuator`` turns: J1 and J0 of four fingers move in sum."""
    name = actuator.removeprefix("A_")
    if name[:2] in COUPLED and name.endswith("J1"):
        return [name, name.replace("J1", "J0")]
    return [name]


def random_state(model, rng) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:24] = rng.uniform(*model.jnt_range[:24].T)
    data.qvel[:24] = rng.normal(size=24)
    return data


def simulate(model, ctrl, steps) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.ctrl = ctrl
    mujoco.mj_step(model, data, steps)
    return data


def count_tendon_limits(data) -> int:
    kinds = data.efc_type[: data.nefc]
    return int((kinds == mujoco.mjtConstraint.mjCNSTR_LIMIT_TENDON).sum())


# --- calibration ---


def test_joints_have_their_calibrated_values(hand, calibration):
    for name, values in calibration["joints"].items():
        element = joint(hand.model, name)
        np.testing.assert_allclose(element.range, values["range"])
        assert element.damping[0] == values["damping"]
        assert element.stiffness[0] == values["stiffness"]
        assert element.qpos_spring[0] == values["springref"]
        assert element.frictionloss[0] == values["frictionloss"]
        assert element.armature[0] == values["armature"]
        assert element.margin[0] == values["margin"]
        assert hand.model.jnt_limited[element.id]


def test_actuators_have_their_calibrated_ranges(hand, calibration):
    for i, (name, values) in enumerate(calibration["actuators"].items()):
        assert hand.model.actuator(i).name == f"robot0:{name}"
        np.testing.assert_allclose(hand.ctrl_range[i], values["ctrlrange"])
        actuator = hand.model.actuator(i)
        np.testing.assert_allclose(actuator.forcerange, values["forcerange"])
        assert actuator.forcelimited[0]
        # The task clips targets, to ranges that may differ between worlds.
        assert not actuator.ctrllimited[0]


def test_geoms_have_their_calibrated_friction(hand, calibration):
    model = hand.model
    for i in range(model.ngeom):
        name = model.geom(i).name
        if name.startswith("robot0:C_"):
            part = "fingertip" if name.endswith("distal") else "link"
            np.testing.assert_allclose(
                model.geom_friction[i], calibration["friction"][part]
            )


def test_fingertip_markers_are_in_order_and_calibrated(hand, calibration):
    for finger, site in zip(
        ("FF", "MF", "RF", "LF", "TH"), hand.fingertip_sites, strict=True
    ):
        marker = hand.model.site(site)
        body = hand.model.body(marker.bodyid[0]).name
        assert body == f"robot0:{finger.lower()}distal"
        position = calibration["fingertip_markers"][finger]
        np.testing.assert_allclose(marker.pos, position)


def test_links_keep_the_packages_masses_and_places(hand, package_model):
    for i in range(1, package_model.nbody):
        theirs = package_model.body(i)
        if theirs.name.startswith("robot0:"):
            ours = hand.model.body(theirs.name)
            for field in ("mass", "inertia", "ipos", "iquat", "pos", "quat"):
                np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field))


def test_another_calibration_file_is_used(tmp_path):
    other = json.loads(CALIBRATED.read_text())
    other["joints"]["THJ3"]["damping"] = 0.123
    file = tmp_path / "other.json"
    file.write_text(json.dumps(other))
    model = build(calibration=str(file)).model
    assert joint(model, "THJ3").damping[0] == 0.123


# --- actuators ---


def test_actuators_exert_proportional_force_on_sums_of_joints(bare, calibration):
    model, rng = bare.model, np.random.default_rng(0)
    saturated = 0
    for _ in range(10):
        data = random_state(model, rng)
        lengths = []
        for name in calibration["actuators"]:
            ids = [joint(model, j).qposadr[0] for j in joints_of(name)]
            lengths.append(data.qpos[ids].sum())
        targets = np.array(lengths) + rng.normal(size=20) * 0.2
        data.ctrl = np.clip(targets, *bare.ctrl_range.T)
        mujoco.mj_forward(model, data)

        np.testing.assert_allclose(data.actuator_length, lengths, atol=1e-12)
        expected = np.zeros(24)
        for i, (name, values) in enumerate(calibration["actuators"].items()):
            force = values["kp"] * (data.ctrl[i] - lengths[i])
            limited = np.clip(force, *values["forcerange"])
            saturated += limited != force
            for j in joints_of(name):
                expected[joint(model, j).dofadr[0]] = limited
        np.testing.assert_allclose(data.qfrc_actuator, expected, atol=1e-12)
    assert 20 < saturated < 180


def test_actuators_have_no_state(hand):
    assert hand.model.na == 0
    assert hand.model.nu == 20


def test_actuator_joints_sum_what_the_actuators_measure(bare):
    data = random_state(bare.model, np.random.default_rng(1))
    mujoco.mj_forward(bare.model, data)
    sums = bare.actuator_joints @ data.qpos[:24]
    np.testing.assert_allclose(sums, data.actuator_length, atol=1e-6)


# --- coupling of middle and distal joints ---


@pytest.mark.parametrize("finger", COUPLED)
def test_coupling_is_a_spring_between_middle_and_distal_joint(
    bare, calibration, finger
):
    model, values = bare.model, calibration["couplings"][finger]
    arms = np.array([values["moment_arm_middle"], -values["moment_arm_distal"]])
    ids = [joint(model, f"{finger}{j}").dofadr[0] for j in ("J1", "J0")]
    rng = np.random.default_rng(2)
    for _ in range(5):
        data = random_state(model, rng)
        mujoco.mj_forward(model, data)
        stretch = arms @ data.qpos[ids] - values["rest_length"]
        force = -values["stiffness"] * stretch
        np.testing.assert_allclose(data.qfrc_spring[ids], force * arms, atol=1e-9)


@pytest.mark.parametrize("finger", COUPLED)
def test_coupled_joints_are_damped_each_and_in_sum(bare, calibration, finger):
    model, values = bare.model, calibration["couplings"][finger]
    names = [f"{finger}J1", f"{finger}J0"]
    ids = [joint(model, name).dofadr[0] for name in names]
    own = [calibration["joints"][name]["damping"] for name in names]
    data = random_state(model, np.random.default_rng(3))
    mujoco.mj_forward(model, data)
    velocity = data.qvel[ids]
    expected = -np.array(own) * velocity - values["sum_damping"] * velocity.sum()
    np.testing.assert_allclose(data.qfrc_damper[ids], expected, atol=1e-12)


@pytest.mark.parametrize("finger", COUPLED)
@pytest.mark.parametrize(
    ("middle", "distal", "limits"), [(0.6, 0.2, 0), (0.2, 0.6, 1), (1.64, 0.03, 1)]
)
def test_the_distal_joint_may_not_bend_beyond_the_middle_one(
    bare, finger, middle, distal, limits
):
    # 0 <= J1 - J0 <= 1.6 is allowed.
    data = mujoco.MjData(bare.model)
    # Other fingers off their limits, or J1 = J0 = 0 would count.
    for other in COUPLED:
        data.qpos[joint(bare.model, f"{other}J1").qposadr[0]] = 0.5
        data.qpos[joint(bare.model, f"{other}J0").qposadr[0]] = 0.2
    data.qpos[joint(bare.model, f"{finger}J1").qposadr[0]] = middle
    data.qpos[joint(bare.model, f"{finger}J0").qposadr[0]] = distal
    mujoco.mj_forward(bare.model, data)
    assert count_tendon_limits(data) == limits


def test_the_hand_settles_where_robogyms_does(bare):
    data = simulate(bare.model, bare.ctrl_range.mean(axis=1), steps=200)
    for name, angle in SETTLED.items():
        settled = data.qpos[joint(bare.model, name).qposadr[0]]
        assert abs(settled - angle) < 0.15, name


# --- 'gymnasium' ---


def test_gymnasium_calibration_keeps_the_packages_joints(package_model):
    model = build(calibration="gymnasium").model
    for i in range(24):
        theirs, ours = package_model.joint(i), model.joint(i)
        assert ours.name == theirs.name
        for field in ("range", "damping", "armature", "frictionloss", "stiffness"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_gymnasium_calibration_keeps_the_packages_gains(package_model):
    model = build(calibration="gymnasium").model
    for field in ("gainprm", "biasprm", "forcerange"):
        ours, theirs = (getattr(m, f"actuator_{field}") for m in (model, package_model))
        np.testing.assert_array_equal(ours, theirs)


def test_gymnasium_calibration_keeps_the_packages_targets_but_of_pairs(package_model):
    hand = build(calibration="gymnasium")
    for i, ctrl_range in enumerate(hand.ctrl_range):
        theirs = package_model.actuator_ctrlrange[i]
        pair = len(joints_of(package_model.actuator(i).name.split(":")[1])) == 2
        # A pair's target is a sum of two angles, so its range is twice as wide.
        np.testing.assert_allclose(ctrl_range, theirs * (2 if pair else 1))


@pytest.mark.parametrize(
    ("middle", "distal", "limits"), [(0.6, 0.69, 0), (0.2, 0.6, 1), (0.6, 0.2, 1)]
)
def test_gymnasium_calibration_keeps_the_packages_coupling(middle, distal, limits):
    # The package holds J0 within 0.142 rad of 1.142 J1.
    model = build(calibration="gymnasium").model
    for finger in COUPLED:
        data = mujoco.MjData(model)
        data.qpos[joint(model, f"{finger}J1").qposadr[0]] = middle
        data.qpos[joint(model, f"{finger}J0").qposadr[0]] = distal
        mujoco.mj_forward(model, data)
        assert count_tendon_limits(data) == limits


# --- collisions ---


def colliding_geoms(model) -> set[int]:
    paired = {*model.pair_geom1, *model.pair_geom2}
    masked = np.flatnonzero(model.geom_contype | model.geom_conaffinity)
    return {int(i) for i in paired | {*masked}}


@pytest.mark.parametrize("visuals", [False, True])
def test_only_primitive_shapes_collide(visuals):
    model = build(ObjectConfig(), visuals=visuals).model
    geoms = colliding_geoms(model)
    assert len(geoms) == 21
    assert {mujoco.mjtGeom(model.geom_type[i]) for i in geoms} <= PRIMITIVES


def test_the_forearm_capsule_fills_the_mesh_it_replaces(bare, package_model):
    theirs = package_model.geom("robot0:C_forearm")
    mesh = package_model.mesh(theirs.dataid[0])
    start, count = mesh.vertadr[0], mesh.vertnum[0]
    turn = Rotation.from_quat(theirs.quat, scalar_first=True)
    vertices = turn.apply(package_model.mesh_vert[start : start + count]) + theirs.pos
    capsule = bare.model.geom("robot0:C_forearm")
    radius, half_length = capsule.size[:2]
    reach = np.array([radius, radius, radius + half_length])
    np.testing.assert_allclose(vertices.max(0), capsule.pos + reach, atol=1e-3)
    np.testing.assert_allclose(vertices.min(0), capsule.pos - reach, atol=1e-3)


def fist(hand) -> mujoco.MjData:
    """Thumb across the palm, fingers closed on it."""
    data = mujoco.MjData(hand.model)
    for name in ("FFJ2", "FFJ1", "MFJ2", "MFJ1", "RFJ2", "RFJ1", "THJ4", "THJ3"):
        data.qpos[joint(hand.model, name).qposadr[0]] = 1.0
    mujoco.mj_forward(hand.model, data)
    return data


def spread(hand) -> mujoco.MjData:
    """Straight fingers pressed against their neighbours."""
    data = mujoco.MjData(hand.model)
    data.qpos[joint(hand.model, "FFJ3").qposadr[0]] = -0.4
    data.qpos[joint(hand.model, "MFJ3").qposadr[0]] = 0.3
    mujoco.mj_forward(hand.model, data)
    return data


@pytest.mark.parametrize("pose", [fist, spread])
def test_self_collision_switch(pose):
    hand = build(self_collision=True)
    data = pose(hand)
    assert data.ncon > 0
    assert set(data.contact.dim) == {1}
    assert pose(build(self_collision=False)).ncon == 0


def test_self_collision_pairs_are_the_packages(bare, package_model):
    def pairs(model):
        return sorted(
            sorted((model.geom(a).name, model.geom(b).name))
            for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)
        )

    once = sorted(map(list, {tuple(pair) for pair in pairs(package_model)}))
    assert len(once) == 18
    assert pairs(bare.model) == once


@pytest.mark.parametrize("self_collision", [False, True])
@pytest.mark.parametrize("shape", ["block", "prism", "sphere"])
def test_the_object_lands_on_the_hand(shape, self_collision):
    hand = build(ObjectConfig(shape=shape), self_collision=self_collision)
    data = simulate(hand.model, hand.ctrl_range.mean(axis=1), steps=100)
    assert 0.15 < data.body("object").xpos[2] < 0.2
    object_geoms = np.flatnonzero(hand.model.geom_bodyid == hand.model.nbody - 1)
    touching = np.isin(data.contact.geom, object_geoms).any(axis=1)
    assert touching.any()
    assert set(data.contact.dim[touching]) == {4}


def test_contacts_take_the_larger_friction():
    hand = build(ObjectConfig(friction=(0.5, 0.001, 0.02)))
    data = simulate(hand.model, hand.ctrl_range.mean(axis=1), steps=100)
    model = hand.model
    seen = set()
    for contact in data.contact:
        names = [model.geom(g).name for g in contact.geom]
        if "object0" in names:
            tip = any(name.endswith("distal") for name in names)
            expected = (0.8, 0.025, 0.02) if tip else (0.5, 0.005, 0.02)
            np.testing.assert_allclose(contact.friction[[0, 2, 3]], expected)
            seen.add(tip)
    assert seen


def test_solver_settings_reach_the_model():
    physics = PhysicsConfig(timestep=0.004, iterations=7, ls_iterations=9)
    option = build(physics=physics).model.opt
    assert (option.timestep, option.iterations, option.ls_iterations) == (0.004, 7, 9)
    np.testing.assert_allclose(option.gravity, [0, 0, -9.81])


# --- objects ---


def inertia_tensor(body) -> np.ndarray:
    axes = Rotation.from_quat(body.iquat, scalar_first=True).as_matrix()
    return axes @ np.diag(body.inertia) @ axes.T


def in_octagon(points: np.ndarray, size: float) -> np.ndarray:
    """Whether [n, 3] points lie in the prism ``size`` across flats, ``size`` long."""
    turns = np.arange(8) * np.pi / 4
    normals = np.stack([np.cos(turns), np.sin(turns), np.zeros(8)])
    normals = np.hstack([normals, [[0, 0], [0, 0], [1, -1]]])
    return (points @ normals <= size / 2).all(axis=1)


def in_geoms(points: np.ndarray, model, body_id: int) -> np.ndarray:
    """Whether [n, 3] points of a body's frame lie in any of its boxes."""
    inside = np.zeros(len(points), bool)
    for i in np.flatnonzero(model.geom_bodyid == body_id):
        assert model.geom_type[i] == mujoco.mjtGeom.mjGEOM_BOX
        turn = Rotation.from_quat(model.geom_quat[i], scalar_first=True)
        local = turn.inv().apply(points - model.geom_pos[i])
        inside |= (np.abs(local) <= model.geom_size[i]).all(axis=1)
    return inside


def in_shape(shape: str, points: np.ndarray, size: float) -> np.ndarray:
    if shape == "block":
        return (np.abs(points) <= size / 2).all(axis=1)
    if shape == "sphere":
        return np.linalg.norm(points, axis=1) <= size / 2
    return in_octagon(points, size)


@pytest.mark.parametrize(("size", "mass"), [(0.057, 0.078), (0.08, 0.2)])
@pytest.mark.parametrize("shape", ["block", "prism", "sphere"])
def test_mass_and_inertia_are_those_of_a_solid(shape, size, mass):
    model = build(ObjectConfig(shape=shape, size=size, mass=mass)).model
    axis = (np.arange(120) + 0.5) / 120 * 1.2 - 0.6
    points = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3) * size
    points = points[in_shape(shape, points, size)]
    second = points.T @ points / len(points)
    solid = mass * (np.trace(second) * np.eye(3) - second)

    body = model.body("object")
    assert body.mass[0] == mass
    np.testing.assert_array_equal(body.ipos, 0)
    np.testing.assert_allclose(
        inertia_tensor(body), solid, rtol=0.005, atol=1e-4 * solid.max()
    )


def test_the_blocks_inertia_is_robogyms():
    # 421 kg/m^3 and an edge of 57 mm, as MuJoCo derives them from the density.
    body = build(ObjectConfig(mass=0.07796625)).model.body("object")
    np.testing.assert_allclose(body.inertia, 4.221873e-05, rtol=1e-6)


@pytest.mark.parametrize("shape", ["block", "prism"])
def test_boxes_fill_exactly_the_shape(shape):
    size = 0.06
    model = build(ObjectConfig(shape=shape, size=size)).model
    rng = np.random.default_rng(4)
    points = rng.uniform(-0.6 * size, 0.6 * size, (100_000, 3))
    expected = in_shape(shape, points, size)
    # A corner must be hit as well: where the octagon differs from a rounder shape.
    assert 0.3 < expected.mean() < 0.7
    inside = in_geoms(points, model, model.body("object").id)
    np.testing.assert_array_equal(inside, expected)


def test_the_sphere_has_the_size_for_its_diameter():
    model = build(ObjectConfig(shape="sphere", size=0.06)).model
    geoms = np.flatnonzero(model.geom_bodyid == model.body("object").id)
    assert len(geoms) == 1
    assert model.geom_type[geoms[0]] == mujoco.mjtGeom.mjGEOM_SPHERE
    assert model.geom_size[geoms[0], 0] == 0.03


def test_the_object_starts_where_it_is_asked_to():
    hand = build(ObjectConfig(start_position=(0.9, 0.8, 0.3)))
    np.testing.assert_allclose(hand.model.qpos0[24:], [0.9, 0.8, 0.3, 1, 0, 0, 0])
    assert (hand.model.nq, hand.model.nv) == (31, 30)
    assert hand.model.body("object").id == hand.model.nbody - 1


# --- visuals ---


@pytest.mark.parametrize("shape", ["block", "prism"])
def test_visuals_do_not_change_the_physics(shape):
    obj = ObjectConfig(shape=shape)
    plain, staged = build(obj), build(obj, visuals=True)
    assert plain.model.nmesh == 0
    assert staged.model.nmesh > 10
    rng = np.random.default_rng(5)
    first, second = mujoco.MjData(plain.model), mujoco.MjData(staged.model)
    for _ in range(20):
        ctrl = rng.uniform(*plain.ctrl_range.T)
        for hand, data in ((plain, first), (staged, second)):
            data.ctrl = ctrl
            mujoco.mj_step(hand.model, data, 10)
    np.testing.assert_array_equal(first.qpos, second.qpos)


@pytest.mark.parametrize("body", ["thbase", "thhub", "palm", "ffdistal"])
def test_visuals_touch_nothing(body):
    obj = ObjectConfig(shape="sphere", size=0.03)
    contacts = []
    for visuals in (False, True):
        hand = build(obj, visuals=visuals)
        data = mujoco.MjData(hand.model)
        mujoco.mj_kinematics(hand.model, data)
        data.qpos[24:27] = data.body(f"robot0:{body}").xpos
        mujoco.mj_forward(hand.model, data)
        contacts.append(data.contact.dist)
    np.testing.assert_array_equal(*contacts)


def test_the_floor_is_never_touched():
    obj = ObjectConfig(start_position=(0.7, 0.4, 0.1))
    hand = build(obj, visuals=True)
    data = simulate(hand.model, np.zeros(20), steps=50)
    assert data.body("object").xpos[2] < -0.3


# --- errors ---


def test_unknown_shape():
    with pytest.raises(ValueError, match="shape is 'pen'; it must be one of"):
        ObjectConfig(shape="pen")


def test_missing_calibration_file(tmp_path):
    file = tmp_path / "nowhere.json"
    with pytest.raises(ValueError, match=r"nowhere\.json: No such file"):
        build(calibration=str(file))


def test_calibration_file_that_is_not_json(tmp_path):
    file = tmp_path / "broken.json"
    file.write_text("{'joints': ")
    with pytest.raises(ValueError, match=r"broken\.json is not JSON"):
        build(calibration=str(file))


@pytest.mark.parametrize(
    ("table", "entry"),
    [
        ("joints", "FFJ0"),
        ("actuators", "A_THJ0"),
        ("couplings", "LF"),
        ("friction", "fingertip"),
        ("fingertip_markers", "TH"),
    ],
)
def test_calibration_file_that_lacks_an_entry(tmp_path, table, entry):
    calibration = json.loads(CALIBRATED.read_text())
    del calibration[table][entry]
    file = tmp_path / "short.json"
    file.write_text(json.dumps(calibration))
    with pytest.raises(ValueError, match=rf"short\.json lacks {table}\.{entry}"):
        build(calibration=str(file))


@pytest.mark.parametrize(
    ("table", "entry", "value"),
    [
        ("joints", "FFJ0", "range"),
        ("actuators", "A_THJ0", "kp"),
        ("couplings", "LF", "rest_length"),
    ],
)
def test_calibration_file_that_lacks_a_value(tmp_path, table, entry, value):
    calibration = json.loads(CALIBRATED.read_text())
    del calibration[table][entry][value]
    file = tmp_path / "short.json"
    file.write_text(json.dumps(calibration))
    with pytest.raises(ValueError, match=rf"short\.json .*{entry}.*{value}"):
        build(calibration=str(file))


def test_calibration_file_without_a_table(tmp_path):
    file = tmp_path / "empty.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"empty\.json lacks joints"):
        build(calibration=str(file))


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install gymnasium-robotics"):
        build()


def test_building_does_not_import_gymnasium():
    code = (
        "import sys\n"
        "from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig\n"
        "from mjx_dex.hand import build_hand\n"
        "build_hand(HandConfig(), ObjectConfig(), PhysicsConfig(), visuals=True)\n"
        "assert not {'gymnasium', 'gymnasium_robotics'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
