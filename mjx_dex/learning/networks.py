"""Policy and value networks (Table 10, Figure 12).

Every network maps a memory and a sequence of observations to the new memory and a
sequence of outputs. Acting is the same call with a sequence of one, so that replaying a
stored sequence is equal to having acted it. Time is the first axis; environments, if
there are several, come second, so that a step of all of them lies together in memory.
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
        """Run over [T, ..., features] inputs; ``first`` is [T, ...] bool."""
        # All input products at once: the loop is left with the recurrent ones only.
        gates = _to_rows(nn.Dense(4 * self.units, name="input"), inputs)
        recurrent = self.param(
            "recurrent", nn.initializers.orthogonal(), (self.units, 4 * self.units)
        )
        return _recur(carry, gates, first, recurrent)


def _loop(
    carry: Carry, gates: jax.Array, first: jax.Array, recurrent: jax.Array
) -> tuple[Carry, jax.Array]:
    """The loop over [T, ..., 4 * units] input products: new carry and all outputs."""

    def step(carry, now):
        gates_t, first_t = now
        cell, output = _cleared(carry, first_t)
        i, f, g, o = jnp.split(gates_t + output @ recurrent, 4, axis=-1)
        # The forget gate starts open, so that gradients reach back from the start.
        cell = nn.sigmoid(f + 1.0) * cell + nn.sigmoid(i) * jnp.tanh(g)
        output = nn.sigmoid(o) * jnp.tanh(cell)
        return (cell, output), output

    return jax.lax.scan(step, carry, (gates, first), unroll=UNROLL)


def _recur_forward(carry, gates, first, recurrent):
    def of_inputs(carry, gates):
        return _loop(carry, gates, first, recurrent)

    (last, outputs), pull_back = jax.vjp(of_inputs, carry, gates)
    before = jnp.concatenate([carry[1][None], outputs[:-1]])
    return (last, outputs), (pull_back, _cleared(before, first))


def _recur_backward(saved, gradient):
    """The weights' gradient as one product over all steps, not one for each."""
    pull_back, before = saved
    carry, gates = pull_back(gradient)
    rows = (x.reshape(-1, x.shape[-1]) for x in (before, gates))
    return carry, gates, None, next(rows).T @ next(rows)


_recur = jax.custom_vjp(_loop)
_recur.defvjp(_recur_forward, _recur_backward)


def _cleared(memory, first: jax.Array):
    """Memory [..., units], 0 where ``first`` [...]."""
    return jax.tree.map(lambda x: jnp.where(first[..., None], 0.0, x), memory)


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
            carry: [..., units] memory before it.
            inputs: [T, ..., features], normalized.
            first: [T, ...] bool: memory is cleared before that input.

        Returns:
            The memory after it and [T, ..., *outputs].
        """
        x = nn.relu(_to_rows(nn.Dense(self.hidden, name="dense"), inputs))
        if self.recurrent:
            carry, x = LSTM(self.memory, name="lstm")(carry, x, first)
        else:
            x = nn.relu(_to_rows(nn.Dense(self.memory, name="no_memory"), x))
        size = 1
        for length in self.outputs:
            size *= length
        head = nn.Dense(
            size,
            kernel_init=nn.initializers.orthogonal(self.head_scale),
            name="head",
        )
        x = _to_rows(head, x)
        return carry, x.reshape(*x.shape[:-1], *self.outputs)

    def initial_carry(self) -> Carry:
        """An empty memory."""
        if not self.recurrent:
            return ()
        return jnp.zeros(self.memory), jnp.zeros(self.memory)


def _to_rows(layer: nn.Dense, x: jax.Array) -> jax.Array:
    """A dense layer applied to [..., features] as to one long matrix.

    The weights' gradient is then a plain product; of arrays with more axes XLA copies
    transposed ones first.
    """
    y = layer(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], y.shape[-1])
