"""Quaternions against SciPy's rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from mjx_dex import rotations

N = 200


def to_scipy(q) -> Rotation:
    return Rotation.from_quat(np.asarray(q), scalar_first=True)


def same_turn(q, expected: Rotation, atol=2e-6):
    np.testing.assert_allclose(
        to_scipy(q).as_matrix(), expected.as_matrix(), rtol=0, atol=atol
    )


def random_quaternions(seed: int) -> jax.Array:
    quaternions = np.random.default_rng(seed).normal(size=(N, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    return jnp.asarray(quaternions, jnp.float32)


def random_vectors(seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(N, 3)), jnp.float32)


def test_multiply_turns_by_the_second_first():
    p, q = random_quaternions(0), random_quaternions(1)
    same_turn(jax.vmap(rotations.multiply)(p, q), to_scipy(p) * to_scipy(q))


def test_multiply_is_hamiltons_product_with_its_sign():
    i, j, k = np.eye(4, dtype=np.float32)[1:]
    np.testing.assert_array_equal(rotations.multiply(i, j), k)
    np.testing.assert_array_equal(rotations.multiply(j, i), -k)
    np.testing.assert_array_equal(rotations.multiply(k, k), [-1, 0, 0, 0])


def test_conjugate_turns_back():
    q = random_quaternions(2)
    same_turn(jax.vmap(rotations.conjugate)(q), to_scipy(q).inv())


def test_positive_flips_only_negative_w():
    q = random_quaternions(3)
    assert 0 < (q[:, 0] < 0).sum() < N
    expected = np.where(np.asarray(q[:, :1]) < 0, -q, q)
    np.testing.assert_array_equal(jax.vmap(rotations.positive)(q), expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_normalize_keeps_the_direction(scale):
    q = random_quaternions(4)
    normalized = jax.vmap(rotations.normalize)(q * scale)
    np.testing.assert_allclose(normalized, q, atol=1e-6)


def test_normalize_makes_zero_the_identity():
    np.testing.assert_array_equal(rotations.normalize(jnp.zeros(4)), [1, 0, 0, 0])


def test_rotate_turns_vectors():
    q, v = random_quaternions(5), random_vectors(6)
    turned = jax.vmap(rotations.rotate)(q, v)
    np.testing.assert_allclose(turned, to_scipy(q).apply(v), atol=5e-6)


def test_angle_is_the_turn():
    q = random_quaternions(7)
    turns = jax.vmap(rotations.angle)(q)
    np.testing.assert_allclose(turns, to_scipy(q).magnitude(), atol=2e-6)


def test_angle_ignores_the_quaternions_sign():
    q = random_quaternions(8)
    np.testing.assert_array_equal(
        jax.vmap(rotations.angle)(q), jax.vmap(rotations.angle)(-q)
    )


@pytest.mark.parametrize("turn", [0.0, 1e-6, 1e-4, 1e-2])
def test_angle_is_precise_near_no_turn(turn):
    q = Rotation.from_rotvec([0.0, turn, 0.0]).as_quat(scalar_first=True)
    angle = rotations.angle(jnp.asarray(q, jnp.float32))
    np.testing.assert_allclose(angle, turn, rtol=1e-5, atol=0)


@pytest.mark.parametrize("short_of_pi", [0.0, 1e-4, -1e-4, -1e-2])
def test_angle_is_precise_near_half_a_turn(short_of_pi):
    turn = np.pi - short_of_pi
    q = Rotation.from_rotvec([0.0, 0.0, turn]).as_quat(scalar_first=True)
    angle = rotations.angle(jnp.asarray(q, jnp.float32))
    np.testing.assert_allclose(angle, np.pi - abs(short_of_pi), atol=1e-6)


@pytest.mark.parametrize("turn", [-2.0, -1e-5, 0.0, 1e-5, 1.0, np.pi, 4.0])
def test_from_axis_angle(turn):
    axes = np.array(random_vectors(9))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    q = jax.vmap(rotations.from_axis_angle, (0, None))(axes, jnp.asarray(turn))
    same_turn(q, Rotation.from_rotvec(axes * turn))


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e-3, 1.0, 3.0])
def test_from_rotation_vector(scale):
    vectors = random_vectors(10) * scale
    q = jax.vmap(rotations.from_rotation_vector)(vectors)
    expected = Rotation.from_rotvec(np.asarray(vectors, np.float64))
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=1), 1, atol=1e-6)
    # Small turns are all in the vector part, which a matrix would round away.
    turns = np.asarray((to_scipy(q) * expected.inv()).magnitude())
    assert turns.max() < 2e-6 * max(1.0, scale)
    small = np.asarray(vectors) / 2
    if scale <= 1e-6:
        np.testing.assert_allclose(q[:, 1:], small, rtol=1e-5, atol=0)


def test_no_rotation_vector_is_the_identity():
    q = rotations.from_rotation_vector(jnp.zeros(3))
    np.testing.assert_array_equal(q, [1, 0, 0, 0])


@pytest.mark.parametrize("turn", [np.pi - 1e-4, np.pi, np.pi + 1e-4, 2 * np.pi - 0.1])
def test_from_rotation_vector_near_half_a_turn_and_beyond(turn):
    vector = turn * np.array([0.6, 0.0, -0.8])
    q = rotations.from_rotation_vector(jnp.asarray(vector, jnp.float32))
    same_turn(q, Rotation.from_rotvec(vector))


def test_random_is_uniform_over_rotations():
    q = jax.vmap(rotations.random)(jax.random.split(jax.random.key(0), 5000))
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=1), 1, atol=1e-6)
    # A uniform unit quaternion is a uniform point of the 3-sphere, each coordinate of
    # which has the distribution of 2 b - 1 with b from Beta(3/2, 3/2).
    for coordinate in np.asarray(q).T:
        beta = (coordinate + 1) / 2
        assert stats.kstest(beta, stats.beta(1.5, 1.5).cdf).pvalue > 1e-3
    correlations = np.corrcoef(np.asarray(q).T) - np.eye(4)
    assert np.abs(correlations).max() < 5 / np.sqrt(5000)


def test_random_axis_is_uniform_over_the_sphere():
    axes = jax.vmap(rotations.random_axis)(jax.random.split(jax.random.key(1), 5000))
    np.testing.assert_allclose(jnp.linalg.norm(axes, axis=1), 1, atol=1e-6)
    # Archimedes: every coordinate of a point on the sphere is uniform.
    for coordinate in np.asarray(axes).T:
        assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 1e-3
