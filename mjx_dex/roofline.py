"""How fast mjx could be: its operations and bytes against what the device can do."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from mjx_dex.config import Config
from mjx_dex.hand import build_hand
from mjx_dex.physics import initial_state, make_engine, nominal_parameters

WORLDS = 64
"""Stepped together while operations are counted; they are in proportion to it."""
MATRIX = {"cpu": 1024}
"""Rows of a product that is large enough to keep a device busy; elsewhere 8192."""
VECTOR = {"cpu": 2**25}
"""Length of a vector that no cache holds; elsewhere 2**28."""


@dataclass(frozen=True)
class Roofline:
    """What one physics step of one world takes on mjx, by XLA's estimate, and what the
    device can give."""

    operations: float
    """Floating point operations of a step."""
    bytes: float
    """That the operations of a step read and write, caches left aside."""
    operations_per_second: float
    """Of a large matrix product in float32."""
    bytes_per_second: float
    """Of a vector that is read and written."""

    @property
    def steps_per_second(self) -> float:
        """Physics steps of all worlds together, if nothing else held mjx up."""
        by_operations = self.operations_per_second / self.operations
        return min(by_operations, self.bytes_per_second / self.bytes)

    def __str__(self):
        return (
            f"roofline: a physics step of mjx takes {self.operations / 1e6:.2f} "
            f"million operations and {self.bytes / 1e6:.2f} MB, every loop counted "
            "once; this "
            f"device does {self.operations_per_second / 1e9:,.0f} billion operations/s "
            f"and {self.bytes_per_second / 1e9:,.0f} GB/s: enough for "
            f"{self.steps_per_second:,.0f} physics steps/s"
        )


def measure(config: Config) -> Roofline:
    """Count by XLA's own account of mjx, and time the device.

    XLA counts a loop's body once, however often it runs: this is a step of one Newton
    iteration with one step of its line search. It sees into mjx alone; the other
    engines move other numbers of bytes.
    """
    hand = build_hand(config.hand, config.object, config.physics)
    step = jax.vmap(make_engine("mjx", hand, config.physics).step)
    nominal = (
        nominal_parameters(hand.model),
        initial_state(hand.model),
        jnp.zeros(hand.model.nu),
        jnp.zeros(3),
        jnp.full(1, config.physics.timestep, jnp.float32),
    )
    worlds = jax.tree.map(lambda x: jnp.stack([x] * WORLDS), nominal)
    cost = jax.jit(step).lower(*worlds).compile().cost_analysis()
    return Roofline(
        operations=cost["flops"] / WORLDS,
        bytes=cost["bytes accessed"] / WORLDS,
        operations_per_second=_operations_per_second(),
        bytes_per_second=_bytes_per_second(),
    )


def _operations_per_second() -> float:
    size = MATRIX.get(jax.default_backend(), 8192)
    matrix = jnp.ones((size, size))
    product = jax.jit(partial(jnp.matmul, precision="float32"))
    return 2 * size**3 / _seconds(product, matrix, matrix)


def _bytes_per_second() -> float:
    vector = jnp.ones(VECTOR.get(jax.default_backend(), 2**28))
    return 2 * vector.nbytes / _seconds(jax.jit(lambda x: x + 1), vector)


def _seconds(function: Callable, *arguments) -> float:
    """Median of five runs, after one that is not timed."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
