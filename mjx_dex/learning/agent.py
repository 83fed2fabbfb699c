"""Policy and value network with what they need to be evaluated."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax

from mjx_dex.config import NetworkConfig
from mjx_dex.learning.distributions import Distribution, make_distribution
from mjx_dex.learning.networks import Carry, Network
from mjx_dex.learning.statistics import Statistics


class Networks(NamedTuple):
    """What is learned, without its parameters."""

    policy: Network
    value: Network
    actions: Distribution
    """Whose parameters the policy puts out."""


def make_networks(
    config: NetworkConfig, action_shape: tuple[int, int | None]
) -> Networks:
    """Both networks.

    Args:
        config: sizes and memories.
        action_shape: action coordinates, and bins of each; None if any number will do.
    """
    coordinates, bins = action_shape
    actions = make_distribution(bins)
    policy = Network(
        outputs=(coordinates, actions.num_outputs),
        hidden=config.hidden,
        memory=config.memory,
        recurrent=config.policy_memory == "lstm",
        head_scale=0.01,  # begins with all actions nearly equally likely
        matmul_precision=config.matmul_precision,
    )
    value = Network(
        outputs=(),
        hidden=config.hidden,
        memory=config.memory,
        recurrent=config.value_memory == "lstm",
        head_scale=1.0,
        matmul_precision=config.matmul_precision,
    )
    return Networks(policy, value, actions)


@dataclass(frozen=True)
class Agent:
    """Both networks with parameters and statistics, for one environment."""

    networks: Networks
    parameters: dict[str, Any]
    """Of "policy" and "value"."""
    statistics: dict[str, Statistics]
    """Of "policy" and "value" observations and of "returns"."""

    def in_float32(self) -> "Agent":
        """The same agent with products in float32, as a robot computes them."""
        policy, value = (
            network.clone(matmul_precision="float32") for network in self.networks[:2]
        )
        networks = self.networks._replace(policy=policy, value=value)
        return replace(self, networks=networks)

    def act(
        self, carry: Carry, observation: jax.Array, first: jax.Array
    ) -> tuple[Carry, jax.Array]:
        """New policy memory and outputs [coordinates, n] for one observation.

        Actions are drawn from them by ``networks.actions``.
        """
        inputs = self.statistics["policy"].normalize_clipped(observation)
        carry, outputs = self.networks.policy.apply(
            self.parameters["policy"], carry, inputs[None], first[None]
        )
        return carry, outputs[0]

    def value(
        self, carry: Carry, observation: jax.Array, first: jax.Array
    ) -> tuple[Carry, jax.Array]:
        """New value memory and the value [] of one observation, in units of reward."""
        inputs = self.statistics["value"].normalize_clipped(observation)
        carry, value = self.networks.value.apply(
            self.parameters["value"], carry, inputs[None], first[None]
        )
        return carry, self.statistics["returns"].denormalize(value[0])
