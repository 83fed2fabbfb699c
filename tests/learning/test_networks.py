import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mjx_dex.config import NetworkConfig
from mjx_dex.learning import networks
from mjx_dex.learning.agent import make_networks
from mjx_dex.learning.networks import LSTM, UNROLL, Network

STEPS, FEATURES, UNITS = 7, 3, 5
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def randomized(parameters):
    """No parameter is left at a special value such as zero."""
    leaves, structure = jax.tree.flatten(parameters)
    leaves = [x + 0.5 * normal(i, *x.shape) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves)


def make(recurrent):
    network = Network((2, 3), hidden=8, memory=UNITS, recurrent=recurrent, head_scale=1)
    parameters = network.init(
        jax.random.key(0), network.initial_carry(), INPUTS, NEVER_FIRST
    )
    return jax.jit(functools.partial(network.apply, randomized(parameters)))


INPUTS = normal(1, STEPS, FEATURES)
NEVER_FIRST = jnp.zeros(STEPS, bool)
FIRST_AT_3 = NEVER_FIRST.at[3].set(True)
STORED = (normal(2, UNITS), normal(3, UNITS))
EMPTY = (jnp.zeros(UNITS), jnp.zeros(UNITS))


@pytest.mark.parametrize("first", [NEVER_FIRST, FIRST_AT_3], ids=["whole", "cut"])
def test_replaying_a_sequence_is_acting_it(first):
    apply = make(recurrent=True)
    final, replayed = apply(STORED, INPUTS, first)
    carry, acted = STORED, []
    for step in range(STEPS):
        carry, output = apply(carry, INPUTS[step][None], first[step][None])
        acted.append(output[0])
    np.testing.assert_allclose(replayed, np.stack(acted), **CLOSE)
    for replayed_part, acted_part in zip(final, carry, strict=True):
        np.testing.assert_allclose(replayed_part, acted_part, **CLOSE)


def test_an_episode_begins_with_an_empty_memory():
    apply = make(recurrent=True)
    final, outputs = apply(STORED, INPUTS, FIRST_AT_3)
    before, outputs_before = apply(STORED, INPUTS[:3], NEVER_FIRST[:3])
    after, outputs_after = apply(EMPTY, INPUTS[3:], NEVER_FIRST[3:])
    np.testing.assert_allclose(outputs[:3], outputs_before, **CLOSE)
    np.testing.assert_allclose(outputs[3:], outputs_after, **CLOSE)
    for final_part, after_part in zip(final, after, strict=True):
        np.testing.assert_allclose(final_part, after_part, **CLOSE)
    # Not trivially so: memory would have mattered.
    _, remembering = apply(before, INPUTS[3:], NEVER_FIRST[3:])
    assert np.abs(remembering - outputs_after).max() > 0.01


def test_lstm_follows_its_equations():
    lstm = LSTM(UNITS)
    parameters = randomized(lstm.init(jax.random.key(0), STORED, INPUTS, NEVER_FIRST))
    (cell, output), outputs = lstm.apply(parameters, STORED, INPUTS, NEVER_FIRST)

    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), parameters["params"])
    wx = np.split(weights["input"]["kernel"], 4, axis=1)
    wh = np.split(weights["recurrent"], 4, axis=1)
    b = np.split(weights["input"]["bias"], 4)
    c, h = (np.asarray(x, np.float64) for x in STORED)
    for t, x in enumerate(np.asarray(INPUTS, np.float64)):
        i, f, g, o = (x @ wx[k] + h @ wh[k] + b[k] for k in range(4))
        c = c / (1 + np.exp(-f - 1)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        np.testing.assert_allclose(outputs[t], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cell, c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output, h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recurrent", [True, False])
def test_several_environments_are_each_computed_alone(recurrent):
    apply = make(recurrent)
    inputs, first = normal(4, STEPS, 2, FEATURES), normal(5, STEPS, 2) > 0.5
    assert first.any(0).all()
    assert not first.all(0).any()
    carry = tuple(normal(seed, 2, UNITS) for seed in (6, 7))
    finals, outputs = apply(carry, inputs, first)
    for env in range(2):
        own = tuple(part[env] for part in carry)
        final, alone = apply(own, inputs[:, env], first[:, env])
        np.testing.assert_allclose(outputs[:, env], alone, **CLOSE)
        for part, of_all in zip(final, finals, strict=True):
            np.testing.assert_allclose(of_all[env], part, **CLOSE)


def test_lstm_gradient_is_the_slope_of_its_output():
    """Of weights, inputs and memory, against differences; longer than is unrolled."""
    lstm, steps, envs = LSTM(UNITS), UNROLL + 3, 2
    inputs, first = normal(4, steps, envs, FEATURES), normal(5, steps, envs) > 1
    carry = tuple(normal(seed, envs, UNITS) for seed in (6, 7))
    parameters = randomized(lstm.init(jax.random.key(0), carry, inputs, first))
    check_grads(
        jax.jit(lambda *arguments: lstm.apply(*arguments, first)),
        (parameters, carry, inputs),
        order=1,
        modes="rev",
        eps=1e-2,
        rtol=1e-2,
    )


def test_without_memory_nothing_but_the_input_counts():
    apply = make(recurrent=False)
    nothing = (jnp.zeros(0), jnp.zeros(0))
    _, outputs = apply(nothing, INPUTS, NEVER_FIRST)
    assert outputs.shape == (STEPS, 2, 3)
    carry, backwards = apply(nothing, INPUTS[::-1], FIRST_AT_3)
    assert [part.shape for part in carry] == [(0,), (0,)]
    np.testing.assert_allclose(backwards[::-1], outputs, **CLOSE)
    carry, outputs_again = apply(STORED, INPUTS, FIRST_AT_3)
    np.testing.assert_allclose(outputs_again, outputs, **CLOSE)
    for carry_part, stored_part in zip(carry, STORED, strict=True):
        np.testing.assert_array_equal(carry_part, stored_part)


@pytest.mark.parametrize("memory", ["lstm", "none"])
def test_initial_policy_is_nearly_uniform(memory):
    config = NetworkConfig(policy_memory=memory, hidden=64, memory=32)
    policy, _, _ = make_networks(config, (20, 11))
    carry, first = policy.initial_carry(), NEVER_FIRST
    inputs = 2 * INPUTS
    parameters = policy.init(jax.random.key(0), carry, inputs, first)
    _, logits = policy.apply(parameters, carry, inputs, first)
    assert logits.shape == (STEPS, 20, 11)
    np.testing.assert_allclose(jax.nn.softmax(logits), 1 / 11, rtol=0.05)
    assert np.ptp(logits) > 0


def test_value_network_gives_one_number_and_its_own_memory_kind():
    config = NetworkConfig(policy_memory="none", hidden=8, memory=UNITS)
    policy, value, _ = make_networks(config, (20, 11))
    assert policy.initial_carry() == ()
    assert [part.shape for part in value.initial_carry()] == [(UNITS,), (UNITS,)]
    parameters = value.init(jax.random.key(0), EMPTY, INPUTS, NEVER_FIRST)
    _, values = value.apply(parameters, EMPTY, INPUTS, NEVER_FIRST)
    assert values.shape == (STEPS,)


@pytest.mark.parametrize(
    ("precision", "bits", "error"), [("bfloat16", 8, 1e-2), ("tensorfloat32", 11, 1e-3)]
)
def test_the_operands_of_every_product_are_rounded_and_nothing_else(
    precision, bits, error
):
    x, y, weight = normal(1, 4, 3, 50), normal(2, 50, 6), normal(3, 4, 3, 6)
    dropped = 24 - bits

    def rounded(x):
        """The nearest values of so many bits (ties are not met)."""
        whole = np.ascontiguousarray(x, np.float32).view(np.uint32)
        half, kept = np.uint32(1 << (dropped - 1)), np.uint32(2**32 - (1 << dropped))
        return ((whole + half) & kept).view(np.float32).astype(np.float64)

    def weighted(x, y):
        return (weight * networks.product(x, y, precision)).sum()

    result = networks.product(x, y, precision)
    exact = rounded(x) @ rounded(y)
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)
    assert np.abs(exact - np.asarray(x, np.float64) @ np.asarray(y)).max() > error
    assert result.dtype == jnp.float32
    of_x, of_y = jax.grad(weighted, (0, 1))(x, y)
    expected = rounded(weight) @ rounded(y).T
    np.testing.assert_allclose(of_x, expected, rtol=1e-5, atol=1e-5)
    expected = np.einsum("abk,abn->kn", rounded(x), rounded(weight))
    np.testing.assert_allclose(of_y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16"])
def test_weights_and_their_gradients_stay_float32(precision):
    config = NetworkConfig(hidden=8, memory=UNITS, matmul_precision=precision)
    policy, _, _ = make_networks(config, (20, 11))
    parameters = policy.init(jax.random.key(0), EMPTY, INPUTS, NEVER_FIRST)

    def total(parameters):
        return policy.apply(parameters, EMPTY, INPUTS, FIRST_AT_3)[1].sum()

    for leaf in jax.tree.leaves((parameters, jax.grad(total)(parameters))):
        assert leaf.dtype == jnp.float32


def test_the_whole_network_multiplies_as_configured():
    exact, coarse = (
        Network((2, 3), 8, UNITS, True, 1.0, precision)
        for precision in ("float32", "bfloat16")
    )
    parameters = randomized(exact.init(jax.random.key(0), EMPTY, INPUTS, NEVER_FIRST))
    layers = {"dense": 1, "head": 1, "lstm": 2}
    products = str(
        jax.make_jaxpr(coarse.apply)(parameters, EMPTY, INPUTS, NEVER_FIRST)
    ).count("preferred_element_type=float32")
    assert products == sum(layers.values())
    _, fine = exact.apply(parameters, EMPTY, INPUTS, NEVER_FIRST)
    _, rough = coarse.apply(parameters, EMPTY, INPUTS, NEVER_FIRST)
    assert 1e-4 < np.abs(fine - rough).max() < 0.1
