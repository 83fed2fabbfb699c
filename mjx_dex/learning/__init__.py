"""Recurrent PPO in JAX, for any environment that is a pair of pure functions.

Nothing here knows about hands. To train on an environment of your own, give it
``reset``, ``step`` and ``action_shape`` (see ``vector.Environment``), wrap it in
``AutoReset``, and iterate::

    trainer = Trainer(AutoReset(my_env, num_envs=64), NetworkConfig(), PPOConfig())
    learner = trainer.init(jax.random.key(0))
    for _ in range(100):
        learner, metrics = trainer.iterate(learner)

Rewards and observations that are infinite or NaN end training with ``NonFiniteError``,
which holds the learner as it was, or are skipped: ``PPOConfig.nonfinite``.
"""

from mjx_dex.learning.trainer import Learner, NonFiniteError, Trainer
from mjx_dex.learning.vector import AutoReset, Environment, VectorEnvironment

__all__ = [
    "AutoReset",
    "Environment",
    "Learner",
    "NonFiniteError",
    "Trainer",
    "VectorEnvironment",
]
