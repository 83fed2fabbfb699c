"""Walks the menu: what holds for every effect of it."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mjx_dex.config import (
    Config,
    Group,
    Input,
    Preset,
    RandomizationConfig,
    replace,
)
from mjx_dex.randomization import Randomization, menu, physics
from mjx_dex.randomization.adaptive import whole_ranges
from mjx_dex.randomization.draws import SIGNAL_EFFECTS
from mjx_dex.task.observations import SIZES
from mjx_dex.types import EffectMemory, EpisodeDraw, PhysicsDraw, Sensors

PERIOD = 0.08
DRAWS = 10_000
SIGNIFICANCE = 1e-4
"""A right distribution fails a test one time in ten thousand; the keys are fixed."""

TABLES_1_7_8_AND_C_2 = {
    "object_size",
    "link_mass",
    "object_mass",
    "surface_friction",
    "joint_damping",
    "actuator_gain",
    "joint_limit",
    "gravity",
    "correlated_noise",
    "uncorrelated_noise",
    "marker_placement",
    "marker_dropout",
    "marker_occlusion",
    "action_noise",
    "action_delay",
    "backlash",
    "timestep_jitter",
    "random_push",
}

FIELDS = {
    "object_size": {"geom_size", "body_inertia"},
    "link_mass": {"body_mass", "body_inertia"},
    "object_mass": {"body_mass", "body_inertia"},
    "surface_friction": {"geom_friction"},
    "joint_damping": {"dof_damping"},
    "actuator_gain": {"actuator_gainprm", "actuator_biasprm"},
    "joint_limit": {"jnt_range"},
    "gravity": {"gravity"},
    "tendon_range": {"tendon_range"},
}
"""Model fields that each physics effect may change, but for object_shape, which needs
another object."""


def make_menu(hand, **changes):
    config = replace(RandomizationConfig(preset="extras"), **changes)
    return Randomization(hand, config, PERIOD)


def draw_episode(randomization, key):
    ranges = whole_ranges(randomization.enabled)
    draw = randomization.draw_physics(key, ranges)
    return randomization.draw_signals(key, draw, ranges)


@pytest.fixture(scope="module")
def everything(hand):
    return make_menu(hand)


@pytest.fixture(scope="module")
def draws(everything) -> EpisodeDraw:
    """[DRAWS] episodes with everything on."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return jax.jit(jax.vmap(lambda key: draw_episode(everything, key)))(keys)


@pytest.fixture(scope="module")
def nominal(hand):
    return physics.nominal(hand)


# --- names ---


def test_the_menu_holds_all_that_the_paper_randomizes():
    assert set(menu.PRESETS["all"]) == TABLES_1_7_8_AND_C_2
    assert set(menu.EFFECTS) == TABLES_1_7_8_AND_C_2 | {
        "tendon_range",
        "object_tracking_loss",
        "object_shape",
    }
    assert "object_shape" not in menu.PRESETS["extras"]


@pytest.mark.parametrize("effect", menu.EFFECTS)
def test_an_effect_has_one_name_everywhere(effect):
    functions = physics.EFFECTS if effect in physics.EFFECTS else SIGNAL_EFFECTS
    assert functions[effect].__name__ == effect
    holder = PhysicsDraw if effect in physics.EFFECTS else EpisodeDraw
    assert effect in {field.name for field in dataclasses.fields(holder)}
    assert effect in {field.name for field in dataclasses.fields(RandomizationConfig)}
    switched = RandomizationConfig(preset="none", on=(effect,))
    assert menu.enabled_effects(switched) == {effect}


def test_presets_are_the_ablations_of_section_6_3():
    def missing(preset):
        return set(menu.PRESETS["all"]) - set(menu.PRESETS[preset])

    assert not menu.PRESETS["none"]
    assert missing("no_physics") == set(FIELDS) - {"tendon_range"}
    assert missing("no_observation_noise") == {
        "correlated_noise",
        "uncorrelated_noise",
        "marker_placement",
    }
    assert missing("no_unmodeled") == {
        "action_noise",
        "action_delay",
        "backlash",
        "marker_dropout",
        "marker_occlusion",
        "timestep_jitter",
        "random_push",
    }


def test_the_papers_menu_is_the_default_and_quickstart_goes_without():
    from mjx_dex import settings

    assert menu.enabled_effects(Config().randomization) == TABLES_1_7_8_AND_C_2
    assert not menu.enabled_effects(settings.load("quickstart").randomization)
    paper = settings.load("paper").randomization
    assert menu.enabled_effects(paper) == TABLES_1_7_8_AND_C_2


def test_groups_are_switched_as_one():
    config = RandomizationConfig(off=("physics", "backlash"), on=("extra",))
    expected = TABLES_1_7_8_AND_C_2 - set(FIELDS) - {"backlash"}
    expected |= {"tendon_range", "object_tracking_loss"}
    assert menu.enabled_effects(config) == expected


@pytest.mark.parametrize("field", ["on", "off"])
def test_an_unknown_effect_is_an_error_that_suggests_one(field):
    message = rf"{field}\[0\] is 'backlach'.*did you mean backlash"
    with pytest.raises(ValueError, match=message):
        RandomizationConfig(**{field: ("backlach",)})


def test_names_that_a_configuration_may_hold_are_the_menus():
    fields = set(RandomizationConfig.__dataclass_fields__)
    assert fields - {"preset", "off", "on", "adaptive"} == set(menu.EFFECTS)
    assert get_args(Group) == tuple(menu.GROUPS)
    assert get_args(Preset) == tuple(menu.PRESETS)
    assert set(get_args(Input)) == set(SIZES)


# --- physics effects: (parameters, draw, nominal) -> parameters ---


@pytest.mark.parametrize("effect", FIELDS)
def test_a_nominal_draw_changes_nothing(effect, hand, nominal):
    draw = getattr(physics.nominal_draw(hand), effect)
    after = physics.EFFECTS[effect](nominal.parameters, draw, nominal)
    jax.tree.map(np.testing.assert_array_equal, after, nominal.parameters)


@pytest.mark.parametrize("effect", FIELDS)
def test_only_declared_fields_change(effect, draws, nominal):
    draw = jax.tree.map(lambda x: x[0], getattr(draws.physics, effect))
    after = physics.EFFECTS[effect](nominal.parameters, draw, nominal)
    changed = {
        name
        for name, value in vars(nominal.parameters).items()
        if name != "derived" and (getattr(after, name) != value).any()
    }
    assert changed == FIELDS[effect]


@pytest.mark.parametrize("effect", FIELDS)
def test_three_applications_equal_one(effect, draws, nominal):
    first, other = (
        jax.tree.map(lambda x, i=i: x[i], getattr(draws.physics, effect))
        for i in (0, 1)
    )
    function = physics.EFFECTS[effect]
    once = function(nominal.parameters, first, nominal)
    again = once
    for draw in (first, other, first):
        again = function(again, draw, nominal)
    jax.tree.map(np.testing.assert_array_equal, again, once)


def test_effects_do_not_depend_on_their_order(draws, nominal):
    draw = jax.tree.map(lambda x: x[0], draws.physics)
    expected, found = physics.apply(draw, nominal), nominal.parameters
    for name, effect in reversed(physics.EFFECTS.items()):
        found = effect(found, getattr(draw, name), nominal)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_mass_and_size_scale_the_objects_inertia_as_m_s_squared(hand, nominal):
    draw = physics.nominal_draw(hand).replace(
        object_mass=jnp.float32(1.5), object_size=jnp.float32(1.05)
    )
    after = physics.apply(draw, nominal)
    # A cube's: m s^2 / 6.
    expected = 1.5 * 0.078 * (1.05 * 0.057) ** 2 / 6
    np.testing.assert_allclose(after.body_inertia[-1], expected, rtol=1e-5)
    np.testing.assert_allclose(after.body_mass[-1], 1.5 * 0.078, rtol=1e-6)
    np.testing.assert_allclose(after.geom_size[-1], 1.05 * 0.0285, rtol=1e-6)


def test_limits_never_cross(draws):
    limits = np.asarray(draws.parameters.jnt_range)[:, :24]
    assert (limits[..., 1] - limits[..., 0] >= 0.05 - 1e-5).all()


def test_ranges_of_targets_never_turn_inside_out(hand, draws, nominal):
    ranges = jax.vmap(lambda p: physics.control_range(p, nominal, hand))(
        draws.parameters
    )
    width = np.asarray(ranges)[..., 1] - np.asarray(ranges)[..., 0]
    assert width.shape == (DRAWS, 20)
    assert (width >= 0.05 - 1e-5).all()


# --- signal effects: (key, value, draw, memory) -> (value, memory) ---


def signal_arguments(effect):
    """Value and context of an effect, some plausible numbers."""
    rng = np.random.default_rng(1)

    def some(*shape):
        return jnp.asarray(rng.uniform(-0.5, 0.5, shape), jnp.float32)

    if effect in menu.ACTION:
        return some(20), {}
    if effect == "timestep_jitter":
        return jnp.float32(0.008), {}
    if effect == "random_push":
        return jnp.zeros(3), {"mass": jnp.float32(0.078)}
    quaternion = some(4)
    sensors = Sensors(
        fingertips=some(5, 3),
        object_position=some(3),
        object_orientation=quaternion / jnp.linalg.norm(quaternion),
        joint_angles=some(24),
        joint_velocities=some(24),
        object_velocity=some(3),
        object_angular_velocity=some(3),
    )
    context = {}
    if effect == "marker_placement":
        base = [[0.078, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.078]]
        context = {
            "fingertip_rotations": jnp.stack([jnp.eye(3)] * 5),
            "base_markers": jnp.array(base),
        }
    if effect == "marker_occlusion":
        context = {"depths": jnp.array([-0.1, 0.0, 0.0002, 0.001, 0.01])}
    return sensors, context


@pytest.mark.parametrize("effect", SIGNAL_EFFECTS)
def test_a_nominal_draw_passes_every_signal_on(effect, everything):
    value, context = signal_arguments(effect)
    draw, memory = everything.nominal_draw(), EffectMemory.empty()
    for seed in range(3):
        after, memory = everything.apply(
            effect, jax.random.key(seed), value, draw, memory, **context
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), after, value
        )


@pytest.mark.parametrize("effect", SIGNAL_EFFECTS)
def test_a_drawn_effect_changes_the_signal(effect, everything, draws):
    value, context = signal_arguments(effect)
    if effect == "action_delay":
        value = value + 1  # the action before was 0
    memory = EffectMemory.empty().replace(readings=jnp.int32(1))
    apply = jax.jit(lambda *a: everything.apply(effect, *a, **context)[0])
    for seed in range(2000):  # the rarest, a push, comes once in a thousand steps
        draw = jax.tree.map(lambda x, i=seed: x[i], draws)
        after = apply(jax.random.key(seed), value, draw, memory)
        same = jax.tree.map(lambda a, b: bool((a == b).all()), after, value)
        if not all(jax.tree.leaves(same)):
            return
    raise AssertionError(f"{effect} did nothing")


@pytest.mark.parametrize("effect", SIGNAL_EFFECTS)
def test_a_signal_effect_that_is_off_does_nothing_at_all(effect, hand, draws):
    value, context = signal_arguments(effect)
    without = make_menu(hand, off=(effect,))
    draw, memory = jax.tree.map(lambda x: x[0], draws), EffectMemory.empty()
    after, kept = without.apply(
        effect, jax.random.key(0), value, draw, memory, **context
    )
    assert after is value
    assert kept is memory


# --- what is drawn ---


def draw_of(effect, episode):
    holder = episode.physics if effect in physics.EFFECTS else episode
    return getattr(holder, effect)


@pytest.fixture(scope="module")
def whole_episode(everything):
    """Not compiled as one, so that nothing is rounded differently for what is left."""
    return draw_episode(everything, jax.random.key(3))


@pytest.mark.parametrize("effect", menu.EFFECTS)
def test_switching_one_effect_off_leaves_all_other_draws_bit_identical(
    effect, hand, whole_episode
):
    without = make_menu(hand, off=(effect,))
    found = draw_episode(without, jax.random.key(3))
    for name in menu.EFFECTS:
        expected = without.nominal_draw() if name == effect else whole_episode
        jax.tree.map(
            np.testing.assert_array_equal, draw_of(name, found), draw_of(name, expected)
        )


def test_vmap_equals_a_loop(everything, draws):
    draw = jax.jit(lambda key: draw_episode(everything, key))
    for i, key in enumerate(jax.random.split(jax.random.key(0), DRAWS)[:3]):
        alone = draw(key)
        # Constants derived by matrix products may be summed in another order.
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a, b[i], rtol=2e-5),
            alone,
            draws,
        )


def uniform(low, high):
    return stats.uniform(low, high - low)


PHYSICS_DISTRIBUTIONS = {
    "object_size": uniform(0.95, 1.05),
    "link_mass": uniform(0.5, 1.5),
    "object_mass": uniform(0.5, 1.5),
    "surface_friction": uniform(0.7, 1.3),
    "joint_damping": stats.loguniform(0.3, 3.0),
    "actuator_gain": stats.loguniform(0.75, 1.5),
    "joint_limit": stats.norm(0, 0.15),
    "gravity": stats.norm(0, 0.4),
    "tendon_range": stats.norm(0, 0.15),
}
"""Table 1."""


def assert_distributed(values, distribution):
    """Kolmogorov and Smirnov's test of the entries that an episode draws, each."""
    values = np.asarray(values, float).reshape(DRAWS, -1)
    columns = values.T if values.shape[1] <= 6 else values.T[:: values.shape[1] // 6]
    for column in columns:
        p = stats.kstest(column, distribution.cdf).pvalue
        assert p > SIGNIFICANCE / len(columns)


@pytest.mark.parametrize("effect", PHYSICS_DISTRIBUTIONS)
def test_physics_is_distributed_as_in_table_1(effect, draws):
    assert_distributed(getattr(draws.physics, effect), PHYSICS_DISTRIBUTIONS[effect])


def test_correlated_noise_is_distributed_as_in_table_7(draws):
    errors = draws.correlated_noise
    assert_distributed(errors.fingertips, stats.norm(0, 0.001))
    assert_distributed(errors.object_position, stats.norm(0, 0.005))
    turn = np.linalg.norm(errors.object_orientation, axis=-1)
    assert_distributed(turn, stats.halfnorm(0, 0.1))
    # Each coordinate of an axis drawn evenly from the sphere is uniform.
    axis = np.asarray(errors.object_orientation) / turn[:, None]
    assert_distributed(axis, uniform(-1, 1))


def test_uncorrelated_noise_has_the_deviations_of_table_7(draws):
    deviations = draws.uncorrelated_noise
    np.testing.assert_allclose(deviations.fingertips, 0.002, rtol=1e-6)
    np.testing.assert_allclose(deviations.object_position, 0.001, rtol=1e-6)
    np.testing.assert_allclose(deviations.object_orientation, 0.1, rtol=1e-6)


def test_marker_placement_is_distributed_as_in_table_7(draws):
    assert_distributed(draws.marker_placement.fingertips, stats.norm(0, 0.003))
    assert_distributed(draws.marker_placement.base, stats.norm(0, 0.001))


def test_action_noise_is_distributed_as_in_table_8(draws):
    noise = draws.action_noise
    assert_distributed(noise.correlated, stats.norm(0, 0.03))
    # 5 % and 1.5 % of a range that is 2 wide.
    np.testing.assert_allclose(noise.additive, 0.05 * 2, rtol=1e-6)
    np.testing.assert_allclose(noise.multiplicative, 0.015 * 2, rtol=1e-6)


def test_half_of_all_actuators_are_delayed(draws):
    share = np.asarray(draws.action_delay).mean(0)
    assert share.shape == (20,)
    # Four and a half standard errors, for 20 actuators.
    np.testing.assert_allclose(share, 0.5, atol=4.5 * 0.5 / DRAWS**0.5)


def test_backlash_is_gaussian_around_the_calibrated_logarithms(hand, draws):
    half_range = np.ptp(hand.ctrl_range, axis=1)[:, None] / 2
    rate = 1 / (np.asarray(draws.backlash, float) * half_range * PERIOD)
    noise = (np.log(rate) - hand.log_backlash) / 0.1
    assert_distributed(noise, stats.norm())


def test_jitters_rate_is_uniform(draws):
    assert_distributed(1 / np.asarray(draws.timestep_jitter), uniform(1250, 10_000))


def test_pushes_are_as_probable_as_in_c_2(draws):
    push = draws.random_push
    assert_distributed(push.probability, stats.loguniform(0.001, 0.1))
    np.testing.assert_array_equal(push.acceleration, 1.0)
    np.testing.assert_allclose(push.decay, 0.99, rtol=1e-6)


@pytest.mark.parametrize("period", [0.04, 0.16])
def test_pushes_come_and_fade_in_time_not_in_control_steps(hand, everything, period):
    """Whatever the control period, the same is left of a push after a second."""
    other = Randomization(hand, everything._config, period)
    paper, ours = (
        draw_episode(menu, jax.random.key(3)).random_push
        for menu in (everything, other)
    )
    for name in ("decay", "probability"):
        left, expected = (np.float64(getattr(draw, name)) for draw in (ours, paper))
        if name == "probability":  # of a second without a new push
            left, expected = 1 - left, 1 - expected
        assert left ** (1 / period) == pytest.approx(expected ** (1 / PERIOD), rel=1e-4)


def test_markers_are_lost_at_the_papers_rate(draws):
    # 0.2 within a second of 12.5 control steps.
    kept = (1 - np.asarray(draws.marker_dropout.probability)) ** 12.5
    np.testing.assert_allclose(1 - kept, 0.2, rtol=1e-5)
    np.testing.assert_allclose(draws.marker_dropout.steps, 12.5, rtol=1e-6)


def test_entries_of_one_draw_are_independent(draws):
    # Neighbouring joints' damping: the correlation of 10,000 pairs has error 0.01.
    damping = np.log(np.asarray(draws.physics.joint_damping))
    correlation = np.corrcoef(damping.T) - np.eye(24)
    assert np.abs(correlation).max() < 0.05
