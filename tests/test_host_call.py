"""NumPy functions called by compiled programs: values, errors, and the cache."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.physics import host_call


def weigh(arguments, results):
    """Row sums times a weight, and how many there are."""
    values, weight = arguments
    if (weight < 0).any():
        raise ArithmeticError("negative weight")
    results[0][...] = values.sum(-1) * weight
    results[1][...] = values.shape[-1]


def weighted(values, weight):
    shapes = [jax.ShapeDtypeStruct((), t) for t in (jnp.float32, jnp.int32)]
    return host_call.call("test_weigh", shapes, values, weight)


@pytest.fixture(scope="module", autouse=True)
def registered():
    host_call.register("test_weigh", weigh)


def test_values_pass_both_ways_with_and_without_worlds():
    values, weight = np.arange(6, dtype=np.float32).reshape(2, 3), np.float32([2, 10])
    total, count = jax.jit(jax.vmap(weighted))(values, weight)
    np.testing.assert_array_equal(total, [6.0, 120.0])
    np.testing.assert_array_equal(count, [3, 3])
    total, _ = jax.jit(jax.vmap(weighted, (0, None)))(values, jnp.float32(1))
    np.testing.assert_array_equal(total, [3.0, 12.0])
    total, count = jax.jit(weighted)(values[1], weight[1])
    assert (float(total), int(count)) == (120.0, 3)


def test_empty_arrays_are_arrays():
    total, count = jax.jit(weighted)(jnp.zeros(0), jnp.float32(1))
    assert (float(total), int(count)) == (0.0, 0)


def test_an_exception_ends_the_program_with_its_message():
    with pytest.raises(Exception, match="ArithmeticError: negative weight"):
        jax.block_until_ready(jax.jit(weighted)(jnp.ones(3), jnp.float32(-1)))
    total, _ = jax.jit(weighted)(jnp.ones(3), jnp.float32(1))  # and the next one runs
    assert float(total) == 3.0


def test_a_program_with_physics_is_compiled_once_for_all_processes(tmp_path):
    program = """
import jax, jax.monitoring as monitoring
from mjx_dex.config import Config, PhysicsConfig
from mjx_dex.hand import build_hand
from mjx_dex.physics import initial_state, make_engine, nominal_parameters
import jax.numpy as jnp
hits = []
monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
)
hand = build_hand(Config().hand, Config().object, PhysicsConfig())
engine = make_engine("native", hand, PhysicsConfig())
world = nominal_parameters(hand.model), initial_state(hand.model)
ends = jnp.zeros(20), jnp.zeros(3), jnp.full(10, 0.008)
hits.clear()  # of what is not the step
state, _ = jax.jit(engine.step)(*world, *ends)
print("step" if hits else "nothing", float(state.qpos[26]))
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ
            | {
                "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            },
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert [hit for hit, _ in said] == ["nothing", "step"]
    assert said[0][1] == said[1][1]
