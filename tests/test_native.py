"""The C engine against a plain loop over ``mj_step`` on the ordinary model.

Both are MuJoCo C, in float64: all that differs is how contacts are found and the
solver's arithmetic arranged, so that they agree to rounding.
"""

import copy

import jax
import mujoco
import numpy as np
import pytest

from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig
from mjx_dex.hand import build_hand
from mjx_dex.physics import initial_state, make_engine, native, nominal_parameters
from mjx_dex.types import PhysicsParameters, PhysicsState

CONFIG = PhysicsConfig()
ENVIRONMENTS = 6
CONTROL_STEPS = 12
CHANGE = 7
"""Control step at which half of the environments get other parameters."""


@pytest.fixture(scope="module", params=["block", "prism", "sphere"])
def hand(request):
    return build_hand(HandConfig(), ObjectConfig(shape=request.param), CONFIG)


@pytest.fixture(scope="module")
def settled(hand) -> PhysicsState:
    """The object in the cupped hand."""
    data = mujoco.MjData(hand.model)
    data.ctrl[:] = hand.ctrl_range.mean(1)
    mujoco.mj_step(hand.model, data, nstep=100)
    return initial_state(hand.model).replace(
        qpos=np.float32(data.qpos),
        qvel=np.float32(data.qvel),
        warmstart=np.float32(data.qacc_warmstart),
    )


def randomized(hand, generator) -> PhysicsParameters:
    """Parameters of one environment, everything that engines can vary."""
    nominal = jax.tree.map(np.array, nominal_parameters(hand.model))
    is_object = hand.model.geom_bodyid == hand.model.body("object").id
    mass = generator.uniform(0.5, 1.5, hand.model.nbody)
    gain = generator.uniform(0.75, 1.5, (hand.model.nu, 1))
    shift = generator.normal(0, 0.05, (hand.model.njnt, 2)).astype(np.float32)
    friction = generator.uniform(0.3, 3.0, (hand.model.ngeom, 3))
    sizes = np.where(is_object, generator.uniform(0.95, 1.05), 1.0)[:, None]
    parameters = nominal.replace(
        body_mass=nominal.body_mass * mass,
        body_inertia=nominal.body_inertia * mass[:, None],
        geom_size=nominal.geom_size * sizes,
        geom_friction=nominal.geom_friction * friction,
        dof_damping=nominal.dof_damping * generator.uniform(0.3, 3, hand.model.nv),
        actuator_gainprm=nominal.actuator_gainprm * gain,
        actuator_biasprm=nominal.actuator_biasprm * gain,
        jnt_range=nominal.jnt_range + shift,
        tendon_range=nominal.tendon_range + 0.01,
        gravity=nominal.gravity + generator.normal(0, 0.4, 3),
    )
    return jax.tree.map(np.float32, parameters)


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def with_parameters(model, parameters: PhysicsParameters) -> mujoco.MjModel:
    """A copy of the model that has them, and what follows from them."""
    model = copy.copy(model)
    for name, values in vars(parameters).items():
        if name == "gravity":
            model.opt.gravity[:] = values
        elif name != "derived":
            getattr(model, name)[:] = values
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


class Loop:
    """One environment: ``mj_step`` on a model of its own."""

    def __init__(self, model, parameters, state: PhysicsState):
        self.model = with_parameters(model, parameters)
        self.data = mujoco.MjData(self.model)
        self.set_state(state)

    def set_state(self, state: PhysicsState) -> None:
        self.data.qpos[:], self.data.qvel[:] = state.qpos, state.qvel
        self.data.qacc_warmstart[:] = state.warmstart

    def step(self, ctrl, force, timesteps) -> PhysicsState:
        """Advance; returns the state in float32, as engines exchange it."""
        self.data.ctrl[:] = ctrl
        self.data.xfrc_applied[-1, :3] = force
        for timestep in timesteps:
            self.model.opt.timestep = timestep
            mujoco.mj_step(self.model, self.data)
        data = self.data
        return PhysicsState(
            *map(np.float32, (data.qpos, data.qvel, data.qacc_warmstart))
        )


def inputs(hand, generator, jitter: str):
    """Targets, forces and timesteps of ENVIRONMENTS for one control step."""
    low, high = hand.ctrl_range.T
    ctrl = generator.uniform(low, high, (ENVIRONMENTS, hand.model.nu))
    force = generator.normal(0, 0.3, (ENVIRONMENTS, 3))
    lengths = {
        "none": np.ones((ENVIRONMENTS, 1)),
        "control steps": generator.uniform(0.9, 1.2, (ENVIRONMENTS, 1)),
        "physics steps": generator.uniform(0.9, 1.2, (ENVIRONMENTS, CONFIG.substeps)),
    }[jitter]
    timesteps = CONFIG.timestep * lengths * np.ones(CONFIG.substeps)
    return np.float32(ctrl), np.float32(force), np.float32(timesteps)


@pytest.mark.parametrize("jitter", ["none", "control steps", "physics steps"])
def test_trajectories_are_those_of_a_loop_over_mj_step(hand, settled, jitter):
    """Randomized environments, of which half change their parameters on the way."""
    generator = np.random.default_rng(0)
    step = jax.jit(jax.vmap(make_engine("native", hand, CONFIG).step))
    each = [randomized(hand, generator) for _ in range(ENVIRONMENTS)]
    states = stack([settled] * ENVIRONMENTS)
    loops = [Loop(hand.model, parameters, settled) for parameters in each]
    moved, contacts = 0.0, 0
    for k in range(CONTROL_STEPS):
        for i in range(0, ENVIRONMENTS, 2) if k == CHANGE else ():
            each[i] = randomized(hand, generator)
            state = jax.tree.map(lambda x, i=i: x[i], states)
            loops[i] = Loop(hand.model, each[i], state)
        arguments = inputs(hand, generator, jitter)
        before = states
        states, lost = step(stack(each), states, *arguments)
        states = jax.tree.map(np.asarray, states)
        expected = stack(
            [loop.step(*own) for loop, *own in zip(loops, *arguments, strict=True)]
        )
        np.testing.assert_allclose(states.qpos, expected.qpos, atol=1e-6)
        np.testing.assert_allclose(states.qvel, expected.qvel, atol=1e-5)
        assert not np.any(lost)
        moved += np.abs(states.qpos - before.qpos).max()
        contacts += sum(loop.data.ncon for loop in loops)
        for i, loop in enumerate(loops):
            loop.set_state(jax.tree.map(lambda x, i=i: x[i], states))
    assert moved > 1.0
    assert contacts > 2 * CONTROL_STEPS * ENVIRONMENTS


def test_in_float64_trajectories_agree_to_rounding(hand, settled):
    """Forty physics steps without an exchange in between, and the same contacts."""
    pairs, generator = native.prepare(hand), np.random.default_rng(1)
    contacts, largest = 0, 0.0
    for _ in range(ENVIRONMENTS):
        parameters = randomized(hand, generator)
        plain = Loop(hand.model, parameters, settled)
        paired = Loop(pairs.model, parameters, settled)
        friction = pairs.friction(plain.model.geom_friction)
        paired.model.pair_friction[pairs.ids] = friction
        for _ in range(4):
            ctrl, force, timesteps = (x[0] for x in inputs(hand, generator, "none"))
            plain.step(ctrl, force, timesteps)
            paired.step(ctrl, force, timesteps)
            ours, theirs = paired.data.contact, plain.data.contact
            np.testing.assert_array_equal(ours.geom, theirs.geom)
            np.testing.assert_array_equal(ours.friction, theirs.friction)
            np.testing.assert_allclose(ours.dist, theirs.dist, rtol=0, atol=1e-12)
            contacts += plain.data.ncon
            difference = np.abs(paired.data.qpos - plain.data.qpos).max()
            largest = max(largest, difference)
    print(f"{contacts} contacts, largest difference of qpos {largest:.1e}")
    assert contacts > 50
    assert largest < 1e-12


@pytest.mark.parametrize("jitter", ["none", "control steps", "physics steps"])
def test_a_step_does_not_depend_on_those_before_it(hand, settled, jitter):
    """Other parameters and timesteps leave no trace, bit for bit."""
    generator = np.random.default_rng(2)
    step = jax.jit(jax.vmap(make_engine("native", hand, CONFIG).step))
    nominal = stack([nominal_parameters(hand.model)] * ENVIRONMENTS)
    state = stack([settled] * ENVIRONMENTS)
    arguments = inputs(hand, generator, "none")
    first, _ = jax.device_get(step(nominal, state, *arguments))
    others = stack([randomized(hand, generator) for _ in range(ENVIRONMENTS)])
    between, _ = step(others, state, *inputs(hand, generator, jitter))
    again, _ = jax.device_get(step(nominal, state, *arguments))
    assert np.abs(between.qpos - first.qpos).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, again, first)


def test_full_buffers_are_counted_not_their_sizes(hand, monkeypatch):
    """A warning has two numbers: its last detail, here a size, and its count."""

    def overflow(self, timesteps):
        self.batch.warning[1, mujoco.mjtWarning.mjWARN_CONTACTFULL] = (700, 3)
        self.batch.warning[2, mujoco.mjtWarning.mjWARN_CNSTRFULL] = (900, 4)

    monkeypatch.setattr(native._Worlds, "_advance", overflow)
    engine = make_engine("native", hand, CONFIG)
    each = (nominal_parameters(hand.model), initial_state(hand.model))
    parameters, state = jax.tree.map(lambda x: np.stack([x] * 3), each)
    ctrl, force = np.zeros((3, hand.model.nu)), np.zeros((3, 3))
    timesteps = np.full((3, 10), CONFIG.timestep, np.float32)
    _, lost = engine._step_batch(
        native._primary(parameters), state, ctrl, force, timesteps
    )
    assert lost.tolist() == [0, 3, 4]
