import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import build_hand
from mjx_dex.randomization import physics
from mjx_dex.randomization.derived import Derivation

DRAWS = 8
TOLERANCE = 1e-4
FIELDS = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "tendon_invweight0",
    "geom_rbound",
    "geom_aabb",
)


@pytest.fixture(scope="module", params=["block", "prism", "sphere"])
def hand(request):
    return build_hand(HandConfig(), ObjectConfig(shape=request.param), PhysicsConfig())


@pytest.fixture(scope="module")
def derive(hand):
    """Constants of the world that factors of sizes and masses make."""
    nominal, draw = physics.nominal(hand), physics.nominal_draw(hand)
    derivation = Derivation(hand.model)

    @jax.jit
    def derive(size, mass, links):
        world = draw.replace(
            object_size=jnp.float32(size),
            object_mass=jnp.float32(mass),
            link_mass=jnp.asarray(links, jnp.float32),
        )
        return derivation.derive(physics.apply(world, nominal))

    return derive


@pytest.mark.parametrize("seed", range(DRAWS))
def test_derived_constants_are_those_that_mujoco_computes(seed, hand, derive):
    random = np.random.default_rng(seed)
    # Wider than the menu's ranges: what is linear must stay so beyond them.
    size, mass = random.uniform(0.8, 1.25), random.uniform(0.3, 2.0)
    links = random.uniform(0.3, 2.0, hand.model.nbody - 2)
    derived = derive(size, mass, links)
    model = compiled_by_mujoco(hand.model, size, mass, links)
    for name in FIELDS:
        expected = getattr(model, name)
        error = relative_error(getattr(derived, name), expected)
        print(f"{name}: relative error {error:.1e}")
        assert error < TOLERANCE, name


def test_nominal_draw_derives_the_nominal_constants(hand, derive):
    derived = derive(1.0, 1.0, np.ones(hand.model.nbody - 2))
    for name in FIELDS:
        expected = getattr(hand.model, name)
        assert relative_error(getattr(derived, name), expected) < TOLERANCE, name


def test_every_constant_depends_on_the_draw(hand):
    # Otherwise nominal constants would pass for derived ones.
    links = np.full(hand.model.nbody - 2, 2.0)
    model = compiled_by_mujoco(hand.model, 1.2, 2.0, links)
    for name in FIELDS:
        change = relative_error(getattr(model, name), getattr(hand.model, name))
        assert change > 100 * TOLERANCE, name


def compiled_by_mujoco(nominal, size, mass, links):
    """The nominal model edited by hand, its constants computed by MuJoCo."""
    model = copy.copy(nominal)
    body = model.body("object").id
    model.body_mass[1:body] *= links
    model.body_inertia[1:body] *= links[:, None]
    model.body_mass[body] *= mass
    model.body_inertia[body] *= mass * size**2
    model.geom_size[model.geom_bodyid == body] *= size
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def relative_error(actual, expected):
    # Some entries are zero: bodies that cannot move, boxes' centres.
    return np.max(np.abs(np.asarray(actual) - expected) / (np.abs(expected) + 1e-6))
