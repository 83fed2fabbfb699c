from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import ConstantReward, RewardFromAction

from mjx_dex.config import NetworkConfig, PPOConfig
from mjx_dex.learning import AutoReset, Trainer, ppo
from mjx_dex.learning.agent import Networks
from mjx_dex.learning.distributions import Categorical


class Table:
    """A network that looks its output up: its parameters are its outputs."""

    def apply(self, parameters, carry, inputs, first):
        return carry, parameters[inputs[..., 0].astype(jnp.int32)]


TABLES = Networks(Table(), Table(), Categorical(2))
CONFIG = PPOConfig(
    clip=0.2,
    entropy=0.0,
    value_weight=0.5,
    max_gradient_norm=None,
    chunk=3,
    horizon=3,
    minibatch_size=6,
    minibatches=1,
)

# Six samples, a chunk of three steps in each of two environments.
PROBABILITY = np.array([0.6, 0.3, 0.6, 0.3, 0.55, 0.45])  # of the action, of two
RATIO = np.array([1.5, 0.5, 1.5, 0.5, 1.1, 0.95])  # does not average 1
ADVANTAGE = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])  # mean 0, deviation 1
SURROGATE = np.array([1.2, -0.8, -1.5, 0.5, 1.1, -0.95])
CLIPPED = np.array([True, True, False, False, False, False])
ACTION = np.array([0, 1, 0, 1, 0, 1])
VALUE_ERROR = np.array([2.0, 0.0, -1.0, 0.0, 1.0, 0.0])


def parameters():
    both = np.where(np.arange(2) == ACTION[:, None], 0, 1 - 2 * PROBABILITY[:, None])
    logits = np.log(PROBABILITY[:, None] + both)
    return {
        "policy": jnp.array(logits[:, None], jnp.float32),
        "value": jnp.array(3.0 + VALUE_ERROR, jnp.float32),
    }


def chunks():
    nothing = jnp.zeros((2, 0))
    inputs = jnp.arange(6.0).reshape(2, 3, 1)
    return ppo.Chunk(
        policy_carry=(nothing, nothing),
        value_carry=(nothing, nothing),
        policy_input=inputs,
        value_input=inputs,
        first=jnp.zeros((2, 3), bool),
        action=jnp.array(ACTION.reshape(2, 3, 1)),
        log_prob=jnp.array(np.log(PROBABILITY / RATIO).reshape(2, 3), jnp.float32),
        advantage=jnp.array(ADVANTAGE.reshape(2, 3), jnp.float32),
        value_target=jnp.full((2, 3), 3.0),
    )


def loss(config=CONFIG, **changes):
    return ppo.loss(parameters(), chunks().replace(**changes), TABLES, config)


def gradients(config=CONFIG):
    gradient = jax.grad(lambda p: ppo.loss(p, chunks(), TABLES, config)[0])
    return jax.tree.map(np.asarray, gradient(parameters()))


def policy_gradient_by_hand():
    """Of -mean(min(..)): dρ/dlogits = ρ (one-hot - π), nothing where clipped."""
    pi = np.asarray(jax.nn.softmax(parameters()["policy"][:, 0]))
    score = (np.arange(2) == ACTION[:, None]) - pi
    weight = np.where(CLIPPED, 0.0, RATIO * ADVANTAGE)
    return (-weight[:, None] * score / 6)[:, None]


def value_gradient_by_hand():
    return CONFIG.value_weight * 2 * VALUE_ERROR / 6


def test_loss_is_surrogate_entropy_and_value_error():
    config = replace(CONFIG, entropy=0.1)
    total, metrics = loss(config)
    p, q = PROBABILITY, 1 - PROBABILITY
    entropy = -(p * np.log(p) + q * np.log(q)).mean()
    assert metrics["surrogate"] == pytest.approx(SURROGATE.mean(), abs=1e-6)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert metrics["value_error"] == pytest.approx((4 + 1 + 1) / 6)
    expected = -SURROGATE.mean() - 0.1 * entropy + 0.5 * (4 + 1 + 1) / 6
    assert total == pytest.approx(expected, rel=1e-5)


def test_loss_reports_what_was_clipped():
    _, metrics = loss()
    assert metrics["clip_fraction"] == pytest.approx(4 / 6)


def test_divergence_is_schulmans_estimate():
    kl = (RATIO - 1 - np.log(RATIO)).mean()
    measured = ppo.divergence(parameters(), chunks(), TABLES)
    assert measured == pytest.approx(kl, rel=1e-5)


def test_clipped_samples_give_the_policy_no_gradient():
    policy = gradients()["policy"]
    np.testing.assert_array_equal(policy[CLIPPED], 0.0)
    np.testing.assert_allclose(policy, policy_gradient_by_hand(), atol=1e-6)


def test_entropy_bonus_pushes_toward_uniform():
    policy = gradients(replace(CONFIG, entropy=0.1))["policy"]
    # Sample 0 is clipped and prefers bin 0: descending must favour bin 1.
    assert policy[0, 0, 0] > 0 > policy[0, 0, 1]


def optimize(config, chunks, learning_rate=0.01, axis_size=1):
    """Parameters, first moments of Adam and metrics of each device."""
    optimizer = ppo.make_optimizer(config)
    start = parameters()
    state = {name: optimizer.init(p) for name, p in start.items()}

    def on_one_device(chunks):
        key = jax.random.key(0)
        return ppo.optimize(
            start, state, chunks, learning_rate, key, TABLES, config, "devices"
        )

    on_devices = jax.vmap(on_one_device, axis_name="devices", axis_size=axis_size)
    learned, state, metrics = on_devices(chunks)
    moments = {name: optax.tree_utils.tree_get(s, "mu") for name, s in state.items()}
    return learned, moments, metrics


def on_one_device(chunks):
    return jax.tree.map(lambda x: x[None], chunks)


def as_acted():
    """Chunks of the policy that the parameters are: every ratio is 1."""
    return chunks().replace(
        log_prob=jnp.array(np.log(PROBABILITY).reshape(2, 3), jnp.float32)
    )


@pytest.mark.parametrize("minibatches", [1, 4])
def test_divergence_is_measured_after_the_last_step(minibatches):
    config = replace(CONFIG, minibatches=minibatches)
    learned, _, metrics = optimize(config, on_one_device(as_acted()), 0.1)
    logits = np.asarray(learned["policy"][0, :, 0], float)
    new = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ratio = new[np.arange(6), ACTION] / PROBABILITY
    assert metrics["kl"][0] == pytest.approx(np.mean(ratio - 1 - np.log(ratio)), 1e-4)
    assert metrics["kl"][0] > 1e-4


def test_divergence_of_balanced_actions_is_exact():
    """Three states, two equally probable actions, both taken: the mean is exact."""
    state = np.array([0, 0, 1, 1, 2, 2])
    new = np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]])
    tables = {"policy": jnp.log(jnp.array(new, jnp.float32))[:, None]}
    acted = chunks().replace(
        policy_input=jnp.array(state.reshape(2, 3, 1), jnp.float32),
        log_prob=jnp.full((2, 3), np.log(0.5), jnp.float32),
    )
    exact = (0.5 * np.log(0.5 / new)).sum(1).mean()
    assert ppo.divergence(tables, acted, TABLES) == pytest.approx(exact, rel=1e-5)


def test_divergence_is_averaged_over_devices():
    ours = as_acted()
    theirs = ours.replace(action=1 - ours.action)
    both = jax.tree.map(lambda x, y: jnp.stack([x, y]), ours, theirs)
    learned, _, metrics = optimize(CONFIG, both, 0.1, axis_size=2)
    learned = jax.tree.map(lambda x: x[0], learned)
    alone = [float(ppo.divergence(learned, c, TABLES)) for c in (ours, theirs)]
    assert abs(alone[0] - alone[1]) > 1e-3
    np.testing.assert_allclose(metrics["kl"], np.mean(alone), rtol=1e-5)


@pytest.mark.parametrize(("target", "rises"), [(1e-9, False), (1e3, True)])
def test_learning_rate_of_a_single_minibatch_follows_the_divergence(target, rises):
    config = PPOConfig(
        learning_rate=1e-3,
        kl_target=target,
        horizon=4,
        chunk=4,
        minibatch_size=16,
        minibatches=1,
    )
    env = AutoReset(RewardFromAction(), 4)
    trainer = Trainer(env, NetworkConfig(hidden=4, memory=4), config)
    learner, metrics = trainer.iterate(trainer.init(jax.random.key(0)))
    assert metrics["kl"] > 1.5e-9
    assert (learner.learning_rate > 1e-3) == rises


def test_first_step_moves_parameters_by_the_learning_rate_against_the_gradient():
    learned, _, _ = optimize(CONFIG, on_one_device(chunks()))
    before, by_hand = parameters(), policy_gradient_by_hand()
    moved = learned["policy"][0] - before["policy"]
    np.testing.assert_allclose(moved, -0.01 * np.sign(by_hand), atol=1e-5)
    moved = learned["value"][0] - before["value"]
    np.testing.assert_allclose(moved, -0.01 * np.sign(VALUE_ERROR), atol=1e-5)


def test_policy_and_value_gradients_are_clipped_separately():
    policy, value = policy_gradient_by_hand(), value_gradient_by_hand()
    small, large = np.linalg.norm(policy), np.linalg.norm(value)
    limit = (small + large) / 2
    assert small < limit < large
    config = replace(CONFIG, max_gradient_norm=float(limit))
    _, moments, metrics = optimize(config, on_one_device(chunks()))
    # After one step Adam's first moment is a tenth of the gradient it was given.
    np.testing.assert_allclose(moments["policy"][0], 0.1 * policy, atol=1e-6)
    np.testing.assert_allclose(
        moments["value"][0], 0.1 * value * limit / large, atol=1e-6
    )
    # What is reported is before clipping.
    assert metrics["policy_gradient_norm"][0] == pytest.approx(small, rel=1e-4)
    assert metrics["value_gradient_norm"][0] == pytest.approx(large, rel=1e-4)


def test_gradients_are_averaged_over_devices():
    ours = chunks()
    theirs = ours.replace(value_target=ours.value_target + 1, action=1 - ours.action)
    both = jax.tree.map(lambda x, y: jnp.stack([x, y]), ours, theirs)
    _, moments, _ = optimize(CONFIG, both, axis_size=2)
    for name in ("policy", "value"):
        alone = [optimize(CONFIG, on_one_device(c))[1][name][0] for c in (ours, theirs)]
        assert not np.allclose(*alone, atol=1e-3)
        for device in range(2):
            np.testing.assert_allclose(
                moments[name][device], np.mean(alone, axis=0), atol=1e-6
            )


def standardized(x):
    """[devices, ...] advantages, standardized over all devices."""
    return jax.vmap(lambda x: ppo.standardize(x, "devices"), axis_name="devices")(
        jnp.array(x, jnp.float32)
    )


def test_advantages_are_standardized_over_all_devices():
    # Mean 3 and deviation sqrt(5), worked by hand.
    expected = np.array([[-3, -1], [1, 3]]) / 5**0.5
    np.testing.assert_allclose(standardized([[0, 2], [4, 6]]), expected, rtol=1e-5)


def test_equal_advantages_do_not_blow_up():
    np.testing.assert_array_equal(standardized([[7, 7, 7]]), 0.0)


def test_learning_does_not_depend_on_the_scale_of_rewards():
    scaled = chunks().replace(advantage=100.0 * chunks().advantage - 70.0)
    _, expected, _ = optimize(CONFIG, on_one_device(chunks()))
    _, moments, _ = optimize(CONFIG, on_one_device(scaled))
    np.testing.assert_allclose(moments["policy"], expected["policy"], atol=1e-6)


def test_a_gradient_in_parts_is_the_gradient():
    whole = optimize(CONFIG, on_one_device(chunks()))
    in_parts = optimize(replace(CONFIG, accumulation=2), on_one_device(chunks()))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), in_parts, whole
    )


def test_parts_must_be_equal():
    message = r"minibatch_size \(12\) must be a multiple of chunk x accumulation \(8\)"
    with pytest.raises(ValueError, match=message):
        PPOConfig(horizon=8, chunk=4, minibatch_size=12, accumulation=2)


def minibatch_order(num_chunks, size, minibatches):
    """Chunks of two steps: a minibatch of ``size`` chunks is twice as many steps."""
    config = PPOConfig(
        horizon=2, chunk=2, minibatch_size=2 * size, minibatches=minibatches
    )
    return np.asarray(ppo._minibatch_order(jax.random.key(0), num_chunks, config))


def test_every_pass_visits_every_chunk_once_in_a_new_order():
    order = minibatch_order(num_chunks=12, size=3, minibatches=12)
    assert order.shape == (12, 3)
    passes = order.reshape(3, 12)
    np.testing.assert_array_equal(np.sort(passes, axis=1), [np.arange(12)] * 3)
    assert len({tuple(p) for p in passes} | {tuple(range(12))}) == 4


def test_no_chunk_is_seen_again_before_all_were_seen():
    # Neither do minibatches fill a pass, nor passes the iteration.
    order = minibatch_order(num_chunks=7, size=3, minibatches=6)
    assert order.shape == (6, 3)
    in_time = order.ravel()
    for begin in (0, 7):
        np.testing.assert_array_equal(np.sort(in_time[begin : begin + 7]), np.arange(7))
    assert len(set(in_time[14:])) == 4


def test_less_than_a_pass_is_without_repetition():
    order = minibatch_order(num_chunks=100, size=10, minibatches=3)
    assert len(np.unique(order)) == 30


def test_a_minibatch_larger_than_the_experience_is_refused():
    config = PPOConfig(horizon=4, chunk=4, minibatch_size=16)
    network = NetworkConfig(hidden=4, memory=4)
    with pytest.raises(ValueError, match=r"minibatch_size \(16\).* 12 .*4 would do"):
        Trainer(AutoReset(ConstantReward(), 3), network, config)


@pytest.mark.parametrize(
    ("num_envs", "accumulation", "expected"),
    [(512, 1, 2560), (64, 1, 320), (1, 1, 10), (3, 1, 10), (512, 3, 2550)],
)
def test_minibatches_follow_the_number_of_environments(
    num_envs, accumulation, expected
):
    """A quarter of an iteration's transitions, in whole chunks."""
    config = PPOConfig(accumulation=accumulation)
    assert config.minibatch(num_envs * config.horizon) == expected
    trainer = Trainer(AutoReset(ConstantReward(), num_envs), NetworkConfig(), config)
    assert trainer._config.minibatch_size == expected


@pytest.mark.parametrize("name", ["horizon", "minibatch_size"])
def test_indivisible_chunks_are_refused(name):
    sizes = {"horizon": 8, "minibatch_size": 8, "chunk": 4, name: 9}
    with pytest.raises(ValueError, match=rf"{name} \(9\).*chunk \(4\); 8 does"):
        PPOConfig(**sizes)


def test_metrics_are_of_the_later_half_of_minibatches():
    config = replace(CONFIG, minibatches=5)
    _, _, metrics = optimize(config, on_one_device(chunks()), learning_rate=0.5)
    adam, error, errors = optax.adam(0.5), jnp.array(VALUE_ERROR), []
    state = adam.init(error)
    for _ in range(5):
        errors.append(np.square(error).mean())
        update, state = adam.update(CONFIG.value_weight * 2 * error / 6, state)
        error = error + update
    expected = np.mean(errors[2:])
    assert metrics["value_error"][0] == pytest.approx(expected, rel=1e-4)


def adapted(rate, kl, target=0.01):
    config = PPOConfig(kl_target=target)
    return float(ppo.adapt_learning_rate(jnp.float32(rate), jnp.float32(kl), config))


def test_learning_rate_follows_the_divergence():
    assert adapted(1e-3, kl=0.02) < 1e-3
    assert adapted(1e-3, kl=0.005) > 1e-3
    for on_target in (0.007, 0.01, 0.0149):
        assert adapted(1e-3, kl=on_target) == pytest.approx(1e-3)


def test_learning_rate_can_go_back_to_where_it_was():
    assert adapted(adapted(1e-3, kl=0.1), kl=0.0) == pytest.approx(1e-3)


def test_learning_rate_stays_within_bounds():
    rates = [1e-3, 1e-3]
    for _ in range(40):
        rates = [adapted(rates[0], kl=1.0), adapted(rates[1], kl=0.0)]
    assert rates == pytest.approx(ppo.LEARNING_RATES)


def test_learning_rate_is_left_alone_without_a_target():
    assert adapted(1e-3, kl=1.0, target=None) == pytest.approx(1e-3)
