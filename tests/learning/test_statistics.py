import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.learning.statistics import Statistics

RNG = np.random.default_rng(0)
DATA = RNG.normal([-1, 0, 20], [0.1, 1, 5], (60, 3)).astype(np.float32)


def from_batches(*batches, shape=(3,)):
    statistics = Statistics.empty(shape)
    for batch in batches:
        statistics = statistics.update(jnp.asarray(batch))
    return statistics


@pytest.mark.parametrize("ends", [[], [30], [1, 2, 50]])
def test_batches_merge_to_the_statistics_of_the_whole(ends):
    statistics = from_batches(*np.split(DATA, ends))
    np.testing.assert_allclose(statistics.mean, DATA.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics.variance, DATA.var(0), rtol=1e-4)
    np.testing.assert_allclose(statistics.deviation, DATA.std(0), rtol=1e-4)
    assert statistics.count == len(DATA)


def test_a_small_spread_survives_a_large_offset():
    data = (1000 + RNG.normal(0, 0.5, (400, 1))).astype(np.float32)
    statistics = from_batches(*np.split(data, 10), shape=(1,))
    np.testing.assert_allclose(statistics.deviation, data.std(0), rtol=1e-2)


def test_scalars_have_statistics_too():
    statistics = from_batches(DATA[:, 1], shape=())
    np.testing.assert_allclose(statistics.mean, DATA[:, 1].mean(), atol=1e-5)
    np.testing.assert_allclose(statistics.variance, DATA[:, 1].var(), rtol=1e-4)


def test_normalized_data_have_mean_0_and_deviation_1():
    normalized = np.asarray(from_batches(DATA).normalize(DATA))
    np.testing.assert_allclose(normalized.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(0), 1.0, rtol=1e-4)


def test_denormalize_undoes_normalize():
    statistics, x = from_batches(DATA), jnp.array([100.0, -3.0, 0.5])
    assert not np.allclose(statistics.normalize(x), x)
    np.testing.assert_allclose(
        statistics.denormalize(statistics.normalize(x)), x, rtol=1e-5
    )


def test_clips_at_five_deviations():
    statistics = Statistics(jnp.float32(1.0), jnp.float32(4.0), jnp.float32(10.0))
    x = jnp.array([-9.5, -8.5, 2.0, 10.5, 11.5, 1e9])
    np.testing.assert_allclose(
        statistics.normalize_clipped(x), [-5, -4.75, 0.5, 4.75, 5, 5]
    )
    np.testing.assert_allclose(statistics.normalize(x[-2:]), [5.25, 5e8], rtol=1e-6)


def test_statistics_of_no_data_change_nothing():
    x = jnp.array([-3.0, 0.0, 4.5])
    empty = Statistics.empty((3,))
    for unchanged in (empty.normalize, empty.normalize_clipped, empty.denormalize):
        np.testing.assert_array_equal(unchanged(x), x)


@pytest.mark.parametrize("constant", [0.0, 0.3, -70.0])
def test_a_constant_input_does_not_blow_up(constant):
    batch = np.full((32, 1), constant, np.float32)
    statistics = from_batches(*[batch] * 20, shape=(1,))
    np.testing.assert_allclose(statistics.normalize(batch), 0.0, atol=0.5)
    np.testing.assert_allclose(statistics.denormalize(jnp.ones(1)), constant, atol=1e-3)


def test_devices_pool_their_batches():
    first, second = DATA[:20].reshape(4, 5, 3), DATA[20:].reshape(4, 10, 3)

    @functools.partial(jax.vmap, axis_name="devices")
    def on_each_device(first, second):
        statistics = Statistics.empty((3,)).update(first, "devices")
        return statistics.update(second, "devices")

    pooled = on_each_device(first, second)
    for device in range(4):
        one = jax.tree.map(lambda x, d=device: x[d], pooled)
        np.testing.assert_allclose(one.mean, DATA.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.variance, DATA.var(0), rtol=1e-4)
        assert one.count == len(DATA)
