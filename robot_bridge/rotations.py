"""Unit quaternions (w, x, y, z) in NumPy, with the names of ``mjx_dex.rotations``."""

from __future__ import annotations

import numpy as np


def multiply(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The Hamilton product ``p q``: first turn by q, then by p."""
    pw, pv, qw, qv = p[0], p[1:], q[0], q[1:]
    vector = pw * qv + qw * pv + np.cross(pv, qv)
    return np.concatenate([[pw * qw - pv @ qv], vector])


def conjugate(q: np.ndarray) -> np.ndarray:
    """The inverse of a unit quaternion."""
    return np.concatenate([q[:1], -q[1:]])


def positive(q: np.ndarray) -> np.ndarray:
    """Whichever of q and -q, which are the same rotation, has w >= 0."""
    return -q if q[0] < 0 else q


def normalize(q: np.ndarray) -> np.ndarray:
    """Scale ``q``, which is not 0, to unit length."""
    return q / np.linalg.norm(q)


def angle(q: np.ndarray) -> float:
    """The turn that ``q`` makes [rad], in [0, pi]."""
    return float(2 * np.arctan2(np.linalg.norm(q[1:]), abs(q[0])))


def from_axis_angle(axis: np.ndarray, turn: float) -> np.ndarray:
    """A turn [rad] about a unit axis [3]."""
    return np.concatenate([[np.cos(turn / 2)], np.sin(turn / 2) * np.asarray(axis)])


def to_matrix(q: np.ndarray) -> np.ndarray:
    """[3, 3] matrix that turns as the unit quaternion ``q`` does."""
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def from_matrix(m: np.ndarray) -> np.ndarray:
    """The unit quaternion of a rotation matrix [3, 3], with w >= 0.

    Its outer product with itself is linear in the matrix; the largest column of it is
    the quaternion, times what is not near 0.
    """
    trace = np.trace(m)
    products = np.empty((4, 4))
    products[0, 0] = 1 + trace
    products[1:, 1:] = m + m.T + (1 - trace) * np.eye(3)
    skew = [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]
    products[0, 1:] = products[1:, 0] = skew
    return positive(normalize(products[:, np.argmax(np.diagonal(products))]))


def random(generator: np.random.Generator) -> np.ndarray:
    """Draw uniformly from all rotations."""
    return normalize(generator.standard_normal(4))


def random_axis(generator: np.random.Generator) -> np.ndarray:
    """Draw a unit [3] vector uniformly from the sphere."""
    return normalize(generator.standard_normal(3))
