"""A pose net as a run left it, for other commands."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex import settings
from mjx_dex.checkpoints import CheckpointFolder
from mjx_dex.vision.config import VisionConfig
from mjx_dex.vision.learner import PoseLearner, PoseTrainer
from mjx_dex.vision.losses import Pose, Scales
from mjx_dex.vision.train import restore


@dataclass(frozen=True)
class Net:
    """Says what pose three images show."""

    config: VisionConfig
    trainer: PoseTrainer
    learner: PoseLearner

    @property
    def batches(self) -> int:
        """That it learned from."""
        return int(self.learner.batches)

    def predict(self, images: np.ndarray | jax.Array) -> Pose:
        """[n, ...] poses of images [n, cameras, H, W, 3] uint8.

        Raises:
            ValueError: if they are of another size than the net's.
        """
        size, found = self.config.rig.size, images.shape[2:4]
        if found != (size, size):
            raise ValueError(
                f"the net was trained on images of {size} x {size} pixels; these have "
                f"{found[0]} x {found[1]}"
            )
        return self.trainer.predict(self.learner, jnp.asarray(images))


def load(run: Path) -> Net:
    """The net of a run's latest checkpoint.

    Raises:
        ValueError: if there is no run in that folder.
        CheckpointError: if it has no checkpoint that can be read.
    """
    path = run / "config.yaml"
    if not path.exists():
        raise ValueError(f"there is no run in {run} (it would hold a config.yaml)")
    config = settings.load(path, VisionConfig)
    # 16 bits speed up training on a GPU; weights have 32, and a CPU emulates the rest.
    net = dataclasses.replace(config.net, precision="float32")
    trainer = PoseTrainer(dataclasses.replace(config, net=net))
    some = Scales(jnp.zeros(3), jnp.ones(3), jnp.zeros(4), jnp.ones(()), jnp.ones(()))
    like = jax.eval_shape(lambda key: trainer.init(key, some), jax.random.key(0))
    checkpoints = CheckpointFolder(run / "checkpoints")
    learner = restore(checkpoints, like)
    checkpoints.close()
    return Net(config, trainer, learner)
