"""The accelerator presets run on the accelerator engines, at a size for a CPU."""

import jax
import numpy as np
import pytest

from mjx_dex import settings
from mjx_dex.config import replace
from mjx_dex.task import with_buffers
from mjx_dex.train import make_trainer

REDUCED = {
    "num_envs": 4,
    "bank.size": 2,
    "bank.starting": 2,
    "task.start_steps": 2,
    "ppo.minibatch_size": 40,
    "ppo.minibatches": 2,
}


@pytest.mark.parametrize("preset, engine", [("paper", "mjx"), ("single_gpu", "warp")])
def test_preset_trains(preset, engine):
    """Each preset and each engine once: one compiles for a minute and a half."""
    config = with_buffers(replace(settings.load(preset), engine=engine, **REDUCED))
    trainer = make_trainer(config)
    learner = trainer.init(jax.random.key(0))
    before = jax.tree.map(np.asarray, learner.parameters)
    learner, metrics = trainer.iterate(learner)
    assert float(metrics["lost_contacts"]) == 0
    assert float(metrics["broken_worlds"]) == 0
    assert all(np.isfinite(float(value)) for value in metrics.values())
    changed = jax.tree.map(lambda x, y: np.abs(x - y).max(), before, learner.parameters)
    assert max(jax.tree.leaves(changed)) > 0
