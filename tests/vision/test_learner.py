"""Learning with every loss and normalization, and configurations that make no sense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex import rotations
from mjx_dex.vision.config import (
    AppearanceConfig,
    LearningConfig,
    NetConfig,
    RigConfig,
    StatesConfig,
    VisionConfig,
)
from mjx_dex.vision.learner import PoseTrainer, errors
from mjx_dex.vision.losses import Pose, Scales


@pytest.mark.parametrize(
    ("loss", "norm"),
    [("sign_invariant", "group"), ("rotation_6d", "none"), ("keypoints", "batch")],
)
def test_a_batch_is_learned_by_heart(loss, norm):
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.randint(keys[0], (4, 3, 32, 32, 3), 0, 256, jnp.uint8)
    truth = Pose(
        0.01 * jax.random.normal(keys[1], (4, 3)),
        jax.vmap(rotations.random)(jax.random.split(keys[2], 4)),
    )
    config = VisionConfig(
        rig=RigConfig(size=32),
        net=NetConfig(width=0.25, loss=loss, norm=norm),
        learning=LearningConfig(learning_rate=3e-3, half_life=1000, weight_decay=0.0),
        appearance=AppearanceConfig(off=("contrast", "pixel_noise")),
    )
    trainer = PoseTrainer(config)
    learner = trainer.init(jax.random.key(1), Scales.of(truth, 0.0285))
    losses = []
    for number in range(60):
        learner, metrics = trainer.step(learner, images, truth, jax.random.key(number))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0]
    assert int(learner.batches) == 60
    assert bool(learner.batch_statistics) == (norm == "batch")
    # Batch normalization is still about to learn what images are like.
    if norm != "batch":
        rotation, _ = errors(trainer.predict(learner, images), truth)
        assert np.mean(rotation) < 45


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (RigConfig, {"size": 0}, "size is 0; it must be"),
        (RigConfig, {"fovy": 0.0}, "fovy is 0.0; it must be"),
        (
            StatesConfig,
            {"as_is": 0.7, "quarter_turns": 0.4},
            r"as_is \(0.7\) and quarter_turns",
        ),
        (AppearanceConfig, {"num_lights": (4, 7)}, r"num_lights\[1\] is 7"),
        (AppearanceConfig, {"num_lights": (0, 2)}, r"num_lights\[0\] is 0"),
        (LearningConfig, {"half_life": 0}, "half_life is 0; it must be"),
        (
            LearningConfig,
            {"batch_size": 32, "pool": 16},
            r"pool \(16\) must hold a batch of 32",
        ),
    ],
)
def test_what_makes_no_sense_is_an_error(config, values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)
