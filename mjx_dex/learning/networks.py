"""Policy and value networks (Table 10, Figure 12).

Every network maps a memory and a sequence of observations to the new memory and a
sequence of outputs. Acting is the same call with a sequence of one, so that replaying a
stored sequence is equal to having acted it. Time is the first axis; environments, if
there are several, come second, so that a step of all of them lies together in memory.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from mjx_dex.config import Precision

UNROLL = 10
"""Steps of a recurrence compiled as one: a whole chunk of Table 10, whose gradient then
takes a fifth less time on a CPU."""

Carry = tuple[jax.Array, ...]
"""An LSTM's cell state and output, [units] each; empty without memory."""


def product(x: jax.Array, y: jax.Array, precision: Precision) -> jax.Array:
    """``x @ y`` for [..., n] and [n, m], the same in the gradient."""
    # As one long matrix: for the gradient of more axes XLA copies transposed arrays.
    rows = x.reshape(-1, x.shape[-1])
    if precision in ("bfloat16", "tensorfloat32"):
        result = _coarse_product(rows, y, precision)
    else:
        result = jnp.matmul(rows, y, precision=precision)
    return result.reshape(*x.shape[:-1], y.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _coarse_product(x: jax.Array, y: jax.Array, precision: Precision) -> jax.Array:
    """``x @ y`` of rounded operands, summed and returned in float32.

    Gradients are rounded, too, before they are multiplied.
    """
    return _multiply(_rounded(x, precision), _rounded(y, precision), precision)


def _rounded(x: jax.Array, precision: Precision) -> jax.Array:
    """Operands as tensor cores see them. A CPU silently ignores JAX's presets."""
    if precision == "bfloat16":
        return x.astype(jnp.bfloat16)
    to_11_bits = partial(jax.lax.reduce_precision, exponent_bits=8, mantissa_bits=10)
    # GPUs round to tensorfloat32 on the way into their tensor cores.
    return jax.lax.platform_dependent(x, cpu=to_11_bits, default=lambda x: x)


def _multiply(x: jax.Array, y: jax.Array, precision: Precision) -> jax.Array:
    preset = "tensorfloat32" if precision == "tensorfloat32" else None
    return jnp.matmul(x, y, precision=preset, preferred_element_type=jnp.float32)


def _coarse_forward(x, y, precision):
    saved = _rounded(x, precision), _rounded(y, precision)
    return _multiply(*saved, precision), saved


def _coarse_backward(precision, saved, gradient):
    x, y = saved
    gradient = _rounded(gradient, precision)
    return _multiply(gradient, y.T, precision), _multiply(x.T, gradient, precision)


_coarse_product.defvjp(_coarse_forward, _coarse_backward)


class LSTM(nn.Module):
    """Long short-term memory over a sequence, cleared where an episode begins."""

    units: int
    matmul_precision: Precision = "float32"

    @nn.compact
    def __call__(
        self, carry: Carry, inputs: jax.Array, first: jax.Array
    ) -> tuple[Carry, jax.Array]:
        """Run over [T, ..., features] inputs; ``first`` is [T, ...] bool."""
        # All input products at once: the loop is left with the recurrent ones only.
        gates = _dense(4 * self.units, "input", self.matmul_precision)(inputs)
        recurrent = self.param(
            "recurrent", nn.initializers.orthogonal(), (self.units, 4 * self.units)
        )
        return _recur(self.matmul_precision, carry, gates, first, recurrent)


def _loop(
    precision: Precision,
    carry: Carry,
    gates: jax.Array,
    first: jax.Array,
    recurrent: jax.Array,
) -> tuple[Carry, jax.Array]:
    """Over [T, ..., 4 * units] input products: the new carry and all outputs."""

    def step(carry, now):
        gates_t, first_t = now
        cell, output = _cleared(carry, first_t)
        gates_t += product(output, recurrent, precision)
        i, f, g, o = jnp.split(gates_t, 4, axis=-1)
        # The forget gate starts open, so that gradients reach back from the start.
        cell = nn.sigmoid(f + 1.0) * cell + nn.sigmoid(i) * jnp.tanh(g)
        output = nn.sigmoid(o) * jnp.tanh(cell)
        return (cell, output), output

    return jax.lax.scan(step, carry, (gates, first), unroll=UNROLL)


def _loop_forward(precision, carry, gates, first, recurrent):
    def of_inputs(carry, gates):
        return _loop(precision, carry, gates, first, recurrent)

    (last, outputs), pull_back = jax.vjp(of_inputs, carry, gates)
    before = jnp.concatenate([carry[1][None], outputs[:-1]])
    return (last, outputs), (pull_back, _cleared(before, first))


def _loop_backward(precision, saved, gradient):
    """The weights' gradient as one product over all steps, not one for each."""
    pull_back, before = saved
    carry, gates = pull_back(gradient)
    before, of_gates = (x.reshape(-1, x.shape[-1]) for x in (before, gates))
    return carry, gates, None, product(before.T, of_gates, precision)


_recur = jax.custom_vjp(_loop, nondiff_argnums=(0,))
_recur.defvjp(_loop_forward, _loop_backward)


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
    matmul_precision: Precision = "float32"

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
        precision = self.matmul_precision
        x = nn.relu(_dense(self.hidden, "dense", precision)(inputs))
        if self.recurrent:
            carry, x = LSTM(self.memory, precision, name="lstm")(carry, x, first)
        else:
            x = nn.relu(_dense(self.memory, "no_memory", precision)(x))
        size = 1
        for length in self.outputs:
            size *= length
        head_scale = nn.initializers.orthogonal(self.head_scale)
        x = _dense(size, "head", precision, kernel_init=head_scale)(x)
        return carry, x.reshape(*x.shape[:-1], *self.outputs)

    def initial_carry(self) -> Carry:
        """An empty memory."""
        if not self.recurrent:
            return ()
        return jnp.zeros(self.memory), jnp.zeros(self.memory)


def _dense(units: int, name: str, precision: Precision, **options) -> nn.Dense:
    def dot_general(x, kernel, dimensions, **_):
        return product(x, kernel, precision)

    return nn.Dense(units, name=name, dot_general=dot_general, **options)
