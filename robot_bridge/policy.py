"""The policy network in NumPy, one observation at a time (Table 10).

``mjx_dex.learning.networks`` is the same in JAX; ``export`` takes its weights.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

Carry = Tuple[np.ndarray, ...]
"""An LSTM's cell state and output, [units] each; empty without memory."""

WEIGHTS = {
    "lstm": ("dense", "lstm_input", "head"),
    "none": ("dense", "no_memory", "head"),
}
"""Layers with a kernel and a bias, by the kind of memory."""


class Policy:
    """Normalization, dense ReLU layer, LSTM (or a second dense layer), linear head.

    Args:
        weights: float32 arrays by name: ``mean``, ``deviation`` and ``clip`` of the
            observations, ``<layer>/kernel`` and ``<layer>/bias``, and for an LSTM
            ``lstm_recurrent``, gates in the order i, f, g, o.
        memory: 'lstm' or 'none'.

    Raises:
        KeyError: if a weight is missing.
        ValueError: if ``memory`` is neither, or a weight is not finite.
    """

    def __init__(self, weights: dict[str, np.ndarray], memory: str):
        if memory not in WEIGHTS:
            raise ValueError(f"network.memory {memory!r} is neither 'lstm' nor 'none'")
        for name, array in weights.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
        self._layers = {
            layer: (weights[f"{layer}/kernel"], weights[f"{layer}/bias"])
            for layer in WEIGHTS[memory]
        }
        self._memory = memory
        self._mean, self._deviation = weights["mean"], weights["deviation"]
        self._clip = np.float32(weights["clip"])
        if memory == "lstm":
            self._recurrent = weights["lstm_recurrent"]
        self._shape = tuple(weights["output_shape"])

    @property
    def num_inputs(self) -> int:
        """Length of an observation."""
        return len(self._mean)

    def initial_carry(self) -> Carry:
        """An empty memory."""
        if self._memory == "none":
            return ()
        units = len(self._recurrent)
        return np.zeros(units, np.float32), np.zeros(units, np.float32)

    def step(self, carry: Carry, observation: np.ndarray) -> tuple[Carry, np.ndarray]:
        """New memory and outputs [coordinates, n] for an observation [inputs]."""
        inputs = (np.asarray(observation, np.float32) - self._mean) / self._deviation
        x = np.maximum(
            self._dense("dense", np.clip(inputs, -self._clip, self._clip)), 0
        )
        if self._memory == "lstm":
            carry, x = self._lstm(carry, x)
        else:
            x = np.maximum(self._dense("no_memory", x), 0)
        return carry, self._dense("head", x).reshape(self._shape)

    def _dense(self, layer: str, x: np.ndarray) -> np.ndarray:
        kernel, bias = self._layers[layer]
        return x @ kernel + bias

    def _lstm(self, carry: Carry, x: np.ndarray) -> tuple[Carry, np.ndarray]:
        cell, output = carry
        gates = self._dense("lstm_input", x) + output @ self._recurrent
        i, f, g, o = np.split(gates, 4)
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
        output = _sigmoid(o) * np.tanh(cell)
        return (cell, output), output


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # By tanh: the exponential of a large number would overflow.
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))
