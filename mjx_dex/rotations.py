"""Unit quaternions (w, x, y, z), each function for one of them."""

import jax
import jax.numpy as jnp

IDENTITY = (1.0, 0.0, 0.0, 0.0)


def multiply(p: jax.Array, q: jax.Array) -> jax.Array:
    """The Hamilton product ``p q``: first turn by q, then by p."""
    pw, pv, qw, qv = p[0], p[1:], q[0], q[1:]
    vector = pw * qv + qw * pv + jnp.cross(pv, qv)
    return jnp.concatenate([(pw * qw - pv @ qv)[None], vector])


def conjugate(q: jax.Array) -> jax.Array:
    """The inverse of a unit quaternion."""
    return jnp.concatenate([q[:1], -q[1:]])


def positive(q: jax.Array) -> jax.Array:
    """Whichever of q and -q, which are the same rotation, has w >= 0."""
    return jnp.where(q[0] < 0, -q, q)


def normalize(q: jax.Array) -> jax.Array:
    """Scale ``q`` to unit length; the zero quaternion becomes the identity."""
    norm = jnp.linalg.norm(q)
    return jnp.where(norm > 1e-9, q / jnp.maximum(norm, 1e-9), jnp.array(IDENTITY))


def rotate(q: jax.Array, vector: jax.Array) -> jax.Array:
    """Turn a [3] vector by ``q``."""
    t = 2 * jnp.cross(q[1:], vector)
    return vector + q[0] * t + jnp.cross(q[1:], t)


def to_matrix(q: jax.Array) -> jax.Array:
    """[3, 3] matrix that turns as ``q`` does; its columns are the turned axes."""
    return jax.vmap(rotate, (None, 0), 1)(q, jnp.eye(3))


def angle(q: jax.Array) -> jax.Array:
    """The turn that ``q`` makes [rad], in [0, pi]."""
    # atan2 keeps its precision where arccos(w) loses it: near no turn at all.
    return 2 * jnp.arctan2(jnp.linalg.norm(q[1:]), jnp.abs(q[0]))


def from_axis_angle(axis: jax.Array, turn: jax.Array) -> jax.Array:
    """A turn [rad] about a unit axis [3]."""
    return jnp.concatenate([jnp.cos(turn / 2)[None], jnp.sin(turn / 2) * axis])


def from_rotation_vector(vector: jax.Array) -> jax.Array:
    """A turn by ``|vector|`` [rad] about ``vector`` [3]."""
    half = jnp.linalg.norm(vector) / 2
    # sinc(x) = sin(pi x) / (pi x) is smooth at 0, where the axis is undefined.
    scale = jnp.sinc(half / jnp.pi) / 2
    return jnp.concatenate([jnp.cos(half)[None], scale * vector])


def random(key: jax.Array) -> jax.Array:
    """Draw uniformly from all rotations."""
    return normalize(jax.random.normal(key, (4,)))


def random_axis(key: jax.Array) -> jax.Array:
    """Draw a unit [3] vector uniformly from the sphere."""
    vector = jax.random.normal(key, (3,))
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-9)


def from_matrix(matrix: jax.Array) -> jax.Array:
    """The unit quaternion of a rotation matrix [3, 3].

    Of the four ways to write it the one that divides by the largest number.
    """
    m = matrix
    trace = jnp.trace(m)
    ways = jnp.array(
        [
            [1 + trace, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [
                m[2, 1] - m[1, 2],
                1 + 2 * m[0, 0] - trace,
                m[0, 1] + m[1, 0],
                m[0, 2] + m[2, 0],
            ],
            [
                m[0, 2] - m[2, 0],
                m[0, 1] + m[1, 0],
                1 + 2 * m[1, 1] - trace,
                m[1, 2] + m[2, 1],
            ],
            [
                m[1, 0] - m[0, 1],
                m[0, 2] + m[2, 0],
                m[1, 2] + m[2, 1],
                1 + 2 * m[2, 2] - trace,
            ],
        ]
    )
    return normalize(ways[jnp.argmax(jnp.diagonal(ways))])
