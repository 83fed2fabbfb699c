"""Contacts as explicit pairs, against those that MuJoCo finds by itself."""

import copy
import dataclasses

import mujoco
import numpy as np
import pytest

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import build_hand
from mjx_dex.physics.contact_pairs import contact_pairs

CONTACT_FIELDS = (
    "geom",
    "dim",
    "dist",
    "includemargin",
    "friction",
    "solref",
    "solimp",
    "solreffriction",
    "pos",
    "frame",
)


def build(shape: str):
    return build_hand(HandConfig(), ObjectConfig(shape=shape), PhysicsConfig())


@pytest.fixture(scope="module", params=["block", "sphere"])
def scene(request):
    """A hand and an object that is one geom."""
    return build(request.param)


def edited(hand, edit):
    """The scene with every geom edited."""
    spec = hand.spec.copy()
    for geom in spec.geoms:
        edit(geom)
    return dataclasses.replace(hand, spec=spec, model=spec.compile())


def dropped(hand) -> np.ndarray:
    """[nq] the object on the cupped hand's palm."""
    data = mujoco.MjData(hand.model)
    data.ctrl[:] = hand.ctrl_range.mean(1)
    mujoco.mj_step(hand.model, data, nstep=60)
    return data.qpos.copy()


def assert_contacts_equal(model, paired, qpos) -> int:
    """Returns how many there are."""
    expected, found = mujoco.MjData(model), mujoco.MjData(paired)
    expected.qpos[:] = found.qpos[:] = qpos
    mujoco.mj_forward(model, expected)
    mujoco.mj_forward(paired, found)
    for field in CONTACT_FIELDS:
        np.testing.assert_array_equal(
            getattr(found.contact, field), getattr(expected.contact, field), field
        )
    return expected.ncon


@pytest.fixture
def asked():
    """Geoms that passed MuJoCo's own filters, sorted; none of them collides."""
    asked = set()

    def refuse(model, data, first, second):
        asked.add(tuple(sorted((first, second))))
        return 1

    mujoco.set_mjcb_contactfilter(refuse)
    yield asked
    mujoco.set_mjcb_contactfilter(None)


def test_pairs_are_those_that_mujoco_finds_where_everything_is_near(scene, asked):
    """With margins of ten metres all geoms are, and only filters are left."""
    model = copy.copy(scene.model)
    for margin in (model.geom_margin, model.body_margin):
        margin[:] = 10.0
    mujoco.mj_forward(model, mujoco.MjData(model))
    pairs = contact_pairs(scene)
    listed = [tuple(sorted(geoms)) for geoms in pairs.geoms.tolist()]
    assert set(listed) == asked
    assert len(listed) == len(asked) == 20


def test_an_object_of_several_geoms_is_left_to_mujoco():
    hand = build("prism")
    pairs = contact_pairs(hand)
    assert pairs.model is not hand.model
    assert pairs.model.npair == hand.model.npair
    assert pairs.friction(hand.model.geom_friction).shape == (0, 5)
    assert assert_contacts_equal(hand.model, pairs.model, dropped(hand)) > 0


def test_the_hands_own_pairs_stay_as_they_are(scene):
    pairs = contact_pairs(scene)
    own = np.delete(np.arange(pairs.model.npair), pairs.ids)
    for field in ("geom1", "geom2", "dim", "friction", "solref", "solimp", "margin"):
        values = getattr(pairs.model, f"pair_{field}")[own]
        np.testing.assert_array_equal(values, getattr(scene.model, f"pair_{field}"))


def test_nothing_else_of_the_scene_changes(scene):
    paired = contact_pairs(scene).model
    allowed = ("pair_", "name", "bvh_", "body_bvh", "_")
    masks = {"geom_contype", "geom_conaffinity", "body_contype", "body_conaffinity"}
    for name in dir(scene.model):
        ours, theirs = getattr(paired, name), getattr(scene.model, name)
        if isinstance(theirs, np.ndarray) and not name.startswith(allowed):
            assert np.array_equal(ours, theirs) != (name in masks), name


def test_contacts_are_equal_in_every_number(scene):
    paired, qpos = contact_pairs(scene).model, dropped(scene)
    assert assert_contacts_equal(scene.model, paired, qpos) > 0


def test_margins_and_gaps_of_both_geoms_add_up(scene):
    def edit(geom):
        geom.margin, geom.gap = 0.001, 0.0004

    hand = edited(scene, edit)
    paired, qpos = contact_pairs(hand).model, dropped(scene)
    few = assert_contacts_equal(scene.model, contact_pairs(scene).model, qpos)
    assert assert_contacts_equal(hand.model, paired, qpos) >= few > 0


def test_friction_follows_the_geoms(scene):
    pairs, qpos = contact_pairs(scene), dropped(scene)
    model = copy.copy(scene.model)
    factors = np.random.default_rng(0).uniform(0.1, 4.0, model.geom_friction.shape)
    model.geom_friction[:] *= factors
    friction = pairs.friction(model.geom_friction)
    assert friction.shape == (len(pairs.ids), 5)
    several = pairs.friction(np.stack([scene.model.geom_friction, model.geom_friction]))
    np.testing.assert_array_equal(several[1], friction)
    pairs.model.pair_friction[pairs.ids] = friction
    assert assert_contacts_equal(model, pairs.model, qpos) > 0


@pytest.mark.parametrize("field", ["solref", "solimp", "priority"])
def test_geoms_that_would_have_to_be_mixed_are_refused(scene, field):
    def edit(geom):
        if geom.name == "robot0:C_palm0":
            changed = {"solref": (0.01, 1), "solimp": (0.8, 0.9, 0.002, 0.5, 2)}
            setattr(geom, field, changed.get(field, 1))

    with pytest.raises(ValueError, match=f"geom_{field} of robot0:C_palm0 and object0"):
        contact_pairs(edited(scene, edit))
