"""The friction of contacts between hand and object, by each rule."""

import copy

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco import mjx

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import build_hand
from mjx_dex.physics import mjx_engine, native, nominal_parameters, warp_engine
from mjx_dex.randomization import physics

FACTORS = (1.25, 0.75)
"""Of the hand's friction and of the object's."""
RULES = {
    "maximum": np.maximum,
    "geometric_mean": lambda hand, obj: np.sqrt(hand * obj),
    "product": lambda hand, obj: (hand * obj) ** [1, 0.5, 0.5],
}
LINK, TIP, OBJECT = (
    np.array(values)
    for values in ((0.2, 0.005, 0.001), (0.8, 0.025, 0.005), (1.0, 0.005, 0.0001))
)
"""Friction of the calibrated hand's links and fingertips, and of the object."""


def build(shape: str, rule: str):
    return build_hand(
        HandConfig(), ObjectConfig(shape=shape), PhysicsConfig(friction_rule=rule)
    )


def parameters_of(hand, factors):
    """Of an episode whose draw has these factors."""
    draw = physics.nominal_draw(hand).replace(surface_friction=jnp.array(factors))
    return physics.apply(draw, physics.nominal(hand))


def surface(model, geom: int) -> np.ndarray:
    """[3] of a geom of the hand, from the calibration file."""
    return TIP if model.geom(geom).name.endswith("distal") else LINK


def contacts(hand, factors) -> list[tuple[np.ndarray, np.ndarray]]:
    """(hand's surface [3], friction [5]) of the object's contacts on the native engine.

    The hand closes on the object without gravity: fingertips and palm touch it.
    """
    pairs = native.prepare(hand)
    worlds = native._Worlds(pairs, nsim=2, threads=1)
    nominal, ours = (
        native._primary(x)
        for x in (nominal_parameters(hand.model), parameters_of(hand, factors))
    )
    both = {n: np.stack([nominal[n], ours[n]]).astype(np.float32) for n in ours}
    worlds._set_parameters(both)
    model = copy.copy(pairs.model)
    model.geom_friction[:] = worlds.batch.expand("geom_friction")[1]
    if pairs.ids.size:
        model.pair_friction[:] = worlds.batch.expand("pair_friction")[1]
    data, found = mujoco.MjData(model), []
    is_object = model.geom_bodyid == model.body("object").id
    data.ctrl[:] = hand.ctrl_range.mean(1)
    for k in range(300):
        if k == 150:
            data.ctrl[:] = hand.ctrl_range @ [0.2, 0.8]
        mujoco.mj_step(model, data)
        for contact in data.contact:
            one, other = contact.geom
            if is_object[one] != is_object[other]:
                geom = other if is_object[one] else one
                found.append((surface(model, geom), contact.friction.copy()))
            else:
                # Fingers touch each other without friction, whatever the rule.
                assert contact.dim == 1
    return found


@pytest.mark.parametrize("shape", ["block", "prism"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factors", [(1.0, 1.0), FACTORS])
def test_contacts_have_the_friction_of_the_rule(rule, shape, factors):
    found = contacts(build(shape, rule), factors)
    touched = {tuple(of_hand) for of_hand, _ in found}
    assert touched == {tuple(LINK), tuple(TIP)}
    for of_hand, friction in found:
        sliding, torsional, rolling = RULES[rule](
            of_hand * factors[0], OBJECT * factors[1]
        )
        expected = [sliding, sliding, torsional, rolling, rolling]
        # MuJoCo's least friction is 1e-5.
        np.testing.assert_allclose(friction, np.maximum(expected, 1e-5), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_mjx_and_warp_are_given_the_same_friction(rule):
    """And both take the larger of two surfaces': what is given is what acts."""
    hand = build("block", rule)
    given = parameters_of(hand, FACTORS).replace(
        derived=nominal_parameters(hand.model).derived
    )
    model = mjx_engine._with_parameters(mjx.put_model(hand.model, impl="jax"), given)
    friction = np.asarray(model.geom_friction)
    is_object = hand.model.geom_bodyid == hand.model.body("object").id
    for geom in np.flatnonzero(~is_object):
        ours = surface(hand.model, geom) * FACTORS[0]
        expected = RULES[rule](ours, OBJECT * FACTORS[1])
        larger = np.maximum(friction[geom], friction[is_object][0])
        np.testing.assert_allclose(larger, expected, rtol=1e-6)
    assert "geom_friction" in warp_engine.INPUTS


def test_by_default_surfaces_keep_the_friction_that_they_are_given():
    hand = build_hand(HandConfig(), ObjectConfig(), PhysicsConfig())
    model = hand.model
    of_object = model.geom("object0").id
    np.testing.assert_array_equal(model.geom_friction[of_object], OBJECT)
    for geom in range(model.ngeom):
        if geom != of_object:
            np.testing.assert_array_equal(
                model.geom_friction[geom], surface(model, geom)
            )
    drawn = parameters_of(hand, FACTORS).geom_friction
    factors = np.full((model.ngeom, 1), FACTORS[0])
    factors[of_object] = FACTORS[1]
    expected = model.geom_friction.astype(np.float32) * factors.astype(np.float32)
    np.testing.assert_array_equal(drawn, expected)
