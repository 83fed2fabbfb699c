"""Observations and actions against the environment's, on the same states."""

import jax
import numpy as np
import pytest

from mjx_dex import sources
from mjx_dex.config import replace
from mjx_dex.task import make_env
from robot_bridge import export
from robot_bridge.messages import Sample, Snapshot
from robot_bridge.safety import Limits
from robot_bridge.sensing import Sensing
from robot_bridge.simulation.hand import SimulatedHand
from robot_bridge.simulation.imperfections import CLEAN
from robot_bridge.task import SENSED, Task

TICKS = 25

VARIANTS = {
    "as in the paper": {},
    "locked wrist": {"task.locked_wrist": True},
    "absolute targets": {"task.action_targets": "absolute"},
    "half the control period": {"physics.substeps": 5},
    "numbers, all inputs": {
        "task.action_bins": None,
        "task.action_smoothing": 0.0,
        "task.policy_inputs": SENSED,
    },
}


def manifest_of(config, env, run):
    return export.manifest_of(config, env._hand, sources.read(run))


def seen_by(sensing, hand, state, now):
    """What the bridge makes of an environment's state, by way of motion capture."""
    hand._data.qpos[:] = np.asarray(state.physics.qpos)
    hand._sense()
    samples = {name: Sample(v, now, now) for name, v in hand.messages.items()}
    sensing.update(Snapshot(**samples))
    return sensing.reading()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_bridge_sees_and_asks_what_the_environment_does(variant, run_config, run):
    config = replace(run_config, **VARIANTS[variant])
    env = make_env(config)
    manifest = manifest_of(config, env, run)
    task = Task(manifest)
    hand = SimulatedHand(manifest, CLEAN)
    sensing = Sensing(manifest, hand.info, Limits())
    signs = np.array([actuator["sign"] for actuator in manifest["actuators"]])
    state, observation = jax.jit(env.reset)(jax.random.key(1))
    step, aim = jax.jit(env.step), jax.jit(env.aim)
    memory, moved = task.no_actions(), 0.0
    for tick in range(TICKS):
        reading = seen_by(sensing, hand, state, 1.0 + tick)
        ours = task.observe(reading, np.asarray(state.goal, float))
        np.testing.assert_allclose(ours, observation.policy, atol=2e-6)
        action = env.random_action(state)
        smoothed, memory = task.smooth(task.decode(np.asarray(action)), memory)
        targets = task.targets(smoothed, reading.joint_angles)
        theirs, _ = aim(state, action)
        # In the policy's own names and signs there, in the hand's here.
        np.testing.assert_allclose(signs * targets, theirs, atol=2e-6)
        moved = max(moved, np.ptp(targets))
        state, time_step = step(state, action)
        observation = time_step.observation
    assert moved > 0.5


def test_a_bundle_holds_smoothing_for_its_own_control_period(run_config, run):
    config = replace(run_config, **{"physics.substeps": 5})
    control = manifest_of(config, make_env(config), run)["control"]
    assert control["period"] == pytest.approx(0.04)
    # 0.3 in 80 ms: two steps of 40 ms.
    assert control["smoothing"] ** 2 == pytest.approx(0.3)


def test_smoothing_begins_with_the_first_action_whole(bundle):
    task = Task(bundle.manifest)
    first, memory = task.smooth(np.full(20, 0.8), task.no_actions())
    np.testing.assert_allclose(first, 0.8)
    second, _ = task.smooth(np.full(20, -0.2), memory)
    # (0.3 * 0.7 * 0.8 + 0.7 * -0.2) / (0.3 * 0.7 + 0.7)
    np.testing.assert_allclose(second, 0.028 / 0.91)


def test_coupled_joints_are_summed_and_targets_clipped(bundle):
    task = Task(bundle.manifest)
    names, actuators = bundle.joints, bundle.actuators
    angles = np.zeros(24)
    angles[names.index("rh_FFJ2")], angles[names.index("rh_FFJ1")] = 1.0, 0.4
    sums = task.actuator_angles(angles)
    assert sums[actuators.index("rh_FFJ0")] == pytest.approx(1.4)
    targets = task.targets(np.full(20, 1.0), angles)
    assert targets[actuators.index("rh_FFJ0")] == pytest.approx(
        1.4 + np.pi / 2, abs=1e-3
    )
    # A full action on the thumb's end: opens in the policy's model, whose sign is the
    # other, so the hand's angle falls, to its limit.
    assert targets[actuators.index("rh_THJ1")] == pytest.approx(0.0)
