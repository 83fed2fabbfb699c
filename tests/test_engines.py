import copy
import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import build_hand
from mjx_dex.physics import (
    choose_engine,
    initial_state,
    make_engine,
    nominal_parameters,
)
from mjx_dex.physics.contacts import measure_contacts
from mjx_dex.randomization import physics

ENGINES = ("native", "mjx", "warp")
CONFIG = PhysicsConfig(max_contacts=24, max_constraints=300)
STEPS = 100
WORLDS = 3
TIMESTEPS = jnp.full(10, CONFIG.timestep, jnp.float32)


@pytest.fixture(scope="module")
def hand_alone():
    return build_hand(HandConfig(), None, CONFIG)


@pytest.fixture(scope="module")
def hand_and_block():
    return build_hand(HandConfig(), ObjectConfig(), CONFIG)


@pytest.fixture(scope="module")
def controls(hand_alone):
    """[control steps, 20] targets that change every ten physics steps."""
    low, high = hand_alone.ctrl_range.T
    share = np.random.default_rng(0).uniform(0.2, 0.8, (STEPS // 10, len(low)))
    return low + share * (high - low)


@pytest.fixture(scope="module")
def reference(hand_alone, controls):
    """[24] joint angles from a plain loop over ``mj_step``, in float64."""
    data = mujoco.MjData(hand_alone.model)
    for targets in controls:
        data.ctrl[:] = targets
        mujoco.mj_step(hand_alone.model, data, nstep=10)
    return data.qpos.copy()


def test_native_steps_alike_where_jax_runs_on_another_device(
    hand_and_block, monkeypatch
):
    """There it is a callback, which is another way to the same function."""
    steps = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        engine = make_engine("native", hand_and_block, CONFIG)
        world = nominal_parameters(hand_and_block.model)
        state = initial_state(hand_and_block.model)
        states = jax.tree.map(lambda x: jnp.stack([x, x + 0.01]), state)
        step = jax.vmap(engine.step, (None, 0, None, None, None))
        program = str(jax.make_jaxpr(step)(*arguments(world, states)))
        assert ("pure_callback" in program) == (backend == "gpu")
        steps.append(jax.jit(step)(*arguments(world, states)))
    jax.tree.map(np.testing.assert_array_equal, *steps)


def arguments(world, states):
    return world, states, jnp.zeros(20), jnp.zeros(3), TIMESTEPS


@pytest.fixture(scope="module", params=ENGINES)
def block_engine(request, hand_and_block):
    """An engine, and its step compiled for WORLDS worlds."""
    engine = make_engine(request.param, hand_and_block, CONFIG)
    return jax.jit(jax.vmap(engine.step))


def worlds(hand):
    """Arguments of an engine's step for WORLDS worlds at rest, block on the palm."""
    data = mujoco.MjData(hand.model)
    middle = hand.ctrl_range.mean(1)
    data.ctrl[:] = middle
    mujoco.mj_step(hand.model, data, nstep=200)
    state = initial_state(hand.model).replace(
        qpos=jnp.asarray(data.qpos, jnp.float32),
        qvel=jnp.asarray(data.qvel, jnp.float32),
        warmstart=jnp.asarray(data.qacc_warmstart, jnp.float32),
    )
    arguments = (
        nominal_parameters(hand.model),
        state,
        jnp.asarray(middle, jnp.float32),
        jnp.zeros(3),
        TIMESTEPS,
    )
    return jax.tree.map(lambda x: jnp.stack([x] * WORLDS), arguments)


def nominal(hand):
    return jax.tree.map(
        lambda x: jnp.stack([x] * WORLDS), nominal_parameters(hand.model)
    )


@pytest.mark.parametrize("name", ENGINES)
def test_engines_agree_on_the_free_hand(name, hand_alone, controls, reference):
    # float32 against MuJoCo's float64; a fraction of a degree is far below the
    # resolution of the hand's own joint sensors.
    engine = make_engine(name, hand_alone, CONFIG)
    step = jax.jit(jax.vmap(engine.step))
    state = jax.tree.map(lambda x: x[None], initial_state(hand_alone.model))
    parameters = jax.tree.map(lambda x: x[None], nominal_parameters(hand_alone.model))
    for targets in controls:
        state, lost = step(
            parameters,
            state,
            jnp.asarray(targets, jnp.float32)[None],
            jnp.zeros((1, 3)),
            TIMESTEPS[None],
        )
        assert int(lost[0]) == 0
    error = np.abs(np.asarray(state.qpos[0]) - reference).max()
    print(f"{name}: largest joint error after {STEPS} steps {error:.1e} rad")
    assert error < 1e-3


def test_block_rests_where_mujoco_rests_it(block_engine, hand_and_block):
    arguments = worlds(hand_and_block)
    before = np.asarray(arguments[1].qpos[0])
    state = arguments[1]
    for _ in range(5):
        state, lost = block_engine(arguments[0], state, *arguments[2:])
    assert int(lost.sum()) == 0
    after = np.asarray(state.qpos)
    np.testing.assert_allclose(after[:, 26], before[26], atol=1e-3)
    contacts = measure_contacts(hand_and_block.model, after, np.asarray(state.qvel))
    print(contacts)
    assert 0 < contacts.mean_penetration < 1e-3


def test_gravity_is_each_worlds_own(block_engine, hand_and_block):
    gravity = jnp.array([[0.0, 0.0, -9.81], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    state = flying(hand_and_block)
    parameters = nominal(hand_and_block).replace(gravity=gravity)
    after = step_once(block_engine, hand_and_block, parameters, state)
    np.testing.assert_allclose(after.qvel[:, 26], 0.08 * gravity[:, 2], atol=1e-4)


def test_force_accelerates_by_force_over_mass(block_engine, hand_and_block):
    mass = hand_and_block.model.body_mass[-1]
    parameters = nominal(hand_and_block)
    heavier = parameters.body_mass.at[1, -1].mul(2.0)
    parameters = parameters.replace(
        body_mass=heavier, gravity=jnp.zeros_like(parameters.gravity)
    )
    force = jnp.array([[0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, -0.2, 0.0]])
    after = step_once(
        block_engine, hand_and_block, parameters, flying(hand_and_block), force=force
    )
    expected = np.zeros((WORLDS, 3))
    expected[0, 0] = 0.08 * 0.1 / mass
    expected[1, 0] = 0.08 * 0.1 / (2 * mass)
    expected[2, 1] = 0.08 * -0.2 / mass
    np.testing.assert_allclose(after.qvel[:, 24:27], expected, rtol=1e-3, atol=1e-5)


def test_each_substep_has_its_own_length(block_engine, hand_and_block):
    timesteps = jnp.linspace(0.008, 0.012, WORLDS * 10).reshape(WORLDS, 10)
    after = step_once(
        block_engine,
        hand_and_block,
        nominal(hand_and_block),
        flying(hand_and_block),
        timesteps=timesteps,
    )
    np.testing.assert_allclose(after.qvel[:, 26], -9.81 * timesteps.sum(1), rtol=1e-4)


def test_damping_and_gain_reach_the_joints(block_engine, hand_and_block):
    # WRJ1 alone is driven; MuJoCo with the same model edited by hand is the truth.
    parameters = nominal(hand_and_block)
    parameters = parameters.replace(
        dof_damping=parameters.dof_damping.at[1, 0].mul(3.0),
        actuator_gainprm=parameters.actuator_gainprm.at[2, 0, 0].mul(0.75),
        actuator_biasprm=parameters.actuator_biasprm.at[2, 0, 1].mul(0.75),
    )
    state = flying(hand_and_block)
    ctrl = jnp.zeros((WORLDS, 20)).at[:, 0].set(-0.05)
    after = step_once(block_engine, hand_and_block, parameters, state, ctrl=ctrl)
    for world, (damping, gain) in enumerate([(1.0, 1.0), (3.0, 1.0), (1.0, 0.75)]):
        expected = edited_step(hand_and_block.model, damping, gain)
        np.testing.assert_allclose(after.qpos[world, 0], expected, atol=2e-4)
    assert len(set(np.round(np.asarray(after.qpos[:, 0]), 4))) == WORLDS


def test_friction_rules_reach_the_contacts(hand_and_block):
    """A block pushed over the palm, by each rule in one of three environments.

    On native: mjx and warp find other contacts, and a block that slides goes elsewhere
    there. They are given the same friction: see test_friction.py.

    The reference has the rule's friction in the hand's geoms, which contacts take from
    there alone: their priority is higher.
    """
    own = hand_and_block.model.geom_friction
    is_object = hand_and_block.model.geom_bodyid == hand_and_block.model.nbody - 1
    of_hand, of_object = 1.2 * own, 0.8 * own[is_object]
    by_rule = {
        "maximum": np.maximum(of_hand, of_object),
        "geometric_mean": np.sqrt(of_hand * of_object),
        "product": (of_hand * of_object) ** [1, 0.5, 0.5],
    }
    given, expected = [], []
    parameters, state, ctrl, _, timesteps = worlds(hand_and_block)
    force = jnp.tile(jnp.array([[0.8, 0.0, 0.0]]), (WORLDS, 1))
    for rule, friction in by_rule.items():
        config = dataclasses.replace(CONFIG, friction_rule=rule)
        hand = build_hand(HandConfig(), ObjectConfig(), config)
        draw = physics.nominal_draw(hand)
        draw = draw.replace(surface_friction=jnp.array([1.2, 0.8]))
        given.append(physics.apply(draw, physics.nominal(hand)).geom_friction)
        model = copy.copy(hand_and_block.model)
        model.geom_friction[~is_object] = friction[~is_object]
        model.geom_priority[~is_object], model.geom_condim[~is_object] = 1, 4
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = state.qpos[0], state.qvel[0]
        data.qacc_warmstart[:], data.ctrl[:] = state.warmstart[0], ctrl[0]
        data.xfrc_applied[-1, :3] = force[0]
        mujoco.mj_step(model, data, nstep=10)
        expected.append(data.qvel[24:27].copy())
    step = jax.jit(jax.vmap(make_engine("native", hand_and_block, CONFIG).step))
    moved, _ = step(
        parameters.replace(geom_friction=jnp.stack(given)),
        *(state, ctrl, force, timesteps),
    )
    expected = np.array(expected)
    error = np.abs(np.asarray(moved.qvel)[:, 24:27] - expected).max()
    apart = np.abs(expected[:, None] - expected)[~np.eye(3, dtype=bool)].max(-1).min()
    print(f"velocities {apart:.3f} m/s apart, error {error:.1e}")
    assert apart > 0.1
    assert error < 1e-5


def test_results_do_not_depend_on_the_number_of_worlds(hand_and_block):
    engine = make_engine("native", hand_and_block, CONFIG)
    arguments = worlds(hand_and_block)
    together, _ = jax.jit(jax.vmap(engine.step))(*arguments)
    alone, _ = jax.jit(engine.step)(*jax.tree.map(lambda x: x[0], arguments))
    np.testing.assert_array_equal(together.qpos[0], alone.qpos)


def test_native_forgets_parameters_of_earlier_calls(hand_and_block):
    engine = make_engine("native", hand_and_block, CONFIG)
    step = jax.jit(jax.vmap(engine.step))
    arguments = worlds(hand_and_block)
    fresh, _ = step(*arguments)
    parameters = arguments[0].replace(body_mass=arguments[0].body_mass * 1.5)
    heavy, _ = step(parameters, *arguments[1:])
    again, _ = step(*arguments)
    assert np.abs(heavy.qpos - fresh.qpos).max() > 1e-5
    np.testing.assert_array_equal(again.qpos, fresh.qpos)


@pytest.mark.parametrize("name", ["mjx", "warp"])
def test_full_contact_buffer_is_counted(name):
    config = dataclasses.replace(CONFIG, max_contacts=1)
    hand = build_hand(HandConfig(), ObjectConfig(), config)
    engine = make_engine(name, hand, config)
    _, lost = jax.jit(jax.vmap(engine.step))(*worlds(hand))
    assert (np.asarray(lost) > 0).all()


def test_auto_takes_native_on_a_cpu_and_says_why():
    name, reason = choose_engine("auto")
    assert name == "native"
    assert "cpu" in reason


def test_a_named_engine_is_taken_as_it_is():
    assert choose_engine("mjx") == ("mjx", "as asked")


def flying(hand):
    """The block in free fall, far from the hand, which is at rest at zero."""
    state = initial_state(hand.model)
    state = state.replace(qpos=state.qpos.at[26].set(0.6))
    return jax.tree.map(lambda x: jnp.stack([x] * WORLDS), state)


def step_once(step, hand, parameters, state, **changes):
    arguments = {
        "ctrl": jnp.zeros((WORLDS, 20)),
        "force": jnp.zeros((WORLDS, 3)),
        "timesteps": jnp.stack([TIMESTEPS] * WORLDS),
    } | changes
    after, lost = step(parameters, state, *arguments.values())
    assert int(lost.sum()) == 0
    return after


def edited_step(nominal_model, damping, gain):
    """WRJ1 after one control step of MuJoCo C, with damping and gain scaled."""
    model = copy.copy(nominal_model)
    model.dof_damping[0] *= damping
    model.actuator_gainprm[0, 0] *= gain
    model.actuator_biasprm[0, 1] *= gain
    data = mujoco.MjData(model)
    data.qpos[26] = 0.6
    data.ctrl[0] = -0.05
    mujoco.mj_step(model, data, nstep=10)
    return data.qpos[0]
