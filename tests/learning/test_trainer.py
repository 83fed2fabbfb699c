import functools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec
from probes import Memory

from mjx_dex.config import NetworkConfig, PPOConfig
from mjx_dex.learning import AutoReset, Trainer, rollout
from mjx_dex.learning.agent import Agent

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


WORLDS = 8


def learn_on_devices(path):
    """Run in a process with four devices: its results are the tests below's."""
    one = trainer_on(1)
    learner = one.init(jax.random.key(0))
    learner, _ = one.iterate(learner)  # statistics that are not empty
    actors = jax.tree.map(lambda x: x[0], learner.actors)
    _, experience, _ = rollout.collect(
        one.vector_env, one.agent(learner), actors, num_chunks=3, chunk=4
    )
    learner, experience = jax.device_get((without_keys(learner), experience))
    results = {}
    for count in (1, 2, 4):
        trainer = trainer_on(count)
        learned, metrics = learn(trainer, learner, experience)
        results[f"parameters_{count}"] = ravel_pytree(learned.parameters)[0]
        results[f"shared_{count}"] = ravel_pytree(
            (learned.optimizer_state, learned.statistics, learned.learning_rate)
        )[0]
        results[f"metrics_{count}"] = ravel_pytree(metrics)[0]
        results[f"copies_{count}"] = copies(learned.parameters, count)
    results["before"] = ravel_pytree(learner.parameters)[0]
    two = trainer_on(2)
    learner, metrics = two.iterate(two.init(jax.random.key(0)))
    results["seen"] = learner.actors.observation.policy
    results["episodes"] = metrics["episodes"]
    np.savez(path, **results)


def trainer_on(count):
    # A minibatch is all there is: in what order it is cut does not matter.
    ppo = PPOConfig(
        horizon=12,
        chunk=4,
        minibatch_size=12 * WORLDS,
        minibatches=3,
        kl_target=0.01,
    )
    vector_env = AutoReset(Memory(), WORLDS // count)
    return Trainer(vector_env, NETWORK, ppo, devices=jax.devices()[:count])


def learn(trainer, learner, experience):
    """One optimization of ``learner`` on ``experience``, spread over the devices."""
    key, actors_key = jax.random.split(jax.random.key(1))
    learner = learner.replace(key=key, actors=trainer.init(actors_key).actors)
    spec = trainer._learner_spec()
    worlds = PartitionSpec(None, None, "devices"), PartitionSpec(None, "devices")
    experience_spec = rollout.Experience(worlds[0], worlds[1], worlds[1])
    on_all = trainer._on_all_devices(
        trainer._learn, (spec, experience_spec), (spec, PartitionSpec())
    )
    return jax.jit(on_all)(learner, experience)


def without_keys(learner):
    return learner.replace(key=None, actors=None)


def copies(tree, count):
    """[count, all parameters]: what each device holds."""
    shards = [[s.data for s in x.addressable_shards] for x in jax.tree.leaves(tree)]
    return np.stack(
        [np.concatenate([np.ravel(x[d]) for x in shards]) for d in range(count)]
    )


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    path = tmp_path_factory.mktemp("devices") / "results.npz"
    done = in_a_process_of_its_own(
        f"import test_trainer; test_trainer.learn_on_devices({str(path)!r})",
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
        JAX_PLATFORMS="cpu",
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as results:
        return dict(results)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("what", ["parameters", "shared", "metrics"])
def test_devices_learn_what_one_learns_from_the_same_batch(on_devices, what, count):
    one, many = on_devices[f"{what}_1"], on_devices[f"{what}_{count}"]
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-5)
    if what == "parameters":
        print(f"{count} devices: {np.abs(many - one).max():.1e} apart")
        assert np.abs(one - on_devices["before"]).max() > 5e-4


def test_devices_keep_the_same_parameters(on_devices):
    for count in (2, 4):
        copies = on_devices[f"copies_{count}"]
        assert len(copies) == count
        np.testing.assert_array_equal(copies, copies[:1].repeat(count, 0))


def test_devices_hold_different_environments(on_devices):
    first, second = on_devices["seen"]
    assert not np.array_equal(first, second)


def test_environment_metrics_are_summed_over_devices(on_devices):
    # Twelve steps are three whole episodes in every environment.
    assert on_devices["episodes"] == 3 * WORLDS


def test_the_readmes_example_runs():
    """As it is printed, but for one iteration in place of 100."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import jax\n.*?)```", readme, re.S)
    assert "range(100)" in example and "Trainer(AutoReset(my_env" in example
    names = {"my_env": Memory()}
    exec(example.replace("range(100)", "range(1)"), names)
    assert names["learner"].iteration == 1
    assert np.isfinite(names["metrics"]["kl"])


def test_a_minibatch_must_be_dealt_evenly_to_the_devices():
    ppo = PPOConfig(horizon=8, chunk=4, minibatch_size=12)
    with pytest.raises(ValueError, match=r"minibatch_size \(12\).* 8: .*2 devices"):
        Trainer(AutoReset(Memory(), 4), NETWORK, ppo, devices=jax.devices() * 2)


@pytest.mark.parametrize("precision", ["bfloat16", "tensorfloat32"])
def test_experience_is_replayed_in_the_precision_that_acted(precision):
    """Rates of 0 leave the policy as it acted: ratio 1, whatever was rounded."""
    network = NetworkConfig(hidden=8, memory=8, matmul_precision=precision)
    ppo = replace(PPO, learning_rate=0.0)
    coarse, exact = (
        Trainer(AutoReset(Memory(), ENVS), n, ppo)
        for n in (network, replace(network, matmul_precision="float32"))
    )
    learner = coarse.init(jax.random.key(0))
    # Far from initial, where rounding would change probabilities.
    parameters = jax.tree.map(
        lambda x: x + jax.random.normal(jax.random.key(1), x.shape), learner.parameters
    )
    actors = jax.tree.map(lambda x: x[0], learner.actors)
    agent = Agent(coarse._networks, parameters, learner.statistics)
    _, experience, _ = jax.jit(
        functools.partial(
            rollout.collect, coarse.vector_env, agent, num_chunks=2, chunk=6
        )
    )(actors)
    learner = learner.replace(parameters=parameters)
    kl = [
        float(replayed(trainer, learner, experience)["kl"])
        for trainer in (coarse, exact)
    ]
    assert kl[0] < 1e-9, kl
    assert kl[1] > 1e-8, kl


def replayed(trainer, learner, experience):
    """Metrics of learning from ``experience`` on one device."""
    spec = PartitionSpec()
    learn_here = trainer._on_all_devices(
        lambda *both: trainer._learn(*both)[1], (spec, spec), spec
    )
    return jax.jit(learn_here)(learner, experience)
