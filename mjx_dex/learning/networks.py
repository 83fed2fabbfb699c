"""Policy and value networks (Table 10, Figure 12), each for one environment.

Every network maps a memory and a sequence of observations to the new memory and a
sequence of outputs. Acting is the same call with a sequence of one, so that replaying a
stored sequence is equal to having acted it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

UNROLL = 10
"""Steps of a recurrence compiled as one: a whole chunk of Table 10, whose gradient then
takes a fifth less time on a CPU."""

Carry = tuple[jax.Array, ...]
"""An LSTM's cell state and output, [units] each; empty without memory."""


class LSTM(nn.Module):
    """Long short-term memory over a sequence, cleared where an episode begins."""

    units: int

    @nn.compact
    def __call__(
        self, carry: Carry, inputs: jax.Array, first: jax.Array
    ) -> tuple[Carry, jax.Array]:
        """Run over [T, features] inputs; ``first`` is [T] bool."""
        # All input products at once: the loop is left with the recurrent ones only.
        gates = nn.Dense(4 * self.units, name="input")(inputs)
        recurrent = self.param(
            "recurrent", nn.initializers.orthogonal(), (self.units, 4 * self.units)
        )

        def step(carry, now):
            gates_t, first_t = now
            cell, output = jax.tree.map(lambda x: jnp.where(first_t, 0.0, x), carry)
            i, f, g, o = jnp.split(gates_t + output @ recurrent, 4)
            # The forget gate starts open, so that gradients reach back from the start.
            cell = nn.sigmoid(f + 1.0) * cell + nn.sigmoid(i) * jnp.tanh(g)
            output = nn.sigmoid(o) * jnp.tanh(cell)
            return (cell, output), output

        return jax.lax.scan(step, carry, (gates, first), unroll=UNROLL)


class Network(nn.Module):
    """Dense ReLU layer, then LSTM (or a second dense layer), then a linear head."""

    outputs: tuple[int, ...]
    """Shape of the output for one observation."""
    hidden: int
    memory: int
    recurrent: bool
    head_scale: float
    """Scale of the head's initial weights."""

    @nn.compact
    def __call__(
        self, carry: Carry, inputs: jax.Array, first: jax.Array
    ) -> tuple[Carry, jax.Array]:
        """Run over a sequence.

        Args:
            carry: memory before it.
            inputs: [T, features], normalized.
            first: [T] bool: memory is cleared before that input.

        Returns:
            The memory after it and [T, *outputs].
        """
        x = nn.relu(nn.Dense(self.hidden, name="dense")(inputs))
        if self.recurrent:
            carry, x = LSTM(self.memory, name="lstm")(carry, x, first)
        else:
            x = nn.relu(nn.Dense(self.memory, name="no_memory")(x))
        size = 1
        for length in self.outputs:
            size *= length
        x = nn.Dense(
            size,
            kernel_init=nn.initializers.orthogonal(self.head_scale),
            name="head",
        )(x)
        return carry, x.reshape(*x.shape[:-1], *self.outputs)

    def initial_carry(self) -> Carry:
        """An empty memory."""
        if not self.recurrent:
            return ()
        return jnp.zeros(self.memory), jnp.zeros(self.memory)
