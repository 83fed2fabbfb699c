"""Physics effects, proven on each engine by what the simulated world does.

What is expected comes from arithmetic by hand, from numbers of the calibration file, or
from MuJoCo's own loop with a model that is edited here.
"""

import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_dex.hand import names
from mjx_dex.physics import make_engine
from mjx_dex.randomization import physics
from mjx_dex.randomization.derived import Derivation
from mjx_dex.types import PhysicsState

ENGINES = ("native", "mjx", "warp")
WORLDS = 4
PERIOD = 0.08
"""Of a control step [s]."""
GRAVITY = np.array([0.0, 0.0, -9.81])
MASS, HALF_SIZE = 0.078, 0.0285
"""Of the nominal block [kg], [m]."""

JOINT = {joint.ours: i for i, joint in enumerate(names.JOINTS)}
ACTUATOR = {actuator.ours: i for i, actuator in enumerate(names.ACTUATORS)}
POSITION = slice(24, 27)
X, Z = 24, 26
SPIN = slice(27, 30)

AWAY = (2.0, 0.9, 0.5)
"""A place for the block from which it falls without ever touching the hand."""
FLAT = np.zeros(20)
"""Targets of a flat hand, its palm up."""
VARIED = np.random.default_rng(0).uniform(-0.3, 1.0, (3, 20))
"""Targets of three control steps."""


@pytest.fixture(scope="module", params=ENGINES)
def simulate(request, hand, config):
    """Run WORLDS worlds on one engine; see ``run``.

    Compiled once: every test steps the same number of worlds.
    """
    step = jax.jit(jax.vmap(make_engine(request.param, hand, config.physics).step))
    make_worlds = jax.jit(jax.vmap(world_maker(hand)))
    timesteps = jnp.full((WORLDS, 10), PERIOD / 10, jnp.float32)

    def run(draws, start, steps, ctrl=FLAT, force=(0.0, 0.0, 0.0)):
        """[steps, WORLDS, ...] qpos and qvel after each control step, from rest."""
        worlds = make_worlds(draws)
        zeros = jnp.zeros((WORLDS, hand.model.nv))
        state = PhysicsState(in_all_worlds(start, hand.model.nq), zeros, zeros)
        force = in_all_worlds(force, 3)
        states = []
        for targets in np.broadcast_to(ctrl, (steps, 20)):
            targets = in_all_worlds(targets, 20)
            state, lost = step(worlds, state, targets, force, timesteps)
            assert int(lost.sum()) == 0
            states.append(state)
        return tuple(
            np.stack([np.asarray(getattr(state, name)) for state in states])
            for name in ("qpos", "qvel")
        )

    return run


@pytest.fixture(scope="module")
def resting(hand):
    """[nq] flat hand, block at rest on the palm, according to MuJoCo."""
    qpos, _ = by_mujoco(hand.model, block_at(hand, (1.01, 0.9, 0.18)), steps=25)
    return qpos[-1]


# --- the object -------------------------------------------------------------------


def test_blocks_fall_alike_but_a_force_moves_the_lighter_more(simulate, hand):
    factor = np.array([0.5, 1.0, 1.5, 2.0])
    draws = make_draws(hand, object_mass=factor)
    _, qvel = simulate(draws, block_at(hand, AWAY), 2, force=(0.1, 0.0, 0.0))
    fall, push = GRAVITY[2], 0.1 / (factor * MASS)
    np.testing.assert_allclose(qvel[-1, :, Z], fall * 2 * PERIOD, rtol=1e-3)
    np.testing.assert_allclose(qvel[-1, :, X], push * 2 * PERIOD, rtol=1e-3)


def test_gravity_is_added_to(simulate, hand):
    added = np.array([[0, 0, 0], [0, 0, 0.8], [-0.5, 1.0, 0], [0.3, 0.2, -2.0]])
    draws = make_draws(hand, gravity=added)
    _, qvel = simulate(draws, block_at(hand, AWAY), 3)
    expected = (GRAVITY + added) * 3 * PERIOD
    np.testing.assert_allclose(qvel[-1, :, POSITION], expected, atol=1e-3)


def test_a_larger_block_rests_higher_by_half_of_the_difference(simulate, hand):
    # With bounding volumes of the nominal block, warp's palm would let the two larger
    # ones sink in, by 5 mm and more.
    half = np.array([0.025, HALF_SIZE, 0.030, 0.035])
    start = np.tile(block_at(hand, (1.015, 0.92, 0.15)), (WORLDS, 1))
    start[:, Z] += half
    qpos, _ = simulate(make_draws(hand, object_size=half / HALF_SIZE), start, 15)
    height = qpos[-1, :, Z]
    np.testing.assert_allclose(height - height[1], half - HALF_SIZE, atol=5e-4)


@pytest.mark.parametrize("name", ["object_mass", "object_size"])
def test_a_corners_impact_spins_the_block_as_its_inertia_lets_it(simulate, hand, name):
    factors = {"object_mass": [0.5, 1.0, 1.5, 2.0], "object_size": [0.8, 1, 1.1, 1.2]}
    draws = make_draws(hand, **{name: np.array(factors[name])})
    start = block_at(hand, (1.0, 0.91, 0.2))
    start[27:] = np.array([0.9, 0.3, 0.3, 0.1])
    _, qvel = simulate(draws, start, 2)
    for world, factor in enumerate(factors[name]):
        model = edited(hand.model, name, factor)
        _, expected = by_mujoco(model, start, 2)
        error = np.linalg.norm((qvel[-1, world] - expected[-1])[SPIN])
        size = np.linalg.norm(expected[-1, SPIN])
        print(f"{name} {factor}: spin {size:.2f} rad/s, error {error:.2f} rad/s")
        assert error < 0.05 * size


def test_block_slides_down_slopes_steeper_than_its_friction(simulate, hand, resting):
    # A contact takes the larger of two coefficients, nominally 0.2 of the palm and 1 of
    # the block: the block's decides in the first two worlds, the palm's in the others.
    slope, below, above = 0.7, 0.6, 0.8
    factors = [[1, below], [1, above], [below / 0.2, 0.3], [above / 0.2, 0.3]]
    angle = np.arctan(slope)
    tilted = 9.81 * np.array([0.0, np.sin(angle), -np.cos(angle)])
    draws = make_draws(hand, surface_friction=factors, gravity=tilted - GRAVITY)
    qpos, _ = simulate(draws, resting, 6)
    moved = np.linalg.norm(qpos[-1, :, POSITION] - resting[POSITION], axis=1)
    print(f"moved by {1000 * moved} mm")
    # 0.48 s at 9.81 m/s^2 (sin - 0.6 cos) would be 93 mm; what sticks settles first.
    assert (moved[[0, 2]] > 0.03).all()
    assert (moved[[1, 3]] < 0.01).all()


# --- the hand ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["link_mass", "joint_damping", "actuator_gain"])
def test_hand_moves_as_in_a_model_edited_by_hand(simulate, hand, name):
    random = np.random.default_rng(1)
    shape = getattr(physics.nominal_draw(hand), name).shape
    # Masses far out, where constants that MuJoCo derives from them tell.
    largest = 4.0 if name == "link_mass" else 2.0
    factors = random.uniform(0.4, largest, (WORLDS, *shape))
    factors[0] = 1.0
    # Half open, so that fingers do not touch; targets that ask for less than all of the
    # actuators' forces.
    start = block_at(hand, AWAY)
    start[:24] = 0.3 * hand.rest_angles
    force = hand.model.actuator_forcerange[:, 1]
    reach = 0.7 * force / hand.model.actuator_gainprm[:, 0]
    ctrl = hand.actuator_joints @ start[:24] + random.uniform(-reach, reach, (5, 20))
    draws = make_draws(hand, **{name: factors})
    qpos, _ = simulate(draws, start, 5, ctrl)
    nominal, _ = by_mujoco(hand.model, start, 5, ctrl)
    effects = []
    for world in range(WORLDS):
        model = edited(hand.model, name, factors[world])
        expected, _ = by_mujoco(model, start, 5, ctrl)
        error = np.abs(qpos[:, world, :24] - expected[:, :24]).max()
        print(f"{name} in world {world}: largest joint error {error:.1e} rad")
        assert error < 5e-5
        effects.append(np.abs(expected - nominal)[:, :24].max(0))
    # Damping and gain must tell in every joint, masses in some, by far more than that.
    effect = np.max(effects, 0)
    assert effect.max() > 2e-2
    assert name == "link_mass" or effect.min() > 1e-3


def test_wrist_carries_the_weight_of_the_links_drawn(simulate, hand):
    factors = np.ones((WORLDS, hand.model.nbody - 2))
    factors[0], factors[2] = 0.5, 1.5
    factors[3, hand.model.body("robot0:palm").id - 1] = 2.0
    draws = make_draws(hand, link_mass=factors)
    qpos, _ = simulate(draws, block_at(hand, AWAY), 12)
    gain, dry_friction = 11.2903, 0.05
    torque = gain * (0 - qpos[-1, :, JOINT["WRJ0"]])
    for world in range(WORLDS):
        model = edited(hand.model, "link_mass", factors[world])
        weight = static_torque(model, qpos[-1, world])[JOINT["WRJ0"]]
        assert abs(torque[world] - weight) < dry_friction + 0.005
    assert torque[2] > torque[1] + 0.1 > torque[0] + 0.2


def test_softer_actuators_yield_more_to_the_same_load(simulate, hand):
    # The hand's own weight, pulling the wrist sideways.
    factor = np.array([0.75, 1.0, 1.5, 2.0])
    sideways = [2.0, 0.0, 0.0]
    draws = make_draws(hand, actuator_gain=factor[:, None], gravity=sideways)
    qpos, _ = simulate(draws, block_at(hand, AWAY), 20)
    model = copy.copy(hand.model)
    model.opt.gravity = GRAVITY + sideways
    gain, dry_friction = 1.93928, 0.001
    yielded = qpos[-1, :, JOINT["WRJ1"]]
    for world in range(WORLDS):
        weight = static_torque(model, qpos[-1, world])[JOINT["WRJ1"]]
        torque = factor[world] * gain * (0 - yielded[world])
        assert abs(torque - weight) < dry_friction + 0.002
    assert (np.diff(np.abs(yielded)) < -0.01).all()


def test_joint_turns_at_torque_over_damping(simulate, hand):
    factor = np.array([0.5, 1.0, 1.5, 3.0])
    # A target far beyond reach: the actuator pulls with all its force.
    ctrl = FLAT.copy()
    ctrl[ACTUATOR["A_WRJ1"]] = -5.0
    draws = make_draws(hand, joint_damping=factor[:, None])
    _, qvel = simulate(draws, block_at(hand, AWAY), 5, ctrl)
    force, dry_friction, damping = 0.179403, 0.001, 0.38926
    expected = -(force - dry_friction) / (damping * factor)
    np.testing.assert_allclose(qvel[-1, :, JOINT["WRJ1"]], expected, rtol=0.02)


def of_fingers(*suffixes):
    return [f"{finger}{x}" for finger in names.COUPLED_FINGERS for x in suffixes]


THUMB = [f"THJ{i}" for i in range(5)]
WRIST = ["WRJ0", "WRJ1"]
# The end of their range that joints are driven to, which joints, and where they start.
# Between them the three cases visit both ends of all joints.
OPEN_HAND = (0, list(JOINT), {"THJ0": -1.5, "THJ1": -0.5, "THJ4": -0.8})
FINGERS_ASIDE = (
    1,
    [*of_fingers("J3"), "LFJ4", *THUMB],
    {"LFJ4": 0.8, "THJ3": 1.1, "THJ4": 0.8},
)
FIST = (
    1,
    [*of_fingers("J2", "J1", "J0"), *WRIST],
    dict.fromkeys(of_fingers("J2"), 1.3)
    | dict.fromkeys(of_fingers("J1"), 1.4)
    | dict.fromkeys(of_fingers("J0"), 1.0),
)


@pytest.mark.parametrize("case", [OPEN_HAND, FINGERS_ASIDE, FIST])
def test_every_joint_stops_at_its_drawn_limit(simulate, hand, case):
    end, joints, pose = case
    shift = np.random.default_rng(end).uniform(-0.12, 0.12, (WORLDS, 24, 2))
    # Fingers that swing sideways must not meet before they are at their limits, and
    # distal joints cannot bend further than middle ones.
    for name, fixed_end, more in (
        *(("FFJ3", 0, 0.4), ("MFJ3", 0, 0.3), ("RFJ3", 1, -0.3), ("LFJ3", 1, -0.3)),
        *((name, 0, 0.25) for name in of_fingers("J1")),
        *((name, 1, -0.4) for name in of_fingers("J0")),
    ):
        shift[:, JOINT[name], fixed_end] += more
    start, ctrl = block_at(hand, AWAY), FLAT.copy()
    for name, angle in pose.items():
        start[JOINT[name]] = angle
    for i, actuator in enumerate(names.ACTUATORS):
        if actuator.joints[0] in joints:
            ctrl[i] = (-9.0, 9.0)[end]
    qpos, _ = simulate(make_draws(hand, joint_limit=shift), start, 20, ctrl)
    for name in joints:
        angles = qpos[-1, :, JOINT[name]]
        limits = hand.model.jnt_range[JOINT[name], end] + shift[:, JOINT[name], end]
        np.testing.assert_allclose(angles, limits, atol=0.02, err_msg=name)


@pytest.mark.parametrize(("target", "stop"), [(-9.0, 0.175), (9.0, 0.225)])
def test_limits_drawn_past_each_other_leave_a_narrow_range(
    simulate, hand, target, stop
):
    # Nominal limits of -0.2094 and 0.2094 become 0.2906 and 0.1094: 0.05 are left
    # around the middle.
    shift = np.zeros((WORLDS, 24, 2))
    shift[:, JOINT["THJ2"]] = [0.5, -0.1]
    ctrl = FLAT.copy()
    ctrl[ACTUATOR["A_THJ2"]] = target
    draws = make_draws(hand, joint_limit=shift)
    qpos, _ = simulate(draws, block_at(hand, AWAY), 10, ctrl)
    np.testing.assert_allclose(qpos[-1, :, JOINT["THJ2"]], stop, atol=0.015)


def test_difference_of_coupled_joints_stays_in_its_drawn_range(simulate, hand):
    # The nominal range of J1 - J0, 0 to 1.6, lets them keep the angles they start from;
    # shifts are shares of its width.
    tendons = [
        hand.model.tendon(f"robot0:{finger}_difference").id
        for finger in names.COUPLED_FINGERS
    ]
    middle = [JOINT[f"{finger}J1"] for finger in names.COUPLED_FINGERS]
    distal = [JOINT[f"{finger}J0"] for finger in names.COUPLED_FINGERS]
    shift = np.zeros((WORLDS, hand.model.ntendon, 2))
    shift[1, tendons, 0] = 1.04 / 1.6
    shift[2, tendons, 1] = 0.64 / 1.6 - 1
    # Past each other: both ends in the middle, 0.92.
    shift[3, tendons] = [1.04 / 1.6, 0.8 / 1.6 - 1]
    start = block_at(hand, AWAY)
    start[middle], start[distal] = 1.2, 0.4
    ctrl = FLAT.copy()
    ctrl[[ACTUATOR[f"A_{finger}J1"] for finger in names.COUPLED_FINGERS]] = 1.6
    qpos, _ = simulate(make_draws(hand, tendon_range=shift), start, 15, ctrl)
    difference = qpos[-1][:, middle] - qpos[-1][:, distal]
    assert (np.abs(difference[0] - 0.85) < 0.13).all()
    for world, expected in ((1, 1.04), (2, 0.64), (3, 0.92)):
        np.testing.assert_allclose(difference[world], expected, atol=0.01)


# --- all of them ------------------------------------------------------------------


def test_an_episodes_draw_leaves_no_trace_in_the_next(simulate, hand, resting):
    first, drawn, again = (
        simulate(draws, resting, 3, VARIED)[0]
        for draws in (make_draws(hand), everything_drawn(hand), make_draws(hand))
    )
    assert (np.abs(drawn - first).max((0, 2)) > 0.01).all()
    np.testing.assert_array_equal(again, first)


def test_worlds_of_a_batch_do_not_mix(simulate, hand, resting):
    draws = everything_drawn(hand)
    in_reverse = jax.tree.map(lambda x: x[::-1], draws)
    qpos, _ = simulate(draws, resting, 3, VARIED)
    reversed_qpos, _ = simulate(in_reverse, resting, 3, VARIED)
    assert (np.abs(np.diff(qpos, axis=1)).max((0, 2)) > 0.01).all()
    np.testing.assert_allclose(reversed_qpos[:, ::-1], qpos, atol=1e-5)


def test_targets_range_moves_with_the_joints_limits(hand):
    shift = np.zeros((24, 2))
    shift[JOINT["WRJ1"]] = [0.10, -0.05]
    shift[JOINT["FFJ1"]] = [0.02, 0.03]
    shift[JOINT["FFJ0"]] = [-0.05, 0.10]
    nominal = physics.nominal(hand)
    draw = physics.nominal_draw(hand).replace(joint_limit=jnp.float32(shift))
    parameters = physics.apply(draw, nominal)
    actual = np.asarray(physics.control_range(parameters, nominal, hand))
    expected = hand.ctrl_range.copy()
    expected[ACTUATOR["A_WRJ1"]] = [-0.4887 + 0.10, 0.1396 - 0.05]
    # Coupled: the target is the sum of both joints.
    expected[ACTUATOR["A_FFJ1"]] = [0.0 + 0.02 - 0.05, 3.1416 + 0.03 + 0.10]
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def world_maker(hand):
    """From a draw to the world it makes, as the menu does it."""
    nominal, derivation = physics.nominal(hand), Derivation(hand.model)

    def make_world(draw):
        parameters = physics.apply(draw, nominal)
        return parameters.replace(derived=derivation.derive(parameters))

    return make_world


def in_all_worlds(value, size):
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (WORLDS, size))


def make_draws(hand, **effects):
    """WORLDS draws, nominal but for ``effects``, each broadcast to its shape."""
    draws = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (WORLDS, *x.shape)), physics.nominal_draw(hand)
    )
    return draws.replace(
        **{
            name: jnp.broadcast_to(
                jnp.asarray(value, jnp.float32), getattr(draws, name).shape
            )
            for name, value in effects.items()
        }
    )


def everything_drawn(hand):
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + jnp.asarray(random.uniform(-0.2, 0.2, x.shape), jnp.float32),
        make_draws(hand),
    )


def block_at(hand, position):
    """[nq] flat hand, block at ``position`` [3]."""
    qpos = hand.model.qpos0.copy()
    qpos[POSITION] = position
    return qpos


def edited(nominal, name, factor):
    """A model in which an effect is written out in MuJoCo's own terms."""
    model = copy.copy(nominal)
    if name == "object_mass":
        model.body_mass[-1] *= factor
        model.body_inertia[-1] *= factor
    elif name == "object_size":
        model.geom_size[-1] *= factor
        model.body_inertia[-1] *= factor**2
    elif name == "link_mass":
        model.body_mass[1:-1] *= factor
        model.body_inertia[1:-1] *= factor[:, None]
    elif name == "joint_damping":
        model.dof_damping[:24] *= factor
    elif name == "actuator_gain":
        model.actuator_gainprm[:, 0] *= factor
        model.actuator_biasprm[:, 1] *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def by_mujoco(model, start, steps, ctrl=FLAT):
    """[steps, ...] qpos and qvel from MuJoCo's own loop."""
    data = mujoco.MjData(model)
    data.qpos[:] = start
    states = []
    for targets in np.broadcast_to(ctrl, (steps, 20)):
        data.ctrl[:] = targets
        mujoco.mj_step(model, data, nstep=10)
        states.append((data.qpos.copy(), data.qvel.copy()))
    return tuple(np.stack(values) for values in zip(*states, strict=True))


def static_torque(model, qpos):
    """[nv] what it takes to hold a pose against gravity."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    return data.qfrc_bias
