"""Policy and value network with what they need to be evaluated."""

from dataclasses import dataclass
from typing import Any

import jax

from mjx_dex.config import NetworkConfig
from mjx_dex.learning.networks import Carry, Network
from mjx_dex.learning.statistics import Statistics


def make_networks(
    config: NetworkConfig, action_shape: tuple[int, int]
) -> tuple[Network, Network]:
    """The policy, one logit per bin of each action coordinate, and the value."""
    policy = Network(
        outputs=action_shape,
        hidden=config.hidden,
        memory=config.memory,
        recurrent=config.policy_memory == "lstm",
        head_scale=0.01,  # begins with all bins nearly equally likely
    )
    value = Network(
        outputs=(),
        hidden=config.hidden,
        memory=config.memory,
        recurrent=config.value_memory == "lstm",
        head_scale=1.0,
    )
    return policy, value


@dataclass(frozen=True)
class Agent:
    """Both networks with parameters and statistics, for one environment."""

    policy_network: Network
    value_network: Network
    parameters: dict[str, Any]
    """Of "policy" and "value"."""
    statistics: dict[str, Statistics]
    """Of "policy" and "value" observations and of "returns"."""

    def act(
        self, carry: Carry, observation: jax.Array, first: jax.Array
    ) -> tuple[Carry, jax.Array]:
        """New policy memory and logits [coordinates, bins] for one observation."""
        inputs = self.statistics["policy"].normalize_clipped(observation)
        carry, logits = self.policy_network.apply(
            self.parameters["policy"], carry, inputs[None], first[None]
        )
        return carry, logits[0]

    def value(
        self, carry: Carry, observation: jax.Array, first: jax.Array
    ) -> tuple[Carry, jax.Array]:
        """New value memory and the value [] of one observation, in units of reward."""
        inputs = self.statistics["value"].normalize_clipped(observation)
        carry, value = self.value_network.apply(
            self.parameters["value"], carry, inputs[None], first[None]
        )
        return carry, self.statistics["returns"].denormalize(value[0])
