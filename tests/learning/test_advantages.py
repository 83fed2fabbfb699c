import numpy as np
import pytest

from mjx_dex.learning.advantages import generalized_advantages

# Terminated after step 1, truncated after step 3, still running at the end.
REWARD = np.array([1, 4, 3, 4, 5, 6], np.float32)
VALUE = np.array([1, 2, 1, 3, 2, 1], np.float32)
NEXT_VALUE = np.array([2, 9, 3, 4, 1, 2], np.float32)
TERMINATED = np.array([0, 1, 0, 0, 0, 0], bool)
TRUNCATED = np.array([0, 0, 0, 1, 0, 0], bool)


def advantages(gamma, gae_lambda, next_value=NEXT_VALUE, truncated=TRUNCATED):
    return np.asarray(
        generalized_advantages(
            REWARD, VALUE, next_value, TERMINATED, truncated, gamma, gae_lambda
        )
    )


def test_equal_to_arithmetic_by_hand():
    by_hand = [
        (1 + 0.5 * 2 - 1) + 0.25 * 2,  # 1.5
        4 - 2,  # terminated: no value follows, no advantage either
        (3 + 0.5 * 3 - 1) + 0.25 * 3,  # 4.25
        4 + 0.5 * 4 - 3,  # truncated: the value follows, the advantage does not
        (5 + 0.5 * 1 - 2) + 0.25 * 6,  # 5
        6 + 0.5 * 2 - 1,
    ]
    np.testing.assert_allclose(advantages(gamma=0.5, gae_lambda=0.5), by_hand)


def test_lambda_0_is_the_one_step_temporal_difference():
    expected = REWARD + 0.9 * NEXT_VALUE * ~TERMINATED - VALUE
    np.testing.assert_allclose(advantages(0.9, 0.0), expected, rtol=1e-6)


def test_lambda_1_is_the_discounted_return_minus_the_value():
    gamma = 0.9
    returns = [
        1 + gamma * 4,
        4,
        3 + gamma * (4 + gamma * 4),  # 4 is the value where it was cut
        4 + gamma * 4,
        5 + gamma * (6 + gamma * 2),  # 2 is the value of what comes next
        6 + gamma * 2,
    ]
    np.testing.assert_allclose(advantages(gamma, 1.0), returns - VALUE, rtol=1e-6)


@pytest.mark.parametrize("anything", [np.nan, np.inf, 1e30])
def test_what_follows_a_termination_does_not_leak(anything):
    next_value = np.where(TERMINATED, anything, NEXT_VALUE).astype(np.float32)
    expected = advantages(0.9, 0.8)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(advantages(0.9, 0.8, next_value), expected)


def test_an_end_that_is_both_counts_as_terminated():
    both = TERMINATED | TRUNCATED
    np.testing.assert_array_equal(
        advantages(0.9, 0.8, truncated=both), advantages(0.9, 0.8)
    )
