"""Automatic domain randomization (Akkaya et al. 2019): ranges that follow the policy.

Training begins without randomization. Some episodes probe: they run with one effect at
the present bound of its range. Where the policy does well at a bound, the bound moves
out; where it fails, it moves in.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mjx_dex.config import AdaptiveConfig
from mjx_dex.randomization.distributions import Range
from mjx_dex.randomization.menu import EFFECTS, SETTLED

TWO_SIDED = (
    "object_size",
    "link_mass",
    "object_mass",
    "surface_friction",
    "joint_damping",
    "actuator_gain",
)
"""Effects with a lower and an upper bound around nominal; others have a strength."""

FIXED = ("marker_occlusion", "backlash")
"""Effects that are there or not, and are never weakened."""

NO_PROBE = -1


@struct.dataclass
class AdaptiveState:
    """What is known of each bound; rows are all ``EFFECTS``, whether they are on or
    not, columns lower and upper bound."""

    levels: jax.Array
    """[effects, 2] each bound's distance from nominal, 1 being the one asked for."""
    goals: jax.Array
    """[effects, 2] goals met in episodes at that bound since it was last judged, on
    this device."""
    episodes: jax.Array
    """[effects, 2] number of those episodes."""


class AdaptiveRanges:
    """Ranges to draw from, and how they move.

    Args:
        enabled: effects that are on.
        config: thresholds and steps. When it is not enabled every range is whole.
    """

    def __init__(self, enabled: frozenset[str], config: AdaptiveConfig):
        self._config = config
        self._names = [name for name in EFFECTS if name in enabled]
        self._rows = {name: EFFECTS.index(name) for name in self._names}
        for name in FIXED:
            self._rows.pop(name, None)
        bounds = [
            (row, side)
            for name, row in self._rows.items()
            for side in (0, 1)
            if side == 1 or name in TWO_SIDED
        ]
        self._bounds = jnp.array(bounds, jnp.int32).reshape(-1, 2)
        is_settled = [EFFECTS[row] in SETTLED for row, _ in bounds]
        self._is_settled = jnp.array(is_settled, bool)
        # Probes of episodes, beside those of their starts: see ``episode_probe``.
        self._free = np.flatnonzero(~np.array(is_settled, bool))
        settled = config.probing * np.mean(is_settled or [0])
        self._free_share = (config.probing - settled) / max(1 - settled, 1e-9)

    @property
    def is_on(self) -> bool:
        """Whether ranges move at all."""
        return self._config.enabled and bool(self._rows)

    def init(self) -> AdaptiveState:
        """No randomization."""
        zeros = jnp.zeros((len(EFFECTS), 2))
        return AdaptiveState(zeros, zeros, zeros)

    def start_probe(self, key: jax.Array) -> jax.Array:
        """[] int32: index of the bound that a start probes, or ``NO_PROBE``."""
        if not self.is_on:
            return jnp.int32(NO_PROBE)
        return _choose(key, np.arange(len(self._bounds)), self._config.probing)

    def episode_probe(self, key: jax.Array, of_start: jax.Array) -> jax.Array:
        """[] int32: index of the bound that an episode probes, or ``NO_PROBE``.

        A bound of a ``SETTLED`` effect is probed by all episodes of a start that was
        drawn there. Other episodes choose among the other bounds, so often that over
        all episodes every bound is as likely as any other.

        Args:
            key: random key.
            of_start: [] as ``start_probe`` returned it.
        """
        if not self.is_on or not len(self._free):
            return of_start
        is_settled = (of_start != NO_PROBE) & self._is_settled[of_start]
        return jnp.where(
            is_settled, of_start, _choose(key, self._free, self._free_share)
        )

    def ranges(self, state: AdaptiveState, probe: jax.Array) -> dict[str, Range]:
        """What to draw each effect of an episode from.

        Args:
            state: present bounds.
            probe: [] bound that the episode or start probes, or ``NO_PROBE``.
        """
        if not self.is_on:
            return whole_ranges(self._names)
        effect, side = self._bounds[jnp.maximum(probe, 0)]
        ranges = whole_ranges(set(self._names) & set(FIXED))
        for name, row in self._rows.items():
            low, high = -state.levels[row, 0], state.levels[row, 1]
            probed = (probe != NO_PROBE) & (effect == row)
            ranges[name] = Range(
                low=jnp.where(probed & (side == 1), high, low),
                high=jnp.where(probed & (side == 0), low, high),
            )
        return ranges

    def count(
        self,
        state: AdaptiveState,
        probes: jax.Array,
        ended: jax.Array,
        goals: jax.Array,
    ) -> AdaptiveState:
        """Count the episodes that have just ended.

        Args:
            state: before.
            probes: [n] bound that each world's episode probed, or ``NO_PROBE``.
            ended: [n] bool: the episode has just ended.
            goals: [n] goals that it met.
        """
        counted = ended & (probes != NO_PROBE)
        effect, side = self._bounds[jnp.maximum(probes, 0)].T
        return state.replace(
            goals=state.goals.at[effect, side].add(jnp.where(counted, goals, 0.0)),
            episodes=state.episodes.at[effect, side].add(counted),
        )

    def judge(
        self, state: AdaptiveState, axis_name: str | None = None
    ) -> AdaptiveState:
        """Move the bounds that were tried often enough.

        Args:
            state: before.
            axis_name: episodes count on all devices along this axis, so that their
                bounds stay the same.
        """
        config, (goals, episodes) = self._config, (state.goals, state.episodes)
        if axis_name is not None:
            goals, episodes = jax.lax.psum((goals, episodes), axis_name)
        judged = episodes >= config.episodes
        mean = goals / jnp.maximum(episodes, 1)
        move = jnp.where(mean >= config.widen_at, config.step, 0.0)
        move = jnp.where(mean < config.narrow_at, -config.step, move)
        return AdaptiveState(
            levels=jnp.clip(state.levels + judged * move, 0.0, config.limit),
            goals=jnp.where(judged, 0.0, state.goals),
            episodes=jnp.where(judged, 0.0, state.episodes),
        )

    def mean_level(self, state: AdaptiveState) -> jax.Array:
        """[] mean over all bounds."""
        return state.levels[self._bounds[:, 0], self._bounds[:, 1]].mean()

    def named_levels(self, state: AdaptiveState) -> dict[str, jax.Array]:
        """[2] lower and upper level of each adapted effect, by name."""
        return {name: state.levels[row] for name, row in self._rows.items()}


def _choose(key: jax.Array, bounds: np.ndarray, share: float) -> jax.Array:
    """[] int32: any one of ``bounds`` with probability ``share``, else ``NO_PROBE``."""
    which_key, whether_key = jax.random.split(key)
    bound = jnp.asarray(bounds)[jax.random.randint(which_key, (), 0, len(bounds))]
    probes = jax.random.bernoulli(whether_key, share)
    return jnp.where(probes, bound, NO_PROBE).astype(jnp.int32)


def whole_ranges(names: Iterable[str]) -> dict[str, Range]:
    """What to draw effects from where nothing adapts: all that was asked for."""
    return {
        name: Range.whole() if name in TWO_SIDED else Range.full_strength()
        for name in names
    }
