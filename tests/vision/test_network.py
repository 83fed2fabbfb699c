"""The pose net against Table 12, by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.vision.config import NetConfig
from mjx_dex.vision.network import PoseNet, SpatialSoftmax, _max_pool, standardize


def shapes(config, size=200, outputs=7):
    net = PoseNet(config, outputs)
    images = jax.ShapeDtypeStruct((2, 3, size, size, 3), jnp.float32)
    return net, jax.eval_shape(net.init, jax.random.key(0), images)


def number_of(parameters):
    return sum(np.prod(x.shape) for x in jax.tree.leaves(parameters))


def test_parameters_are_those_of_table_12():
    """Kernels k k i o and biases o, layer by layer."""
    stem = (5 * 5 * 3 * 32 + 32) + (3 * 3 * 32 * 32 + 32)

    def block(before, filters, projected):
        norms = 2 * 2 * filters
        shortcut = before * filters + 2 * filters if projected else 0
        return 9 * before * filters + 9 * filters**2 + norms + shortcut

    blocks = (
        block(32, 16, True)
        + block(16, 32, True)
        + block(32, 32, False)
        + block(32, 64, True)
        + 3 * block(64, 64, False)
    )
    head = (3 * 128 * 128 + 128) + (128 * 7 + 7)
    _, variables = shapes(NetConfig())
    assert number_of(variables["params"]) == stem + blocks + 1 + head == 382_152


def test_towers_share_their_weights():
    """A scene whose cameras change places has its features change places."""
    net, _ = shapes(NetConfig(width=0.25), size=32)
    images = jax.random.normal(jax.random.key(1), (1, 3, 32, 32, 3))
    variables = net.init(jax.random.key(0), images)

    def features(images):
        _, state = net.apply(variables, images, capture_intermediates=True)
        return state["intermediates"]["tower"]["__call__"][0]

    np.testing.assert_allclose(
        features(images)[::-1], features(images[:, ::-1]), atol=1e-5
    )


@pytest.mark.parametrize(
    ("strides", "size", "last"),
    [((3, 1, 1, 1), 200, 22), ((3, 3, 1, 1), 200, 8), ((3, 3, 3, 1), 200, 3)],
)
def test_maps_are_as_large_as_by_hand(strides, size, last):
    net, _ = shapes(NetConfig(strides=strides), size)
    images = jax.ShapeDtypeStruct((1, 3, size, size, 3), jnp.float32)
    run = lambda images: net.init_with_output(  # noqa: E731
        jax.random.key(0), images, capture_intermediates=True
    )
    _, variables = jax.eval_shape(run, images)
    tower = variables["intermediates"]["tower"]
    assert tower["stage4_block2"]["__call__"][0].shape == (3, last, last, 64)


def test_the_table_taken_literally_is_refused():
    with pytest.raises(ValueError, match=r"net\.strides: the last map has 1 x 1"):
        shapes(NetConfig(strides=(3, 3, 3, 3)))


def test_spatial_softmax_finds_a_spot():
    image = np.zeros((1, 5, 9, 2), np.float32)
    image[0, 1, 6, 0] = 100.0
    image[0, 4, 0, 1] = 100.0
    layer = SpatialSoftmax()
    places = layer.apply({"params": {"temperature": jnp.ones(())}}, image)
    # Columns -1, -0.75, ... 1 and rows -1, -0.5, ... 1.
    np.testing.assert_allclose(places, [[0.5, -0.5, -1.0, 1.0]], atol=1e-5)


def test_images_have_mean_0_and_variance_1_each():
    images = np.random.default_rng(0).integers(0, 255, (4, 3, 16, 16, 3), np.uint8)
    images[0, 0] = 255
    values = np.asarray(standardize(jnp.asarray(images)))
    np.testing.assert_allclose(values.mean((2, 3, 4)), 0, atol=1e-4)
    deviations = values.std((2, 3, 4))
    assert deviations[0, 0] == 0
    np.testing.assert_allclose(deviations.ravel()[1:], 1, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_outputs_depend_on_the_images(norm):
    net, _ = shapes(NetConfig(width=0.25, norm=norm), size=32)
    images = jax.random.normal(jax.random.key(1), (2, 3, 32, 32, 3))
    outputs, _ = net.init_with_output(jax.random.key(0), images)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


@pytest.mark.parametrize("size", [12, 13])
def test_pooling_is_max_pooling(size):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    expected = nn.max_pool(x, (3, 3), (3, 3))
    np.testing.assert_array_equal(_max_pool(x, 3), expected)


def test_a_tower_in_16_bits_says_about_the_same():
    """bfloat16 has 8 bits of precision: 0.4% in each of the tower's layers."""
    images = jax.random.normal(jax.random.key(1), (4, 3, 32, 32, 3))
    exact = PoseNet(NetConfig(width=0.25), 7)
    coarse = PoseNet(NetConfig(width=0.25, precision="bfloat16"), 7)
    variables = exact.init(jax.random.key(0), images)
    same = coarse.init(jax.random.key(0), images)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(same))
    expected, found = (net.apply(variables, images) for net in (exact, coarse))
    assert found.dtype == jnp.float32
    difference = np.sqrt(np.mean((expected - found) ** 2))
    assert 1e-5 < difference < 0.1 * expected.std()
