"""The pose net (Figure 6, Table 12): a tower for all cameras, then two dense layers."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_dex.vision.config import NetConfig
from mjx_dex.vision.convolution import convolve

STAGES = ((1, 16), (2, 32), (2, 64), (2, 64))
"""ResNet blocks and filters."""

SMALLEST_MAP = 2
"""Spatial softmax tells where something is: over one pixel it is a constant."""


class PoseNet(nn.Module):
    """From three images of one scene to what a loss makes a pose of."""

    config: NetConfig
    outputs: int

    @nn.compact
    def __call__(self, images: jax.Array, training: bool = False) -> jax.Array:
        """Run over scenes.

        Args:
            images: [n, cameras, H, W, 3], each of mean 0 and variance 1.
            training: batch normalization takes its statistics from ``images``.

        Returns:
            [n, outputs].
        """
        n, cameras = images.shape[:2]
        tower = Tower(self.config, name="tower")
        features = tower(images.reshape(n * cameras, *images.shape[2:]), training)
        x = features.reshape(n, -1)
        x = nn.relu(nn.Dense(self.config.hidden, name="join")(x))
        return nn.Dense(self.outputs, name="pose")(x)


class Tower(nn.Module):
    """From an image to where its features are, in the image's plane."""

    config: NetConfig

    @nn.compact
    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        """[n, H, W, 3] to [n, 2 * filters]."""
        filters, dtype = _filters(32, self.config), jnp.dtype(self.config.precision)
        for name, size in (("conv1", 5), ("conv2", 3)):
            layer = nn.Conv(
                filters,
                (size, size),
                padding="VALID",
                dtype=dtype,
                conv_general_dilated=lambda x, kernel, *_, **__: convolve(x, kernel),
                name=name,
            )
            x = nn.relu(layer(x))
        x = _max_pool(x, 3)
        for stage, (blocks, filters) in enumerate(STAGES):
            for block in range(blocks):
                stride = self.config.strides[stage] if block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = ResNetBlock(
                    _filters(filters, self.config),
                    stride,
                    self.config.norm,
                    dtype,
                    name=name,
                )(x, training)
        return SpatialSoftmax(name="spatial_softmax")(x.astype(jnp.float32))


class ResNetBlock(nn.Module):
    """Two convolutions beside a shortcut, which is projected where shapes differ."""

    filters: int
    stride: int
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        """[n, H, W, channels] to [n, H / stride, W / stride, filters]."""

        def convolve(x, kernel, stride, name):
            # Written out: "SAME" pads strided convolutions by the size of the image.
            padding = kernel // 2
            x = nn.Conv(
                self.filters,
                (kernel, kernel),
                (stride, stride),
                padding=padding,
                use_bias=self.norm == "none",
                dtype=self.dtype,
                name=name,
            )(x)
            return _normalize(x, self.norm, training, f"{name}_norm")

        y = nn.relu(convolve(x, 3, self.stride, "conv1"))
        y = convolve(y, 3, 1, "conv2")
        if x.shape != y.shape:
            x = convolve(x, 1, self.stride, "shortcut")
        return nn.relu(x + y)


class SpatialSoftmax(nn.Module):
    """Expected position of each feature, as if its activation were a log likelihood."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, H, W, channels] to [n, 2 * channels], columns and rows in [-1, 1].

        Raises:
            ValueError: if the map is of a single row or column.
        """
        n, height, width, channels = x.shape
        if min(height, width) < SMALLEST_MAP:
            raise ValueError(
                f"net.strides: the last map has {height} x {width} pixels, over which "
                "spatial softmax says nothing; lower strides or take larger images"
            )
        temperature = self.param("temperature", nn.initializers.ones, ())
        weights = jax.nn.softmax(x.reshape(n, -1, channels) / temperature, axis=1)
        rows, columns = jnp.meshgrid(
            jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij"
        )
        places = jnp.stack([columns.ravel(), rows.ravel()])
        return jnp.einsum("npc,dp->ncd", weights, places).reshape(n, -1)


def standardize(images: jax.Array) -> jax.Array:
    """uint8 images [..., H, W, 3] to mean 0 and variance 1, each by itself."""
    images = images.astype(jnp.float32) / 255
    mean = images.mean((-3, -2, -1), keepdims=True)
    deviation = images.std((-3, -2, -1), keepdims=True)
    return (images - mean) / jnp.maximum(deviation, 1e-3)


def _normalize(x: jax.Array, norm: str, training: bool, name: str) -> jax.Array:
    if norm == "group":
        groups = math.gcd(8, x.shape[-1])
        return nn.GroupNorm(num_groups=groups, dtype=x.dtype, name=name)(x)
    if norm == "batch":
        norm = nn.BatchNorm(not training, dtype=x.dtype, name=name)
        return norm(x)
    return x


def _max_pool(x: jax.Array, size: int) -> jax.Array:
    """[n, H, W, channels] to [n, H // size, W // size, channels].

    Windows do not overlap: a maximum over axes, whose gradient costs less than that of
    ``nn.max_pool``.
    """
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(n, rows, size, columns, size, channels).max((2, 4))


def _filters(number: int, config: NetConfig) -> int:
    return max(1, round(number * config.width))
