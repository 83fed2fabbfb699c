import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex.learning import distributions

# Two coordinates of three bins; the probabilities behind the logits are known.
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
OFFSET = np.array([[2.0], [-3.0]])  # changes no probability
LOGITS = jnp.array(np.log(PROBABILITIES) + OFFSET, jnp.float32)


def test_log_prob_is_summed_over_coordinates():
    np.testing.assert_allclose(
        distributions.log_prob(LOGITS, jnp.array([1, 2])), np.log(0.5 * 0.8), rtol=1e-5
    )


def test_log_prob_of_a_batch_is_one_number_each():
    bins = jnp.array([[0, 0], [2, 1]])
    np.testing.assert_allclose(
        distributions.log_prob(jnp.stack([LOGITS, LOGITS]), bins),
        np.log([0.2 * 0.1, 0.3 * 0.1]),
        rtol=1e-5,
    )


def test_entropy_is_summed_over_coordinates():
    expected = -(PROBABILITIES * np.log(PROBABILITIES)).sum()
    np.testing.assert_allclose(distributions.entropy(LOGITS), expected, rtol=1e-5)


def test_entropy_of_a_batch_is_one_number_each():
    uniform = jnp.zeros((2, 3))
    certain = jnp.array([[1e4, 0.0, 0.0], [0.0, 0.0, 1e4]])
    np.testing.assert_allclose(
        distributions.entropy(jnp.stack([uniform, certain])), [2 * np.log(3), 0.0]
    )


def test_samples_have_the_stated_frequencies():
    draws = 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    samples = np.asarray(jax.vmap(distributions.sample, (0, None))(keys, LOGITS))
    assert samples.shape == (draws, 2)
    assert samples.dtype == np.int32
    pairs = np.zeros((3, 3))
    np.add.at(pairs, tuple(samples.T), 1 / draws)
    # Independent coordinates; four standard errors of a frequency.
    expected = np.outer(*PROBABILITIES)
    error = np.sqrt(expected * (1 - expected) / draws)
    np.testing.assert_array_less(np.abs(pairs - expected), 4 * error)


def test_mode_is_the_most_probable_bin():
    batch = jnp.stack([LOGITS, -LOGITS.at[1, 1].add(1.0)])
    np.testing.assert_array_equal(distributions.mode(batch), [[1, 2], [0, 0]])
