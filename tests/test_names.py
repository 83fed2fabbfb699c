"""Names of joints and actuators, against the package's model and Shadow's tables."""

import importlib.util
import itertools
from pathlib import Path

import mujoco
import numpy as np
import pytest

from mjx_dex.hand import names

JOINTS = {joint.ours: joint for joint in names.JOINTS}
ACTUATORS = {actuator.ours: actuator for actuator in names.ACTUATORS}

MENAGERIE_ACTUATORS = [
    *("rh_A_WRJ2", "rh_A_WRJ1"),
    *("rh_A_THJ5", "rh_A_THJ4", "rh_A_THJ3", "rh_A_THJ2", "rh_A_THJ1"),
    *("rh_A_FFJ4", "rh_A_FFJ3", "rh_A_FFJ0"),
    *("rh_A_MFJ4", "rh_A_MFJ3", "rh_A_MFJ0"),
    *("rh_A_RFJ4", "rh_A_RFJ3", "rh_A_RFJ0"),
    *("rh_A_LFJ5", "rh_A_LFJ4", "rh_A_LFJ3", "rh_A_LFJ0"),
]
"""Actuators of Menagerie's ``right_hand.xml``, in its order."""


@pytest.fixture(scope="module")
def gymnasium_model():
    package = importlib.util.find_spec("gymnasium_robotics")
    folder = Path(package.submodule_search_locations[0]) / "envs/assets/hand"
    return mujoco.MjModel.from_xml_path(str(folder / "reach.xml"))


def test_there_are_24_joints_and_20_actuators():
    assert len(names.JOINTS) == 24
    assert len(names.ACTUATORS) == 20


@pytest.mark.parametrize("scheme", ["ours", "gymnasium", "shadow", "menagerie"])
def test_names_are_unique(scheme):
    for table in (names.JOINTS, names.ACTUATORS):
        assert len({getattr(row, scheme) for row in table}) == len(table)


def test_joints_are_the_packages_in_its_order(gymnasium_model):
    model = gymnasium_model
    theirs = [model.joint(i).name for i in range(model.njnt)]
    assert [joint.gymnasium for joint in names.JOINTS] == theirs


def test_actuators_are_the_packages_in_its_order(gymnasium_model):
    model = gymnasium_model
    theirs = [model.actuator(i).name for i in range(model.nu)]
    assert [actuator.gymnasium for actuator in names.ACTUATORS] == theirs


def test_actuators_name_the_joint_that_the_package_drives(gymnasium_model):
    model = gymnasium_model
    for i, actuator in enumerate(names.ACTUATORS):
        driven = model.joint(model.actuator_trnid[i, 0]).name
        assert driven == f"robot0:{actuator.joints[0]}"


def test_every_joint_belongs_to_one_actuator():
    driven = [joint for actuator in names.ACTUATORS for joint in actuator.joints]
    assert sorted(driven) == sorted(JOINTS)


def test_joints_of_one_actuator_lie_in_one_finger(gymnasium_model):
    model = gymnasium_model
    for actuator in names.ACTUATORS:
        bodies = [model.joint(f"robot0:{j}").bodyid[0] for j in actuator.joints]
        for upper, lower in itertools.pairwise(bodies):
            assert model.body_parentid[lower] == upper


@pytest.mark.parametrize("finger", ["FF", "MF", "RF", "LF"])
def test_middle_and_distal_joint_share_an_actuator(finger):
    assert ACTUATORS[f"A_{finger}J1"].joints == (f"{finger}J1", f"{finger}J0")


def test_only_four_actuators_drive_pairs():
    pairs = [a.ours for a in names.ACTUATORS if len(a.joints) > 1]
    assert pairs == ["A_FFJ1", "A_MFJ1", "A_RFJ1", "A_LFJ1"]
    assert names.COUPLED_FINGERS == ("FF", "MF", "RF", "LF")


@pytest.mark.parametrize("finger", ["FF", "MF", "RF", "LF"])
def test_shadows_j0_is_the_pair_and_our_j0_is_the_distal_joint(finger):
    assert f"rh_{finger}J0" not in {joint.shadow for joint in names.JOINTS}
    assert ACTUATORS[f"A_{finger}J1"].shadow == f"rh_{finger}J0"
    assert JOINTS[f"{finger}J0"].shadow == f"rh_{finger}J1"
    assert JOINTS[f"{finger}J1"].shadow == f"rh_{finger}J2"


def test_our_j0_is_the_last_joint_of_its_finger(gymnasium_model):
    for finger in ("ff", "mf", "rf", "lf", "th"):
        body = gymnasium_model.joint(f"robot0:{finger.upper()}J0").bodyid[0]
        assert gymnasium_model.body(body).name == f"robot0:{finger}distal"


@pytest.mark.parametrize(
    ("ours", "shadow"),
    [
        ("WRJ1", "rh_WRJ2"),
        ("WRJ0", "rh_WRJ1"),
        ("FFJ3", "rh_FFJ4"),
        ("LFJ4", "rh_LFJ5"),
        ("LFJ3", "rh_LFJ4"),
        ("THJ4", "rh_THJ5"),
        ("THJ0", "rh_THJ1"),
    ],
)
def test_shadow_counts_joints_from_one(ours, shadow):
    assert JOINTS[ours].shadow == shadow
    assert JOINTS[ours].menagerie == shadow
    assert JOINTS[ours].gymnasium == f"robot0:{ours}"


@pytest.mark.parametrize(
    ("ours", "shadow", "menagerie"),
    [
        ("A_WRJ0", "rh_WRJ1", "rh_A_WRJ1"),
        ("A_FFJ1", "rh_FFJ0", "rh_A_FFJ0"),
        ("A_FFJ2", "rh_FFJ3", "rh_A_FFJ3"),
        ("A_LFJ4", "rh_LFJ5", "rh_A_LFJ5"),
        ("A_THJ0", "rh_THJ1", "rh_A_THJ1"),
    ],
)
def test_actuators_in_other_schemes(ours, shadow, menagerie):
    assert ACTUATORS[ours].shadow == shadow
    assert ACTUATORS[ours].menagerie == menagerie
    assert ACTUATORS[ours].gymnasium == f"robot0:{ours}"


def test_menagerie_turns_exactly_four_joints_the_other_way():
    assert {joint.menagerie_sign for joint in names.JOINTS} == {-1, 1}
    flipped = {joint.ours for joint in names.JOINTS if joint.menagerie_sign == -1}
    assert flipped == {"FFJ3", "MFJ3", "THJ1", "THJ0"}


def test_menagerie_index_sorts_actuators_as_menagerie_does():
    order = np.argsort([actuator.menagerie_index for actuator in names.ACTUATORS])
    assert [names.ACTUATORS[i].menagerie for i in order] == MENAGERIE_ACTUATORS
    indices = [actuator.menagerie_index for actuator in names.ACTUATORS]
    assert sorted(indices) == list(range(20))


def test_fingers_are_in_order_first_to_little_then_thumb():
    assert names.FINGERS == ("FF", "MF", "RF", "LF", "TH")
