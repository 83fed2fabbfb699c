"""Fixtures that compile once for a whole session."""

import jax
import numpy as np
import pytest

from mjx_dex import runs, settings, train
from mjx_dex.config import Config, replace
from mjx_dex.hand import Hand, build_hand
from mjx_dex.task import HandEnv, make_env
from robot_bridge import bundle as bundles
from robot_bridge import export


@pytest.fixture(scope="session")
def config(request) -> Config:
    """Small enough for a test, the paper's task otherwise."""
    return replace(
        Config(),
        **{
            "engine": request.config.getoption("--engine"),
            "num_envs": 4,
            "randomization.preset": "none",
            "bank.size": 4,
            "bank.starting": 2,
            "task.start_steps": 3,
            "physics.max_contacts": 24,
            "physics.max_constraints": 300,
            "network.hidden": 16,
            "network.memory": 8,
            "ppo.horizon": 4,
            "ppo.chunk": 2,
            "ppo.minibatch_size": 4,
            "ppo.minibatches": 4,
        },
    )


@pytest.fixture(scope="session")
def hand(config) -> Hand:
    return build_hand(config.hand, config.object, config.physics)


@pytest.fixture(scope="session")
def env(config) -> HandEnv:
    return make_env(config)


@pytest.fixture(scope="session")
def env_step(env):
    """``env.step``, compiled."""
    return jax.jit(env.step)


@pytest.fixture(scope="session")
def started(env):
    """A state just after reset."""
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    return state


@pytest.fixture(scope="session")
def run_config(config):
    """Small, with goals and drops as on the hand."""
    return replace(config, **{"task.goal.distribution": "near"})


@pytest.fixture(scope="session")
def run(run_config, tmp_path_factory):
    """A run's folder, of a policy as it was before training."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    settings.save(run_config, config)
    arguments = ["--config", str(config), "--run-dir", str(folder)]
    assert train.main([*arguments, "--max-env-steps", "32"]) == 0
    return folder


@pytest.fixture(scope="session")
def bundle_path(run, tmp_path_factory):
    """Exported by the command."""
    out = tmp_path_factory.mktemp("bundles") / "tiny.dex"
    assert export.main([str(run), str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def bundle(bundle_path):
    return bundles.load(bundle_path)


@pytest.fixture(scope="session")
def agent(run):
    """The run's networks in JAX."""
    return runs.load_policy(run, runs.load_config(run)).agent


@pytest.fixture(scope="session")
def careful_path(run, run_config, tmp_path_factory):
    """A bundle whose policy hardly moves: it keeps the object for as long as a test.

    Its actions are drawn from the three middle bins around the middles of all ranges.
    """
    careful = tmp_path_factory.mktemp("runs") / "careful"
    config = tmp_path_factory.mktemp("configs") / "careful.yaml"
    settings.save(replace(run_config, **{"task.action_targets": "absolute"}), config)
    arguments = ["--config", str(config), "--run-dir", str(careful)]
    assert train.main([*arguments, "--max-env-steps", "32"]) == 0
    out = tmp_path_factory.mktemp("bundles") / "careful.dex"
    original = export.weights_of, export.golden_of
    bias = np.where(np.abs(np.arange(11) - 5) <= 1, 0.0, -50.0)

    def still(agent):
        parameters = jax.tree.map(lambda x: x, agent.parameters)
        head = parameters["policy"]["params"]["head"]
        head["kernel"] = 0.0 * head["kernel"]
        head["bias"] = np.tile(bias, 20).astype(np.float32)
        return type(agent)(agent.networks, parameters, agent.statistics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "weights_of", lambda agent: original[0](still(agent)))
        patch.setattr(export, "golden_of", lambda agent: original[1](still(agent)))
        assert export.main([str(careful), str(out)]) == 0
    return out
