"""Our gradient of a convolution against XLA's and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mjx_dex.vision.convolution import convolve


def xlas(images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.fixture(params=[(1, 3), (3, 3), (5, 2)], ids=["1x1", "3x3", "5x5"])
def arguments(request):
    size, channels = request.param
    images, kernel = jax.random.split(jax.random.key(0))
    return (
        jax.random.normal(images, (4, 9, 11, channels)),
        jax.random.normal(kernel, (size, size, channels, 6)),
    )


def test_the_gradient_is_xlas(arguments):
    def gradients(function):
        outputs, pull_back = jax.vjp(function, *arguments)
        weights = jax.random.normal(jax.random.key(1), outputs.shape)
        return outputs, *pull_back(weights)

    ours, theirs = (jax.jit(gradients, static_argnums=0)(f) for f in (convolve, xlas))
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_the_gradient_is_that_of_finite_differences():
    images = jax.random.normal(jax.random.key(0), (2, 6, 5, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
    check_grads(convolve, (images, kernel), order=1, modes=["rev"], rtol=1e-2)


def test_the_gradient_has_the_kernels_precision(arguments):
    images, kernel = (x.astype(jnp.bfloat16) for x in arguments)
    gradient = jax.grad(lambda k: convolve(images, k).astype(float).sum())(kernel)
    assert gradient.dtype == jnp.bfloat16
    exact = jax.grad(lambda k: xlas(arguments[0], k).sum())(arguments[1])
    np.testing.assert_allclose(gradient.astype(float), exact, rtol=0.1, atol=1.0)
