import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.config import AdaptiveConfig, RandomizationConfig
from mjx_dex.randomization import AdaptiveRanges, Randomization
from mjx_dex.randomization.adaptive import NO_PROBE
from mjx_dex.randomization.menu import EFFECTS

WORLDS = 512
HEAVIEST = 1.31
"""Objects up to this share of the nominal mass can be turned in the probe task."""
CONFIG = AdaptiveConfig(enabled=True, probing=0.5, episodes=32, step=0.05)


def update(ranges, *arguments):
    return ranges.judge(ranges.count(*arguments))


@pytest.fixture(scope="module")
def menu(hand):
    effects = ("object_mass", "joint_damping", "gravity")
    config = RandomizationConfig(preset="none", on=effects, adaptive=CONFIG)
    return Randomization(hand, config, 0.08)


@pytest.fixture(scope="module")
def ranges(menu):
    return AdaptiveRanges(menu.enabled, CONFIG)


@pytest.fixture(scope="module")
def play(menu, ranges):
    """One round: every world plays an episode, in which only the mass matters."""

    def draw(state, key):
        probe = ranges.start_probe(key)
        return probe, menu.draw_physics(key, ranges.ranges(state, probe)).physics

    @jax.jit
    def play(state, key):
        keys = jax.random.split(key, WORLDS)
        probes, draws = jax.vmap(draw, (None, 0))(state, keys)
        goals = jnp.where(draws.object_mass <= HEAVIEST, 10.0, 0.0)
        ended = jnp.ones(WORLDS, bool)
        return update(ranges, state, probes, ended, goals), draws, probes

    return play


@pytest.fixture(scope="module")
def history(ranges, play):
    """[rounds] levels of every bound by effect, and the last round's draws."""
    state, levels = ranges.init(), []
    for k in range(150):
        state, draws, probes = play(state, jax.random.key(k))
        levels.append(ranges.named_levels(state))
    levels = jax.tree.map(lambda *x: np.stack(x), *levels)
    return levels, jax.tree.map(np.asarray, (draws, probes))


def test_ranges_begin_without_randomization(ranges, play):
    _, draws, _ = play(ranges.init(), jax.random.key(0))
    np.testing.assert_array_equal(draws.object_mass, 1.0)
    np.testing.assert_array_equal(draws.joint_damping, 1.0)
    np.testing.assert_array_equal(draws.gravity, 0.0)


def test_the_range_widens_to_the_right_boundary_and_stops_there(history):
    levels, _ = history
    upper = levels["object_mass"][:, 1]
    # U[0.5, 1.5]: a level of 1 is a factor of 1.5.
    boundary = (HEAVIEST - 1) / 0.5
    assert upper[0] <= 0.1
    settled = upper[-50:]
    assert (np.abs(settled - boundary) <= 0.051).all()


def test_other_bounds_widen_to_what_was_asked_for_and_no_further(history):
    levels, _ = history
    np.testing.assert_allclose(levels["object_mass"][-1, 0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(levels["joint_damping"][-1], 1.0, rtol=1e-5)
    np.testing.assert_allclose(levels["gravity"][-1, 1], 1.0, rtol=1e-5)


def test_draws_fill_the_range_found(history):
    levels, (draws, _) = history
    mass = draws.object_mass
    highest = 1 + 0.5 * levels["object_mass"][-2, 1]
    assert mass.max() <= highest + 1e-6
    assert mass.min() >= 0.5
    # Half of 512 episodes probe, the other half lie between: some near each end.
    assert (mass > highest - 0.05).sum() > 5
    assert (mass < 0.55).sum() > 5


def test_a_probing_episode_runs_at_its_bound(history, ranges):
    levels, (draws, probes) = history
    probing = probes != NO_PROBE
    # Five bounds: mass and damping have two, gravity's strength has one.
    assert set(probes[probing]) == set(range(5))
    share, error = probing.mean(), 0.5 / WORLDS**0.5
    assert abs(share - 0.5) < 4 * error
    highest = 1 + 0.5 * levels["object_mass"][-2, 1]
    at_bound = np.isclose(draws.object_mass, highest, rtol=1e-6)
    assert at_bound.sum() >= (probes == 1).sum() > 0
    assert at_bound[probes == 1].all()
    np.testing.assert_allclose(draws.object_mass[probes == 0], 0.5, rtol=1e-6)


def test_a_bound_that_became_too_hard_moves_in(ranges):
    state = ranges.init()
    state = state.replace(levels=jnp.full_like(state.levels, 0.5))
    probes = jnp.full(32, 1, jnp.int32)
    after = update(ranges, state, probes, jnp.ones(32, bool), jnp.zeros(32))
    moved = np.argwhere(np.asarray(after.levels) != 0.5)
    np.testing.assert_array_equal(moved, [[EFFECTS.index("object_mass"), 1]])
    np.testing.assert_allclose(after.levels.min(), 0.45, rtol=1e-6)


def test_between_the_thresholds_a_bound_stays(ranges):
    state = ranges.init()
    state = state.replace(levels=jnp.full_like(state.levels, 0.5))
    goals = jnp.full(32, (CONFIG.widen_at + CONFIG.narrow_at) / 2)
    probes = jnp.full(32, 1, jnp.int32)
    after = update(ranges, state, probes, jnp.ones(32, bool), goals)
    np.testing.assert_array_equal(after.levels, state.levels)
    np.testing.assert_array_equal(after.episodes, 0)


def test_episodes_that_go_on_or_probe_nothing_do_not_count(ranges):
    state = ranges.init()
    probes = jnp.array([1] * 16 + [NO_PROBE] * 16, jnp.int32)
    ended = jnp.array([False] * 16 + [True] * 16)
    after = update(ranges, state, probes, ended, jnp.full(32, 10.0))
    np.testing.assert_array_equal(after.episodes, 0)
    np.testing.assert_array_equal(after.goals, 0)


def test_a_bound_is_judged_only_after_enough_episodes(ranges):
    state, goals = ranges.init(), jnp.full(31, 10.0)
    probes, ended = jnp.full(31, 1, jnp.int32), jnp.ones(31, bool)
    state = update(ranges, state, probes, ended, goals)
    np.testing.assert_array_equal(state.levels, 0)
    assert state.episodes.sum() == 31
    state = update(ranges, state, probes[:1], ended[:1], goals[:1])
    assert state.levels.max() == np.float32(CONFIG.step)
    assert state.episodes.sum() == 0


def test_devices_move_their_bounds_together(ranges):
    # Sixteen episodes at the same bound on each of two devices, and 32 are enough.
    states = jax.tree.map(lambda x: jnp.stack([x, x]), ranges.init())
    probes, ended = jnp.full((2, 16), 1), jnp.ones((2, 16), bool)
    # On average 7.5 goals: the first device alone would narrow, the second widen.
    goals = jnp.stack([jnp.zeros(16), jnp.full(16, 15.0)])
    counted = jax.vmap(ranges.count)(states, probes, ended, goals)
    after = jax.vmap(lambda s: ranges.judge(s, "devices"), axis_name="devices")(counted)
    row = EFFECTS.index("object_mass")
    np.testing.assert_allclose(after.levels[:, row, 1], CONFIG.step)
    np.testing.assert_array_equal(after.episodes, 0)
