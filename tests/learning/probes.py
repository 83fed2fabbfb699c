"""Tiny environments whose values and best policies are known exactly."""

import jax
import jax.numpy as jnp
from flax import struct

from mjx_dex.types import Observation, TimeStep


@struct.dataclass
class ProbeState:
    step: jax.Array
    """[] int32, actions taken in this episode."""
    sign: jax.Array
    """[] -1 or +1, drawn once for the episode."""


class Probe:
    """``length`` steps, then the end; what is seen and earned is up to subclasses."""

    action_shape = (1, 2)
    length = 1
    truncates = False

    def see(self, state: ProbeState) -> jax.Array:
        raise NotImplementedError

    def earn(self, state: ProbeState, action: jax.Array) -> jax.Array:
        raise NotImplementedError

    def reset(self, key):
        sign = jax.random.rademacher(key, (), jnp.float32)
        state = ProbeState(step=jnp.zeros((), jnp.int32), sign=sign)
        return state, self._observation(state)

    def step(self, state, action):
        reward = jnp.asarray(self.earn(state, action), jnp.float32)
        state = state.replace(step=state.step + 1)
        ended = state.step == self.length
        observation = self._observation(state)
        return state, TimeStep(
            observation=observation,
            last_observation=observation,
            reward=reward,
            terminated=ended & (not self.truncates),
            truncated=ended & self.truncates,
            metrics={"episodes": ended, "reward": reward},
        )

    def _observation(self, state):
        seen = jnp.asarray(self.see(state), jnp.float32)
        return Observation(policy=seen, value=seen)


class ConstantReward(Probe):
    """Value 1, whatever is done."""

    def see(self, state):
        return jnp.ones(1)

    def earn(self, state, action):
        return 1.0


class RewardFromObservation(Probe):
    """The observation, -1 or +1, is the reward: value -1 or +1."""

    def see(self, state):
        return state.sign[None]

    def earn(self, state, action):
        return state.sign


class DelayedReward(Probe):
    """Sees 0, then 1, and then earns 1: values gamma and 1."""

    length = 2

    def see(self, state):
        return state.step[None]

    def earn(self, state, action):
        return state.step == 1


class RewardFromAction(Probe):
    """Bin 1 earns 1, bin 0 nothing: the best policy's value is 1."""

    def see(self, state):
        return jnp.zeros(1)

    def earn(self, state, action):
        return action[0] == 1


RIGHT_BINS = {+1: (2, 0), -1: (0, 1)}
"""What ``RewardFromBoth`` wants, by what it shows."""


class RewardFromBoth(Probe):
    """Two coordinates of three bins, each +-1/2: right bins depend on what is seen."""

    action_shape = (2, 3)

    def see(self, state):
        return state.sign[None]

    def earn(self, state, action):
        right = jnp.where(
            state.sign > 0, jnp.array(RIGHT_BINS[+1]), jnp.array(RIGHT_BINS[-1])
        )
        return jnp.where(action == right, 0.5, -0.5).sum()


class RewardFromNumber(Probe):
    """Any number will do; the farther from half of what is seen, the less is earned."""

    action_shape = (1, None)

    def see(self, state):
        return state.sign[None]

    def earn(self, state, action):
        return 1 - jnp.square(action[0] - state.sign / 2)


class Memory(Probe):
    """The cue is seen at first only; repeating it in the last action earns 1, else -1.

    Without memory the mean reward is 0, whatever the policy.
    """

    length = 4

    def see(self, state):
        return jnp.where(state.step == 0, state.sign, 0.0)[None]

    def earn(self, state, action):
        right = (action[0] == 1) == (state.sign > 0)
        return jnp.where(
            state.step == self.length - 1, jnp.where(right, 1.0, -1.0), 0.0
        )


class Endless(Probe):
    """Earns 1 for ever, cut every ``length`` steps: value 1 / (1 - gamma) everywhere.

    What is seen goes round in a circle, so that the cut is at a familiar place.
    """

    length = 4
    truncates = True

    def see(self, state):
        return jnp.eye(self.length)[state.step % self.length]

    def earn(self, state, action):
        return 1.0


class Mortal(Endless):
    """The same, but it ends there: the value is what is left to earn."""

    truncates = False
