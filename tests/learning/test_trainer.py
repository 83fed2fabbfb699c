import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from probes import Memory

from mjx_dex.config import NetworkConfig, PPOConfig
from mjx_dex.learning import AutoReset, Trainer

NETWORK = NetworkConfig(hidden=8, memory=8)
# Episodes of four steps: chunks of six begin and end inside them.
PPO = PPOConfig(
    horizon=12, chunk=6, minibatch_size=36, minibatches=4, learning_rate=1e-2
)
ENVS = 6


def numbers(tree):
    """All leaves as NumPy arrays, random keys included."""

    def number(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(x) if is_key else x)

    return [number(x) for x in jax.tree.leaves(tree)]


class WeaklyTyped(Memory):
    """Its reset leaves a type to JAX, its step does not: common in environments."""

    def reset(self, key):
        state, observation = super().reset(key)
        sign = jnp.where(state.sign > 0, 1.0, -1.0)
        assert sign.weak_type
        return state.replace(sign=sign), observation

    def step(self, state, action):
        state, time_step = super().step(state, action)
        return state.replace(sign=state.sign.astype(jnp.float32)), time_step


@pytest.fixture(scope="module")
def trainer():
    return Trainer(AutoReset(WeaklyTyped(), ENVS), NETWORK, PPO)


def iterated(trainer, seed, iterations):
    learner = trainer.init(jax.random.key(seed))
    for _ in range(iterations):
        learner, metrics = trainer.iterate(learner)
    return learner, metrics


def test_the_same_key_gives_the_same_run(trainer):
    first, again = (numbers(iterated(trainer, seed=0, iterations=3)) for _ in "12")
    for x, y in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, y)


def test_another_key_gives_another_run(trainer):
    one, other = (
        ravel_pytree(iterated(trainer, seed, 1)[0].parameters)[0] for seed in (0, 1)
    )
    assert not np.allclose(one, other)


def test_every_iteration_learns_with_a_new_key(trainer):
    learner = trainer.init(jax.random.key(0))
    parameters, keys = [], []
    for iteration in range(3):
        assert learner.iteration == iteration
        parameters.append(np.array(ravel_pytree(learner.parameters)[0]))
        keys.append(numbers(learner.key)[0])
        learner, _ = trainer.iterate(learner)
    assert len(np.unique(parameters, axis=0)) == 3
    assert len(np.unique(keys, axis=0)) == 3


def test_only_the_first_iteration_compiles(trainer):
    iterated(trainer, seed=0, iterations=3)
    assert trainer._iterate._cache_size() == 1


def test_counts_steps(trainer):
    assert trainer.steps_per_iteration == ENVS * 12
    _, metrics = iterated(trainer, seed=0, iterations=2)
    # Each iteration of twelve steps has three whole episodes in every environment.
    assert metrics["episodes"] == 3 * ENVS


def test_experience_is_replayed_as_it_was_acted(trainer):
    learner, before = iterated(trainer, seed=0, iterations=4)
    assert before["kl"] > 1e-6  # with learning, the policy does move
    learner = learner.replace(learning_rate=0.0 * learner.learning_rate)
    _, metrics = trainer.iterate(learner)
    assert metrics["kl"] < 1e-9
    assert metrics["clip_fraction"] == 0
    # Ratios of 1 and standardized advantages.
    assert metrics["surrogate"] == pytest.approx(0.0, abs=1e-5)


def test_statistics_are_of_all_experience_so_far(trainer):
    learner, _ = iterated(trainer, seed=0, iterations=3)
    for statistics in learner.statistics.values():
        assert statistics.count == 3 * trainer.steps_per_iteration
    # In a quarter of all steps the cue, -1 or +1, is seen, otherwise 0.
    np.testing.assert_allclose(
        learner.statistics["policy"].variance
        + np.square(learner.statistics["policy"].mean),
        0.25,
        rtol=1e-5,
    )


def in_a_process_of_its_own(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_learning_needs_no_hand():
    done = in_a_process_of_its_own(
        "import sys, mjx_dex.learning\n"
        "hand = ('mujoco', 'mjx_dex.hand', 'mjx_dex.physics', 'mjx_dex.task')\n"
        "print([name for name in sys.modules if name.startswith(hand)])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def train_on_two_devices(path):
    """Run in a process with two devices: its results are the tests below's."""
    # One minibatch and no clipping: a step's gradient is of the whole iteration.
    ppo = PPOConfig(
        horizon=4,
        chunk=4,
        minibatch_size=4 * ENVS,
        minibatches=1,
        max_gradient_norm=None,
    )
    devices = jax.local_devices()
    assert len(devices) == 2
    vector_env = AutoReset(Memory(), ENVS)
    together = Trainer(vector_env, NETWORK, ppo)
    alone = Trainer(vector_env, NETWORK, ppo, devices=devices[:1])
    learner = together.init(jax.random.key(0))

    def half_of(learner, d):
        """What device ``d`` has, in buffers of its own: ``iterate`` takes them."""
        actors = jax.tree.map(lambda x: x[d : d + 1], learner.actors)
        half = jax.tree.map(jnp.copy, learner.replace(actors=actors))
        return jax.device_put(half, devices[0])

    def outcome(learner, metrics, name):
        states = learner.optimizer_state.values()
        moments = [optax.tree_utils.tree_get(state, "mu") for state in states]
        outcome = {
            "moments": ravel_pytree(moments)[0],
            "reward": metrics["reward"],
            "episodes": metrics["episodes"],
            "seen": learner.actors.observation.policy,
            "mean": learner.statistics["returns"].mean,
            "variance": learner.statistics["returns"].variance,
        }
        return {f"{key}_{name}": np.array(x) for key, x in outcome.items()}

    def copy_on(device, *trees):
        shards = [x.addressable_shards[device].data for x in jax.tree.leaves(trees)]
        return np.concatenate([np.ravel(x) for x in shards])

    results = {
        "steps": together.steps_per_iteration,
        "before": copy_on(0, learner.parameters),
    }
    for d in range(2):
        results |= outcome(*alone.iterate(half_of(learner, d)), d)
    learner, metrics = together.iterate(learner)
    results |= outcome(learner, metrics, "both")
    for _ in range(3):
        learner, _ = together.iterate(learner)
    for d in range(2):
        results[f"learned_{d}"] = copy_on(d, learner.parameters)
        results[f"shared_{d}"] = copy_on(
            d, learner.optimizer_state, learner.statistics, learner.learning_rate
        )
    np.savez(path, **results)


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    path = tmp_path_factory.mktemp("two_devices") / "results.npz"
    done = in_a_process_of_its_own(
        f"import test_trainer; test_trainer.train_on_two_devices({str(path)!r})",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
        JAX_PLATFORMS="cpu",
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as results:
        return dict(results)


def test_devices_hold_different_environments(two_devices):
    assert two_devices["steps"] == 2 * ENVS * 4
    assert not np.array_equal(two_devices["seen_0"], two_devices["seen_1"])


def test_devices_keep_the_same_parameters(two_devices):
    for name in ("learned", "shared"):
        np.testing.assert_array_equal(
            two_devices[f"{name}_0"], two_devices[f"{name}_1"]
        )
    assert np.abs(two_devices["learned_0"] - two_devices["before"]).max() > 1e-4


def test_gradients_are_averaged_over_devices(two_devices):
    # After one step from zero, Adam's first moment is a tenth of the gradient.
    alone = two_devices["moments_0"], two_devices["moments_1"]
    assert not np.allclose(*alone, atol=1e-4)
    np.testing.assert_allclose(
        two_devices["moments_both"], np.mean(alone, axis=0), rtol=1e-4, atol=1e-6
    )


def test_environment_metrics_are_summed_over_devices(two_devices):
    for name in ("reward", "episodes"):
        np.testing.assert_allclose(
            two_devices[f"{name}_both"],
            two_devices[f"{name}_0"] + two_devices[f"{name}_1"],
        )
    assert two_devices["episodes_both"] == 2 * ENVS


def test_statistics_are_pooled_over_devices(two_devices):
    means = np.array([two_devices[f"mean_{d}"] for d in range(2)])
    variances = np.array([two_devices[f"variance_{d}"] for d in range(2)])
    np.testing.assert_allclose(two_devices["mean_both"], means.mean(), atol=1e-6)
    np.testing.assert_allclose(
        two_devices["variance_both"], variances.mean() + means.var(), rtol=1e-5
    )
