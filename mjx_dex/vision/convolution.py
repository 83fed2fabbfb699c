"""Convolution whose kernel learns in a third of the time on a CPU.

XLA has a CPU compute the gradient of a kernel as a convolution with a kernel as large
as the image. Of the net's first two layers, which see all pixels, that took half of a
training step. Image by image, it is one product of two matrices that fit its cache.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve without padding.

    Args:
        images: [n, H, W, channels].
        kernel: [k, k, channels, filters].

    Returns:
        [n, H - k + 1, W - k + 1, filters].
    """
    return _convolve(images, kernel)


def _convolve(images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _forward(images, kernel):
    return _convolve(images, kernel), (images, kernel)


def _backward(saved, gradient):
    images, kernel = saved
    _, of_images = jax.vjp(lambda x: _convolve(x, kernel), images)
    of_kernel = jax.lax.platform_dependent(
        images, kernel, gradient, cpu=_by_products, default=_by_convolution
    )
    return *of_images(gradient), of_kernel


def _by_convolution(images, kernel, gradient):
    _, of_kernel = jax.vjp(lambda x: _convolve(images, x), kernel)
    return of_kernel(gradient)[0]


def _by_products(images, kernel, gradient):
    size, (height, width, filters) = kernel.shape[0], gradient.shape[1:]

    def add(total, of_one):
        image, gradient = of_one
        patches = [
            image[row : row + height, column : column + width]
            for row in range(size)
            for column in range(size)
        ]
        patches = jnp.concatenate(patches, axis=-1).reshape(height * width, -1)
        return total + patches.T @ gradient.reshape(-1, filters), None

    nothing = jnp.zeros((kernel[..., 0].size, filters), kernel.dtype)
    total, _ = jax.lax.scan(add, nothing, (images, gradient))
    return total.reshape(kernel.shape)


convolve.defvjp(_forward, _backward)
