"""Drawing an episode from the menu, and applying its effects step by step.

Every effect draws with a key into which its name is folded, so that switching one off
leaves the draws of all others bit for bit as they were: ablations are paired.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex.config import (
    ActionNoise,
    Alternative,
    Delay,
    Dropout,
    MarkerDeviations,
    Normal,
    Push,
    RandomizationConfig,
    SensorDeviations,
    Uniform,
    per_control_step,
)
from mjx_dex.hand import Hand
from mjx_dex.randomization import action, forces, observation, physics, timing
from mjx_dex.randomization.derived import Derivation
from mjx_dex.randomization.distributions import Range, draw_between, draw_normal
from mjx_dex.randomization.menu import SETTLED, enabled_effects
from mjx_dex.types import (
    ActionErrors,
    EffectMemory,
    EpisodeDraw,
    LossDraw,
    MarkerShifts,
    PushDraw,
    SensorErrors,
)

SIGNAL_EFFECTS = {
    function.__name__: function
    for function in (
        action.action_noise,
        action.action_delay,
        action.backlash,
        timing.timestep_jitter,
        forces.random_push,
        observation.marker_placement,
        observation.correlated_noise,
        observation.uncorrelated_noise,
        observation.marker_occlusion,
        observation.marker_dropout,
        observation.object_tracking_loss,
    )
}
"""Effects on what passes between policy and world, in the order of a control step."""


class Randomization:
    """The menu for one scene and configuration.

    Args:
        hand: the scene, with an object.
        config: which effects, how strong.
        period: of control [s].

    Raises:
        ValueError: if the object cannot be given the other shapes that are asked for.
    """

    def __init__(self, hand: Hand, config: RandomizationConfig, period: float):
        self.enabled = enabled_effects(config)
        self.nominal = physics.nominal(hand)
        if "object_shape" in self.enabled and not self.nominal.is_prism:
            raise ValueError(
                "randomization: object_shape makes blocks of prisms; it needs "
                "object.shape prism"
            )
        self._config, self._period = config, period
        self._num_actions = hand.model.nu
        self._derivation = Derivation(hand.model)
        self._nominal_physics = physics.nominal_draw(hand)
        self._log_backlash = jnp.asarray(hand.log_backlash, jnp.float32)
        self._half_range = jnp.asarray(np.ptp(hand.ctrl_range, axis=1) / 2, jnp.float32)

    def nominal_draw(self) -> EpisodeDraw:
        """The episode in which nothing is randomized."""
        zero, actions = jnp.zeros(()), self._num_actions
        return EpisodeDraw(
            physics=self._nominal_physics,
            parameters=self.nominal.parameters,
            correlated_noise=SensorErrors(
                jnp.zeros((5, 3)), jnp.zeros(3), jnp.zeros(3)
            ),
            uncorrelated_noise=SensorErrors(zero, zero, zero),
            marker_placement=MarkerShifts(jnp.zeros((5, 3)), jnp.zeros((3, 3))),
            marker_dropout=LossDraw(zero, zero),
            marker_occlusion=jnp.float32(1.0),
            object_tracking_loss=LossDraw(zero, zero),
            action_noise=ActionErrors(jnp.zeros(actions), zero, zero),
            action_delay=jnp.zeros(actions, bool),
            backlash=jnp.zeros((actions, 2)),
            timestep_jitter=zero,
            random_push=PushDraw(zero, zero, jnp.ones(())),
        )

    def draw_physics(
        self, key: jax.Array, ranges: dict[str, Range], start: EpisodeDraw | None = None
    ) -> EpisodeDraw:
        """Physics of a start, or of an episode that continues one.

        Args:
            key: random key.
            ranges: part of each effect's range to draw from.
            start: whose ``SETTLED`` effects an episode keeps; None for a start, for
                which everything is drawn.

        Returns:
            The draw; noise, delays and all else that is not physics are as in
            ``start``, nominal by default.
        """
        kept = () if start is None else SETTLED
        before = self.nominal_draw() if start is None else start
        factors = {
            name: self._draw_factors(
                name, key, jnp.shape(getattr(self._nominal_physics, name)), part
            )
            for name, part in ranges.items()
            if name in physics.EFFECTS and name in self.enabled and name not in kept
        }
        if not factors:
            return before
        draw = before.physics.replace(**factors)
        parameters = physics.apply(draw, self.nominal)
        derived = self._derivation.derive(parameters)
        return before.replace(
            physics=draw, parameters=parameters.replace(derived=derived)
        )

    def draw_signals(
        self, key: jax.Array, draw: EpisodeDraw, ranges: dict[str, Range]
    ) -> EpisodeDraw:
        """The same physics with all else drawn anew.

        Args:
            key: random key.
            draw: holds the physics.
            ranges: part of each effect's range to draw from.
        """
        signals = {
            name: getattr(self, f"_draw_{name}")(
                *_keys(key, name), getattr(self._config, name), part
            )
            for name, part in ranges.items()
            if name in SIGNAL_EFFECTS and name in self.enabled
        }
        return draw.replace(**signals)

    def apply(
        self,
        name: str,
        key: jax.Array,
        value: Any,
        draw: EpisodeDraw,
        memory: EffectMemory,
        **context: jax.Array,
    ) -> tuple[Any, EffectMemory]:
        """Apply the signal effect of that name, if it is on.

        Args:
            name: of ``SIGNAL_EFFECTS``.
            key: random key of the control step.
            value: what the effect changes.
            draw: of the episode.
            memory: of the effects.
            context: what else the effect's function asks for.
        """
        if name not in self.enabled:
            return value, memory
        effect = SIGNAL_EFFECTS[name]
        key = effect_key(key, name)
        return effect(key, value, getattr(draw, name), memory, **context)

    def _draw_factors(self, name, key, shape, part: Range) -> jax.Array:
        config, key = getattr(self._config, name), effect_key(key, name)
        if isinstance(config, Normal):
            return draw_normal(key, config, shape, part)
        if isinstance(config, Alternative):
            probability = part.strength(jax.random.fold_in(key, 0)) * config.probability
            return jax.random.bernoulli(key, probability, shape).astype(jnp.float32)
        return draw_between(key, config, shape, part)

    def _draw_marker_placement(self, key, strength_key, config: MarkerDeviations, part):
        strength = part.strength(strength_key)
        tips_key, base_key = jax.random.split(key)
        return MarkerShifts(
            fingertips=strength
            * config.fingertips
            * jax.random.normal(tips_key, (5, 3)),
            base=strength * config.base * jax.random.normal(base_key, (3, 3)),
        )

    def _draw_correlated_noise(self, key, strength_key, config, part):
        deviations = self._draw_uncorrelated_noise(key, strength_key, config, part)
        return observation.draw_errors(key, deviations)

    def _draw_uncorrelated_noise(self, _, strength_key, config: SensorDeviations, part):
        strength = part.strength(strength_key)
        return SensorErrors(
            fingertips=strength * config.fingertips,
            object_position=strength * config.object_position,
            object_orientation=strength * config.object_orientation,
        )

    def _draw_marker_occlusion(self, _, strength_key, config, part):
        return jnp.float32(config.depth)

    def _draw_marker_dropout(self, _, strength_key, config: Dropout, part):
        probability = 1 - (1 - config.rate) ** self._period
        return LossDraw(
            probability=part.strength(strength_key) * probability,
            steps=jnp.float32(config.seconds / self._period),
        )

    _draw_object_tracking_loss = _draw_marker_dropout

    def _draw_action_noise(self, key, strength_key, config: ActionNoise, part):
        strength = part.strength(strength_key)
        noise = jax.random.normal(key, (self._num_actions,))
        return ActionErrors(
            correlated=strength * config.correlated * noise,
            additive=strength * config.additive,
            multiplicative=strength * config.multiplicative,
        )

    def _draw_action_delay(self, key, strength_key, config: Delay, part):
        probability = part.strength(strength_key) * config.probability
        return jax.random.bernoulli(key, probability, (self._num_actions,))

    def _draw_backlash(self, key, strength_key, config: Normal, part):
        # Calibrated as logarithms of 1/(rad s): in units of actions and control steps.
        noise = config.deviation * jax.random.normal(key, self._log_backlash.shape)
        rate = jnp.exp(self._log_backlash + noise)
        return 1 / (rate * self._half_range[:, None] * self._period)

    def _draw_timestep_jitter(self, key, strength_key, config: Uniform, part):
        rate = jax.random.uniform(key, minval=config.low, maxval=config.high)
        return part.strength(strength_key) / rate

    def _draw_random_push(self, key, strength_key, config: Push, part):
        within_80_ms = draw_between(key, config.probability, (), Range.whole())
        none = per_control_step(1 - within_80_ms, self._period)
        return PushDraw(
            probability=1 - none,
            acceleration=part.strength(strength_key) * config.acceleration,
            decay=jnp.float32(per_control_step(config.decay, self._period)),
        )


def effect_key(key: jax.Array, name: str) -> jax.Array:
    """The key of one effect: independent of which others are on."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _keys(key: jax.Array, name: str) -> jax.Array:
    """[2] keys of one effect: for its draw, and for how strong it is."""
    return jax.random.split(effect_key(key, name))
