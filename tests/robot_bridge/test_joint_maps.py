"""Joint names, signs and couplings, proven by where fingertips are."""

import mujoco
import numpy as np
import pytest

from robot_bridge import rotations
from robot_bridge.description import DescriptionError, read_hand, read_links
from robot_bridge.kinematics import FINGERS, Chain, fit_frame
from robot_bridge.simulation.shadow_urdf import shadow_urdf

POSES = 300


@pytest.fixture(scope="module")
def chains(bundle):
    """Fingertips from the palm: by the policy's model, and by Shadow's description."""
    hand = bundle.manifest["hand"]
    above = ("hand mount", "forearm", "wrist", "palm")
    links = [
        {**link, "parent": None if link["parent"] == "palm" else link["parent"]}
        for link in hand["chain"]
        if link["name"] not in above
    ]
    ours = Chain(links, hand["tips"], bundle.joints)
    shadow = []
    for finger, tip in zip(FINGERS, hand["tips"], strict=True):
        x, y, z = tip["position"]
        # Shadow's last thumb link is turned by a quarter about its length.
        place = [-y, x, z] if finger == "TH" else [x, y, z]
        shadow.append({"link": f"rh_{finger.lower()}distal", "position": place})
    theirs = Chain(read_links(shadow_urdf(), "rh_palm"), shadow, bundle.joints)
    return ours, theirs


@pytest.fixture(scope="module")
def poses(bundle):
    limits = read_hand(shadow_urdf()).limits
    low, high = np.array([limits[name] for name in bundle.joints]).T
    return np.random.default_rng(0).uniform(low, high, (POSES, 24))


def test_the_same_angles_put_fingertips_at_the_same_places(chains, poses):
    """The two models come from different sources: lengths differ by up to 2 mm."""
    ours, theirs = chains
    off = np.linalg.norm(ours.fingertips(poses) - theirs.fingertips(poses), axis=-1)
    assert off.max() < 0.002


def test_every_joint_and_its_sign_can_be_seen_there(chains, poses, bundle):
    """Of every joint but the wrist's, which is above the palm."""
    ours, theirs = chains
    right = theirs.fingertips(poses)
    for joint, name in enumerate(bundle.joints[2:], 2):
        wrong = poses.copy()
        wrong[:, joint] *= -1
        off = np.linalg.norm(ours.fingertips(wrong) - right, axis=-1)
        assert off.max() > 0.01, name


def test_exchanged_neighbours_can_be_seen_there(chains, poses, bundle):
    """As with Gymnasium's names, whose FFJ0 is Shadow's FFJ1."""
    ours, theirs = chains
    right = theirs.fingertips(poses)
    for joint in range(2, 23):
        wrong = poses.copy()
        wrong[:, [joint, joint + 1]] = poses[:, [joint + 1, joint]]
        off = np.linalg.norm(ours.fingertips(wrong) - right, axis=-1)
        assert off.max() > 0.01, bundle.joints[joint : joint + 2]


def test_fingertips_are_where_mujoco_has_them(bundle, hand):
    chain_of = bundle.manifest["hand"]
    chain = Chain(chain_of["chain"], chain_of["tips"], bundle.joints)
    signs = np.array([joint["sign"] for joint in bundle.manifest["joints"]])
    data = mujoco.MjData(hand.model)
    generator = np.random.default_rng(1)
    for _ in range(20):
        data.qpos[:24] = generator.uniform(*hand.model.jnt_range[:24].T)
        mujoco.mj_kinematics(hand.model, data)
        tips = data.site_xpos[hand.fingertip_sites]
        expected = (tips - hand.frame_position) @ hand.frame_rotation.T
        found = chain.fingertips(signs * data.qpos[:24])
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_frame_is_fitted_and_mirror_images_are_not():
    generator = np.random.default_rng(2)
    known = generator.standard_normal((6, 3))
    turn = rotations.to_matrix(rotations.random(generator))
    shift = np.array([1.0, -2.0, 0.5])
    measured = known @ turn.T + shift
    rotation, position, error = fit_frame(measured, known)
    np.testing.assert_allclose(rotation, turn, atol=1e-12)
    np.testing.assert_allclose(position, shift, atol=1e-12)
    assert error < 1e-12
    rotation, _, error = fit_frame(measured * [1, 1, -1], known)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert error > 0.3


def test_a_description_says_side_and_limits():
    info = read_hand(shadow_urdf(), "1290")
    assert (info.side, info.serial, len(info.limits)) == ("right", "1290", 24)
    assert info.limits["rh_THJ1"] == pytest.approx((-0.262, 1.571))
    assert read_hand(shadow_urdf("lh_")).side == "left"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<robot/>", "no joints of a Shadow hand"),
        ("robot", "not XML"),
        (
            "<robot>"
            + "".join(
                f'<joint name="{side}_FFJ3"><limit lower="0" upper="1"/></joint>'
                for side in ("rh", "lh")
            )
            + "</robot>",
            "two hands",
        ),
    ],
)
def test_other_descriptions_are_refused(text, message):
    with pytest.raises(DescriptionError, match=message):
        read_hand(text)


def test_a_missing_root_link_is_named():
    with pytest.raises(DescriptionError, match="no link lh_palm"):
        read_links(shadow_urdf(), "lh_palm")


@pytest.mark.parametrize("seed", range(5))
def test_quaternions_and_matrices_are_the_same_turns(seed):
    generator = np.random.default_rng(seed)
    p, q = rotations.random(generator), rotations.random(generator)
    matrix = rotations.to_matrix(p) @ rotations.to_matrix(q)
    found = rotations.from_matrix(matrix)
    expected = rotations.positive(rotations.multiply(p, q))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    theirs = np.zeros(9)
    mujoco.mju_quat2Mat(theirs, p)
    np.testing.assert_allclose(rotations.to_matrix(p).ravel(), theirs, atol=1e-12)


def test_a_half_turn_has_a_quaternion_too():
    half = rotations.from_axis_angle(np.array([0.0, 1.0, 0.0]), np.pi)
    found = rotations.from_matrix(rotations.to_matrix(half))
    np.testing.assert_allclose(np.abs(found), [0, 0, 1, 0], atol=1e-12)
