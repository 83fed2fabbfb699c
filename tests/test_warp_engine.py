import ast
import dataclasses
import gc
import subprocess
import sys
import weakref
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import warp
from mujoco import mjx

import mjx_dex
from mjx_dex.config import HandConfig, ObjectConfig, PhysicsConfig, replace
from mjx_dex.hand import build_hand
from mjx_dex.physics import (
    initial_state,
    make_engine,
    mujoco_warp,
    nominal_parameters,
    warp_engine,
)
from mjx_dex.physics.engine import CaptureError
from mjx_dex.task import make_env

CONFIG = PhysicsConfig(max_contacts=24, max_constraints=300)
SUBSTEPS = CONFIG.substeps
TIMESTEPS = jnp.full(SUBSTEPS, CONFIG.timestep, jnp.float32)
ROOT = Path(mjx_dex.__file__).parents[1]


@pytest.fixture(scope="module")
def hand():
    return build_hand(HandConfig(), ObjectConfig(), CONFIG)


@pytest.fixture(scope="module")
def engine(hand):
    return make_engine("warp", hand, CONFIG)


@pytest.fixture(scope="module")
def step(engine):
    return jax.jit(jax.vmap(engine.step))


@pytest.fixture(scope="module")
def randomized(config, hand):
    """Arguments of three environments, the block in the hand, everything drawn."""
    env = make_env(replace(config, **{"randomization.preset": "all"}))
    keys = jax.random.split(jax.random.key(0), 3)
    started, _ = jax.jit(jax.vmap(env.reset))(keys)
    low, high = hand.ctrl_range.T
    share = np.random.default_rng(0).uniform(0.3, 0.7, (3, 20))
    ctrl = jnp.asarray(low + share * (high - low), jnp.float32)
    force = jnp.array([[0.0, 0.0, 0.0], [0.05, 0.0, 0.0], [0.0, 0.1, -0.05]])
    timesteps = TIMESTEPS + jnp.linspace(0.0, 1e-3, 30).reshape(3, 10)
    return started.draw.parameters, started.physics, ctrl, force, timesteps


def test_equals_mjx_with_warp(step, hand, randomized):
    """MJX's own way to MuJoCo Warp, which copies all of ``Data`` at every step."""
    parameters, state, ctrl, force, timesteps = randomized
    model = mjx.put_model(hand.model, impl="warp")
    model = model.tree_replace({"opt._impl.warn_overflow": 0})
    sizes = {"naconmax": 3 * CONFIG.max_contacts, "njmax": CONFIG.max_constraints}
    data = mjx.make_data(hand.model, impl="warp", **sizes)

    def advance(parameters, state, ctrl, force, timesteps):
        fields = vars(parameters) | vars(parameters.derived)
        gravity, _ = fields.pop("gravity"), fields.pop("derived")
        fields["geom_aabb"] = fields["geom_aabb"].reshape(-1, 2, 3)
        applied = jnp.zeros((hand.model.nbody, 6)).at[-1, :3].set(force)

        def substep(data, timestep):
            opt = model.opt.replace(gravity=gravity, timestep=timestep)
            return mjx.step(model.replace(opt=opt, **fields), data), None

        started = data.replace(
            qpos=state.qpos,
            qvel=state.qvel,
            qacc_warmstart=state.warmstart,
            ctrl=ctrl,
            xfrc_applied=applied,
        )
        return jax.lax.scan(substep, started, timesteps)[0]

    reference = jax.jit(jax.vmap(advance))
    ours = theirs = state
    for _ in range(6):
        ours, overflow = step(parameters, ours, ctrl, force, timesteps)
        data_after = reference(parameters, theirs, ctrl, force, timesteps)
        theirs = theirs.replace(
            qpos=data_after.qpos,
            qvel=data_after.qvel,
            warmstart=data_after.qacc_warmstart,
        )
        assert (np.asarray(overflow) == 0).all()
    moved = np.abs(ours.qpos - state.qpos).max()
    error = np.abs(ours.qpos - theirs.qpos).max()
    print(f"after 60 physics steps: moved by {moved:.2f}, differ by {error:.1e}")
    assert moved > 0.1
    assert error < 1e-5


def test_one_call_steps_all_environments_through_a_control_step(engine, step, hand):
    model, calls = hand.model, engine.batches.calls
    for _ in range(3):
        jax.block_until_ready(step(*resting(hand, 3)))
    assert engine.batches.calls == calls + 3
    state = model.nq + 2 * model.nv
    parameters = jax.tree.leaves(nominal_parameters(model))
    given = sum(x.size for x in parameters) + state + 20 + 3 + SUBSTEPS
    assert engine.batches.bytes_per_environment == 4 * (given + state + 1)
    assert engine.batches.captures == 0  # on a CPU there is no graph


def test_any_number_of_environments_in_one_process(engine, step, randomized):
    together, _ = step(*randomized)
    pair, _ = step(*jax.tree.map(lambda x: x[1:], randomized))
    alone, overflow = jax.jit(engine.step)(*jax.tree.map(lambda x: x[2], randomized))
    eager, _ = engine.step(*jax.tree.map(lambda x: x[2], randomized))
    again, _ = step(*randomized)
    assert overflow.shape == ()
    np.testing.assert_array_equal(pair.qpos, together.qpos[1:])
    np.testing.assert_array_equal(alone.qpos, together.qpos[2])
    np.testing.assert_array_equal(eager.qpos, alone.qpos)
    np.testing.assert_array_equal(again.qpos, together.qpos)


def test_vmap_of_vmap_is_one_call(engine, step, randomized):
    """Parameters differ along the outer axis, states along both."""
    parameters, state, ctrl, force, timesteps = randomized
    states = jax.tree.map(lambda x: jnp.stack([x, x[::-1]], 1), state)
    inner = jax.vmap(engine.step, (None, 0, None, None, None))
    calls = engine.batches.calls
    nested, _ = jax.jit(jax.vmap(inner))(parameters, states, ctrl, force, timesteps)
    assert engine.batches.calls == calls + 1
    assert nested.qpos.shape == (3, 2, state.qpos.shape[-1])
    plain, _ = step(parameters, state, ctrl, force, timesteps)
    np.testing.assert_array_equal(nested.qpos[:, 0], plain.qpos)
    np.testing.assert_array_equal(nested.qpos[1, 1], plain.qpos[1])


def test_earlier_calls_leave_no_trace(step, randomized):
    """Other parameters, other forces and states that blew up before."""
    parameters, state, *rest = randomized
    fresh = step(parameters, state, *rest)
    heavy = parameters.replace(body_mass=2.0 * parameters.body_mass)
    other, _ = step(heavy, state, rest[0], rest[1] + 1.0, rest[2])
    assert np.abs(other.qpos - fresh[0].qpos).max() > 1e-4
    lost = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state)
    broken, _ = step(parameters, lost, *rest)
    assert np.isnan(broken.qpos).any()
    jax.tree.map(np.testing.assert_array_equal, step(parameters, state, *rest), fresh)


def test_physics_steps_that_overflow_are_counted_for_each_environment(hand):
    """Friction of 24 joints takes 24 rows; the block's contacts need more than 30."""
    config = dataclasses.replace(CONFIG, max_constraints=30)
    engine = make_engine("warp", hand, config)
    parameters, state, *rest = resting(hand, 2)
    state = state.replace(qpos=state.qpos.at[1, 26].set(2.0))
    _, overflow = jax.jit(jax.vmap(engine.step))(parameters, state, *rest)
    np.testing.assert_array_equal(overflow, [SUBSTEPS, 0])


def test_a_solver_at_its_limit_loses_no_contacts(hand):
    config = dataclasses.replace(CONFIG, iterations=1, ls_iterations=1)
    scene = build_hand(HandConfig(), ObjectConfig(), config)
    engine = make_engine("warp", scene, config)
    _, overflow = jax.jit(jax.vmap(engine.step))(*resting(hand, 2))
    np.testing.assert_array_equal(overflow, [0, 0])


def test_programs_run_to_their_end_without_their_engine(hand):
    """Python goes on while they run, and often lets go of the engine meanwhile."""
    engine = make_engine("warp", hand, CONFIG)
    arguments = resting(hand, 2)
    program = jax.jit(jax.vmap(engine.step)).lower(*arguments).compile()
    there = program(*arguments)
    batches = weakref.ref(engine.batches)
    del engine
    gc.collect()
    jax.tree.map(np.testing.assert_array_equal, program(*arguments), there)
    assert batches() is not None


def test_a_dropped_engine_gives_its_memory_back_when_the_next_is_made(
    hand, monkeypatch
):
    engine = make_engine("warp", hand, CONFIG)
    arguments = resting(hand, 2)
    step = jax.jit(jax.vmap(engine.step))
    program = step.lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    assert engine.batches.memory_per_environment() > 10_000
    (batch,) = (weakref.ref(batch) for batch in engine.batches._batches.values())
    seen = []
    running = SimpleNamespace(block_until_ready=lambda: seen.append(batch()))
    monkeypatch.setattr(jax, "live_arrays", lambda: [running])
    del engine, step
    gc.collect()
    make_engine("warp", hand, CONFIG)
    assert len(seen) == 1 and seen.pop() is not None  # it was still there
    assert batch() is None
    with pytest.raises(Exception, match="engine of this program"):
        jax.block_until_ready(program(*arguments))


TWO_DEVICES = """
import jax, numpy as np
from jax.sharding import Mesh, PartitionSpec
from test_warp_engine import CONFIG, HandConfig, ObjectConfig, build_hand, resting
from mjx_dex.physics import make_engine

assert len(jax.devices()) == 2
hand = build_hand(HandConfig(), ObjectConfig(), CONFIG)
engine = make_engine("warp", hand, CONFIG)
step = jax.vmap(engine.step)
arguments = resting(hand, 4)
arguments[1] = arguments[1].replace(qpos=arguments[1].qpos.at[:, 26].add(
    np.float32([0, 1e-3, 2e-3, 3e-3])))
spec = PartitionSpec("devices")
mesh = Mesh(np.array(jax.devices()), ("devices",))
both = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=spec, out_specs=spec))
here = jax.jit(step)
one = two = arguments[1]
for _ in range(5):
    one, _ = here(arguments[0], one, *arguments[2:])
    two, _ = both(arguments[0], two, *arguments[2:])
np.testing.assert_array_equal(one.qpos, two.qpos)
print(engine.batches.calls, "calls")
"""


def test_two_devices_in_one_process(tmp_path):
    """They share MuJoCo Warp's one CPU, and so its data."""
    script = tmp_path / "two_devices.py"
    script.write_text(TWO_DEVICES)
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, script],
        env={"PATH": "", "XLA_FLAGS": flags, "HOME": str(Path.home())}
        | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "15 calls" in done.stdout  # 5 of one device, 5 of each of two


@pytest.fixture
def pretended_gpus(monkeypatch):
    """Two GPUs to JAX, which are the CPU to warp; a graph is what it launches.

    Returns:
        Errors that captures raise, the next one last.
    """
    errors = []

    def capture_once(launch):
        assert warp_engine.CALLBACK_LOCK.locked()
        if errors:
            raise errors.pop()
        return launch

    devices = [SimpleNamespace(local_hardware_id=i) for i in (0, 1)]
    monkeypatch.setattr(warp, "is_cuda_available", lambda: True)
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: devices)
    monkeypatch.setattr(warp, "get_cuda_device", lambda _: warp.get_device("cpu"))
    monkeypatch.setattr(warp_engine, "_capture_once", capture_once)
    monkeypatch.setattr(warp, "capture_launch", lambda graph: graph())
    monkeypatch.setattr(warp, "synchronize_stream", lambda: None)
    return errors


def lower(engine, arguments, platform="cuda"):
    """As for a machine of another kind: MuJoCo Warp is prepared, nothing runs."""
    traced = jax.jit(jax.vmap(engine.step)).trace(*arguments)
    assert engine.batches.captures == 0
    return traced.lower(lowering_platforms=(platform,))


def test_graphs_are_captured_before_the_program_runs(pretended_gpus, hand, step):
    """And of the number of environments alone that it steps."""
    engine = make_engine("warp", hand, CONFIG)
    arguments = resting(hand, 2)
    lower(engine, arguments)
    assert (engine.batches.captures, engine.batches.calls) == (1, 0)
    assert list(engine.batches._batches) == [("cpu", 2, SUBSTEPS)]
    assert not warp_engine.CALLBACK_LOCK.locked()
    stepped, _ = jax.jit(jax.vmap(engine.step))(*arguments)  # with that graph
    assert (engine.batches.captures, engine.batches.calls) == (1, 1)
    np.testing.assert_array_equal(stepped.qpos, step(*arguments)[0].qpos)


def test_a_capture_is_tried_again(pretended_gpus, hand):
    pretended_gpus += [RuntimeError("error 901")] * 2
    engine = make_engine("warp", hand, CONFIG)
    lower(engine, resting(hand, 1))
    assert (pretended_gpus, engine.batches.captures) == ([], 1)


def test_a_capture_that_always_fails_is_one_clear_error(pretended_gpus, hand):
    pretended_gpus += [RuntimeError("error 901")] * 5
    engine = make_engine("warp", hand, CONFIG)
    with pytest.raises(CaptureError, match=r"3 times.*--engine mjx: error 901"):
        lower(engine, resting(hand, 1))
    assert len(pretended_gpus) == 2
    assert engine.batches.captures == 0


def test_a_gpu_that_warp_cannot_use_is_one_line(hand, monkeypatch):
    """Its usual wheel does not load on drivers that JAX still takes."""
    monkeypatch.setattr(warp, "is_cuda_available", lambda: False)
    engine = make_engine("warp", hand, CONFIG)
    with pytest.raises(CaptureError, match=r"driver of R580.*\+cu12.*--engine mjx"):
        engine.batches.prepare(2, SUBSTEPS)


@pytest.mark.parametrize("fails", [False, True])
def test_a_capture_is_relaxed_and_collects_no_garbage(monkeypatch, fails):
    entered = []

    class Capture:
        graph = "a graph"

        def __init__(self, **options):
            assert options == {
                "force_module_load": False,
                "capture_mode": warp.CaptureMode.RELAXED,
            }

        def __enter__(self):
            entered.append(gc.isenabled())
            return self

        def __exit__(self, *_):
            if fails:
                raise RuntimeError("error 901")

    monkeypatch.setattr(warp, "ScopedCapture", Capture)
    if fails:
        with pytest.raises(CaptureError, match="error 901"):
            warp_engine.capture_graph(lambda: None)
    else:
        assert warp_engine.capture_graph(lambda: None) == "a graph"
    assert entered == [False] * (warp_engine.CAPTURE_TRIES if fails else 1)
    assert gc.isenabled()


def test_other_accelerators_are_told_what_runs_there(hand):
    engine = make_engine("warp", hand, CONFIG)
    with pytest.raises(ValueError, match="not on tpu: take --engine mjx"):
        lower(engine, resting(hand, 1), "tpu")


def test_mujoco_warp_is_imported_in_one_place_and_is_the_pinned_one():
    importing = [
        path.relative_to(ROOT)
        for folder in ("mjx_dex", "robot_bridge", "tests", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        if imports_mujoco_warp(path.read_text())
    ]
    assert importing == [Path("mjx_dex/physics/mujoco_warp.py")]
    project = (ROOT / "pyproject.toml").read_text()
    for package in ("mujoco", "mujoco-mjx"):
        assert f'"{package}=={mujoco_warp.MUJOCO}.*"' in project
        assert metadata.version(package).startswith(f"{mujoco_warp.MUJOCO}.")


def imports_mujoco_warp(source):
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return any("mjx.third_party" in name for name in modules)


def resting(hand, count):
    """Arguments of ``count`` environments, the block at rest on the open hand."""
    data = mujoco.MjData(hand.model)
    data.ctrl[:] = hand.ctrl_range.mean(1)
    mujoco.mj_step(hand.model, data, nstep=200)
    state = initial_state(hand.model).replace(
        qpos=jnp.asarray(data.qpos, jnp.float32),
        qvel=jnp.asarray(data.qvel, jnp.float32),
        warmstart=jnp.asarray(data.qacc_warmstart, jnp.float32),
    )
    ctrl = jnp.asarray(data.ctrl, jnp.float32)
    arguments = nominal_parameters(hand.model), state, ctrl, jnp.zeros(3), TIMESTEPS
    return [jax.tree.map(lambda x: jnp.stack([x] * count), x) for x in arguments]
