import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mjx_dex.learning.distributions import Categorical, Gaussian

CATEGORICAL = Categorical(3)

# Two coordinates of three bins; the probabilities behind the logits are known.
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
OFFSET = np.array([[2.0], [-3.0]])  # changes no probability
LOGITS = jnp.array(np.log(PROBABILITIES) + OFFSET, jnp.float32)


def test_log_prob_is_summed_over_coordinates():
    np.testing.assert_allclose(
        CATEGORICAL.log_prob(LOGITS, jnp.array([1, 2])), np.log(0.5 * 0.8), rtol=1e-5
    )


def test_log_prob_of_a_batch_is_one_number_each():
    bins = jnp.array([[0, 0], [2, 1]])
    np.testing.assert_allclose(
        CATEGORICAL.log_prob(jnp.stack([LOGITS, LOGITS]), bins),
        np.log([0.2 * 0.1, 0.3 * 0.1]),
        rtol=1e-5,
    )


def test_entropy_is_summed_over_coordinates():
    expected = -(PROBABILITIES * np.log(PROBABILITIES)).sum()
    np.testing.assert_allclose(CATEGORICAL.entropy(LOGITS), expected, rtol=1e-5)


def test_entropy_of_a_batch_is_one_number_each():
    uniform = jnp.zeros((2, 3))
    certain = jnp.array([[1e4, 0.0, 0.0], [0.0, 0.0, 1e4]])
    np.testing.assert_allclose(
        CATEGORICAL.entropy(jnp.stack([uniform, certain])), [2 * np.log(3), 0.0]
    )


def test_samples_have_the_stated_frequencies():
    draws = 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    samples = np.asarray(jax.vmap(CATEGORICAL.sample, (0, None))(keys, LOGITS))
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
    np.testing.assert_array_equal(CATEGORICAL.mode(batch), [[1, 2], [0, 0]])


# --- numbers ---

GAUSSIAN = Gaussian()
MEAN, DEVIATION = np.array([0.5, -1.0]), np.array([0.2, 1.5])
FLOOR = Gaussian.LEAST_DEVIATION
# Solved by hand from the definition: σ² = (1/3 − FLOOR²) exp(2 o) + FLOOR².
OUTPUTS = jnp.array(
    np.stack([MEAN, 0.5 * np.log((DEVIATION**2 - FLOOR**2) / (1 / 3 - FLOOR**2))], -1),
    jnp.float32,
)
ACTIONS = np.array([[0.4, 0.3], [1.0, -4.0]])


def test_density_is_scipys_and_summed_over_coordinates():
    np.testing.assert_allclose(
        GAUSSIAN.log_prob(jnp.stack([OUTPUTS, OUTPUTS]), jnp.array(ACTIONS)),
        stats.norm(MEAN, DEVIATION).logpdf(ACTIONS).sum(-1),
        rtol=1e-5,
    )


def test_entropy_of_numbers_is_scipys_and_summed_over_coordinates():
    expected = stats.norm(MEAN, DEVIATION).entropy().sum()
    np.testing.assert_allclose(GAUSSIAN.entropy(OUTPUTS), expected, rtol=1e-5)


def test_numbers_are_normally_distributed():
    keys = jax.random.split(jax.random.key(0), 5_000)
    samples = np.asarray(jax.vmap(GAUSSIAN.sample, (0, None))(keys, OUTPUTS))
    for i in range(2):
        distribution = stats.norm(MEAN[i], DEVIATION[i])
        assert stats.kstest(samples[:, i], distribution.cdf).pvalue > 1e-4
    # Independent coordinates: the correlation of 5,000 pairs has error 0.014.
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.06


def test_mode_of_numbers_is_their_mean():
    np.testing.assert_allclose(GAUSSIAN.mode(OUTPUTS), MEAN, rtol=1e-6)


def test_a_new_policys_numbers_spread_as_evenly_as_bins():
    # The deviation of the uniform distribution over [-1, 1].
    expected = stats.norm(0, stats.uniform(-1, 2).std()).entropy()
    np.testing.assert_allclose(GAUSSIAN.entropy(jnp.zeros((1, 2))), expected, rtol=1e-5)


def test_no_output_makes_numbers_narrower_than_the_least_deviation():
    narrowest = jnp.array([[0.3, -1e4]])
    expected = stats.norm(0.3, FLOOR)
    np.testing.assert_allclose(
        GAUSSIAN.entropy(narrowest), expected.entropy(), rtol=1e-5
    )

    def density(outputs):
        return GAUSSIAN.log_prob(outputs, jnp.array([0.3 + 4 * FLOOR]))

    np.testing.assert_allclose(
        density(narrowest), expected.logpdf(0.3 + 4 * FLOOR), rtol=1e-5
    )
    # One number that is 4 deviations off: (x - mean) / σ² for the mean, none for σ.
    np.testing.assert_allclose(
        jax.grad(density)(narrowest), [[4 / FLOOR, 0.0]], rtol=1e-5
    )
