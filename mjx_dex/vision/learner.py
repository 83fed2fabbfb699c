"""Learning a pose net: one gradient step, and what the net says of new images."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mjx_dex.vision import appearance
from mjx_dex.vision.config import VisionConfig
from mjx_dex.vision.losses import LOSSES, Pose, Scales, rotation_error
from mjx_dex.vision.network import PoseNet, standardize


@struct.dataclass
class PoseLearner:
    """All that training carries from batch to batch; the checkpoint unit."""

    parameters: Any
    batch_statistics: Any
    """Of batch normalization; empty without."""
    optimizer_state: Any
    scales: Scales
    batches: jax.Array
    """[] learned from so far."""


class PoseTrainer:
    """Trains the net of a configuration."""

    def __init__(self, config: VisionConfig):
        self._config = config
        self.loss = LOSSES[config.net.loss]
        self._net = PoseNet(config.net, self.loss.outputs)
        learning = config.learning
        schedule = optax.exponential_decay(
            learning.learning_rate, learning.half_life, 0.5, staircase=True
        )
        self._optimizer = optax.chain(
            # Before Adam, as the gradient of an L2 penalty: see LearningConfig.
            optax.add_decayed_weights(learning.weight_decay, mask=_is_kernel),
            optax.adam(schedule),
        )

    def init(self, key: jax.Array, scales: Scales) -> PoseLearner:
        """A learner before its first batch.

        Raises:
            ValueError: if images are too small for the net's strides.
        """
        size = self._config.rig.size
        images = jnp.zeros((1, 3, size, size, 3))
        variables = jax.jit(self._net.init)(key, images)
        parameters = variables["params"]
        return PoseLearner(
            parameters=parameters,
            batch_statistics=variables.get("batch_stats", {}),
            optimizer_state=self._optimizer.init(parameters),
            scales=scales,
            batches=jnp.zeros((), jnp.int32),
        )

    @partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(
        self, learner: PoseLearner, images: jax.Array, truth: Pose, key: jax.Array
    ) -> tuple[PoseLearner, dict[str, jax.Array]]:
        """Learn from one batch.

        Args:
            learner: given away.
            images: [n, cameras, H, W, 3] uint8.
            truth: [n, ...] what they show.
            key: of contrast and noise.

        Returns:
            The learner and metrics: loss, mean errors, norm of the gradient.
        """
        looks = self._config.appearance
        images = _augment(key, standardize(images), looks)

        def loss_of(parameters):
            variables = {
                "params": parameters,
                "batch_stats": learner.batch_statistics,
            }
            outputs, changed = self._net.apply(
                variables, images, training=True, mutable=["batch_stats"]
            )
            errors = jax.vmap(self.loss.error, (0, 0, None))(
                outputs, truth, learner.scales
            )
            return errors.mean(), (outputs, changed.get("batch_stats", {}))

        (loss, (outputs, statistics)), gradient = jax.value_and_grad(
            loss_of, has_aux=True
        )(learner.parameters)
        updates, optimizer_state = self._optimizer.update(
            gradient, learner.optimizer_state, learner.parameters
        )
        rotation, position = errors(self._decode(outputs, learner.scales), truth)
        metrics = {
            "loss": loss,
            "rotation_degrees": rotation.mean(),
            "position_mm": position.mean(),
            "gradient_norm": optax.tree.norm(gradient),
        }
        learner = learner.replace(
            parameters=optax.apply_updates(learner.parameters, updates),
            batch_statistics=statistics,
            optimizer_state=optimizer_state,
            batches=learner.batches + 1,
        )
        return learner, metrics

    @partial(jax.jit, static_argnums=0)
    def predict(self, learner: PoseLearner, images: jax.Array) -> Pose:
        """[n, ...] poses that uint8 images [n, cameras, H, W, 3] show."""
        variables = {
            "params": learner.parameters,
            "batch_stats": learner.batch_statistics,
        }
        outputs = self._net.apply(variables, standardize(images))
        return self._decode(outputs, learner.scales)

    def _decode(self, outputs: jax.Array, scales: Scales) -> Pose:
        return jax.vmap(self.loss.decode, (0, None))(outputs, scales)


def errors(found: Pose, truth: Pose) -> tuple[jax.Array, jax.Array]:
    """[n] rotation error [deg] and [n] position error [mm]."""
    rotation = jax.vmap(rotation_error)(found.quaternion, truth.quaternion)
    position = 1000 * jnp.linalg.norm(found.position - truth.position, axis=-1)
    return rotation, position


def _augment(key: jax.Array, images: jax.Array, looks) -> jax.Array:
    """Contrast and noise of Table 9, image by image."""
    contrast, noise = jax.random.split(key)
    flat = images.reshape(-1, *images.shape[2:])
    if "contrast" not in looks.off:
        flat = appearance.contrast(contrast, flat, looks.contrast)
    if "pixel_noise" not in looks.off:
        flat = appearance.pixel_noise(noise, flat, looks.pixel_noise)
    return flat.reshape(images.shape)


def _is_kernel(parameters) -> Any:
    """Which parameters decay: kernels; neither biases nor scales of normalization."""
    return jax.tree.map(lambda x: x.ndim > 1, parameters)
