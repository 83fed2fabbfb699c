"""What the net's outputs mean, and how far they are off: one representation per loss.

The paper minimizes the squared error "between the normalized prediction and the ground
truth"; of what is normalized it says no more. Here positions have zero mean and unit
variance; quaternions, whose real part is positive and may hardly vary, share one scale.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_dex import rotations

CORNERS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3, indexing="ij"), -1).reshape(8, 3)
"""Of a cube of half size 1."""


@struct.dataclass
class Pose:
    """Of the object, as ``Sensors`` has it."""

    position: jax.Array
    """[..., 3] [m]."""
    quaternion: jax.Array
    """[..., 4] unit."""


@struct.dataclass
class Scales:
    """Statistics of the training states, part of a checkpoint."""

    position_mean: jax.Array
    """[3] [m]."""
    position_deviation: jax.Array
    """[3] [m]."""
    quaternion_mean: jax.Array
    """[4] of quaternions with a positive real part."""
    quaternion_deviation: jax.Array
    """[] of all components together."""
    half_size: jax.Array
    """[] of the object [m]."""

    @classmethod
    def of(cls, poses: Pose, half_size: float) -> "Scales":
        """Of poses [n, ...]."""
        quaternions = jax.vmap(rotations.positive)(poses.quaternion)
        mean = quaternions.mean(0)
        return cls(
            position_mean=poses.position.mean(0),
            position_deviation=poses.position.std(0) + 1e-6,
            quaternion_mean=mean,
            quaternion_deviation=jnp.sqrt(((quaternions - mean) ** 2).mean()) + 1e-6,
            half_size=jnp.asarray(half_size),
        )


class Loss(NamedTuple):
    """For one scene."""

    outputs: int
    """Of the net."""
    error: Callable[[jax.Array, Pose, Scales], jax.Array]
    """(outputs, truth, scales) -> []."""
    decode: Callable[[jax.Array, Scales], Pose]
    """(outputs, scales) -> the pose that they stand for."""


def rotation_error(first: jax.Array, second: jax.Array) -> jax.Array:
    """[] angle between two unit quaternions [deg]."""
    return jnp.rad2deg(
        rotations.angle(rotations.multiply(first, rotations.conjugate(second)))
    )


def _position_error(outputs, truth: Pose, scales: Scales):
    return (outputs - _scaled_position(truth, scales)) ** 2


def _scaled_position(pose: Pose, scales: Scales):
    return (pose.position - scales.position_mean) / scales.position_deviation


def _scaled_quaternion(quaternion, scales: Scales):
    return (quaternion - scales.quaternion_mean) / scales.quaternion_deviation


def _position_of(outputs, scales: Scales):
    return scales.position_mean + scales.position_deviation * outputs


def _decode_quaternion(outputs, scales: Scales) -> Pose:
    quaternion = scales.quaternion_mean + scales.quaternion_deviation * outputs[3:]
    return Pose(_position_of(outputs[:3], scales), rotations.normalize(quaternion))


def _mse(outputs, truth: Pose, scales: Scales):
    quaternion = rotations.positive(truth.quaternion)
    rotation = (outputs[3:] - _scaled_quaternion(quaternion, scales)) ** 2
    return jnp.concatenate(
        [_position_error(outputs[:3], truth, scales), rotation]
    ).mean()


def _sign_invariant(outputs, truth: Pose, scales: Scales):
    rotation = jnp.stack(
        [
            (
                (outputs[3:] - _scaled_quaternion(sign * truth.quaternion, scales)) ** 2
            ).sum()
            for sign in (1.0, -1.0)
        ]
    ).min()
    return (_position_error(outputs[:3], truth, scales).sum() + rotation) / 7


def _rotation_6d(outputs, truth: Pose, scales: Scales):
    """Zhou et al. 2019: two columns of a matrix, which then are made orthogonal."""
    truth_matrix = rotations.to_matrix(truth.quaternion)
    rotation = (_matrix_of(outputs[3:], scales) - truth_matrix) / _entry_scale(scales)
    position = _position_error(outputs[:3], truth, scales).sum()
    return (position + (rotation**2).sum()) / 12


def _entry_scale(scales: Scales):
    """Of a matrix's entries: near the identity they are twice a quaternion's."""
    return 2 * scales.quaternion_deviation


def _decode_6d(outputs, scales: Scales) -> Pose:
    matrix = _matrix_of(outputs[3:], scales)
    return Pose(_position_of(outputs[:3], scales), rotations.from_matrix(matrix))


def _matrix_of(six: jax.Array, scales: Scales) -> jax.Array:
    """From six outputs, which are 0 for the mean orientation."""
    mean = rotations.to_matrix(rotations.normalize(scales.quaternion_mean))
    six = mean[:, :2].T.reshape(6) + _entry_scale(scales) * six
    x = six[:3] / (jnp.linalg.norm(six[:3]) + 1e-8)
    y = six[3:] - x * (x @ six[3:])
    y = y / (jnp.linalg.norm(y) + 1e-8)
    return jnp.stack([x, y, jnp.cross(x, y)], axis=1)


def _keypoints(outputs, truth: Pose, scales: Scales):
    """Corners of the object's box, in units of its half size."""
    corners = CORNERS @ rotations.to_matrix(truth.quaternion).T
    offset = (truth.position - scales.position_mean) / scales.half_size
    return ((outputs.reshape(8, 3) - corners - offset) ** 2).mean()


def _decode_keypoints(outputs, scales: Scales) -> Pose:
    """Procrustes: the rotation that takes the corners nearest to the outputs."""
    corners = outputs.reshape(8, 3)
    middle = corners.mean(0)
    u, _, vt = jnp.linalg.svd(CORNERS.T @ (corners - middle))
    flip = jnp.array([1.0, 1.0, jnp.sign(jnp.linalg.det(u @ vt))])
    matrix = (u * flip @ vt).T
    position = scales.position_mean + scales.half_size * middle
    return Pose(position, rotations.from_matrix(matrix))


LOSSES = {
    "mse": Loss(7, _mse, _decode_quaternion),
    "sign_invariant": Loss(7, _sign_invariant, _decode_quaternion),
    "rotation_6d": Loss(9, _rotation_6d, _decode_6d),
    "keypoints": Loss(24, _keypoints, _decode_keypoints),
}
