"""The policy network as an ONNX graph, for runtimes other than Python's.

Written by hand: twenty nodes need no converter. Inputs are ``observation`` [1, n] and,
with an LSTM, ``cell`` and ``output`` [1, units]; outputs are ``action_outputs``
[1, 20, bins] and the new memory, ``cell_next`` and ``output_next``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
"""Of ONNX: old enough for the runtimes that robots have."""


def make_model(
    weights: dict[str, np.ndarray], memory: str, metadata: dict[str, str]
) -> onnx.ModelProto:
    """The checked model.

    Args:
        weights: as ``Policy`` takes them.
        memory: 'lstm' or 'none'.
        metadata: goes into the file: names of joints, units and the like.
    """
    graph = _Graph(weights)
    x = graph.add("Sub", ["observation", graph.constant("mean", weights["mean"])])
    x = graph.add("Div", [x, graph.constant("deviation", weights["deviation"])])
    clip = np.float32(weights["clip"])
    bounds = [graph.constant("low", -clip), graph.constant("high", clip)]
    x = graph.add("Clip", [x, *bounds])
    x = graph.add("Relu", [graph.dense("dense", x)])
    inputs, outputs = {"observation": (1, len(weights["mean"]))}, {}
    if memory == "lstm":
        units = len(weights["lstm_recurrent"])
        x = _lstm(graph, x)
        inputs |= {"cell": (1, units), "output": (1, units)}
        outputs |= {"cell_next": (1, units), "output_next": (1, units)}
    else:
        x = graph.add("Relu", [graph.dense("no_memory", x)])
    shape = tuple(int(n) for n in (1, *weights["output_shape"]))
    head = graph.dense("head", x)
    target = graph.constant("shape", np.array(shape, np.int64))
    graph.add("Reshape", [head, target], "action_outputs")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [_tensor(name, shape) for name, shape in inputs.items()],
            [
                _tensor(name, shape)
                for name, shape in ({"action_outputs": shape} | outputs).items()
            ],
            graph.constants,
        ),
        producer_name="mjx_dex",
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = 8
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def _lstm(graph: _Graph, x: str) -> str:
    recurrent = graph.constant("lstm_recurrent", graph.weights["lstm_recurrent"])
    gates = graph.add(
        "Add",
        [graph.dense("lstm_input", x), graph.add("MatMul", ["output", recurrent])],
    )
    names = graph.split(gates, ("i", "f", "g", "o"))
    i, f, o = (graph.add("Sigmoid", [names[gate]]) for gate in "ifo")
    g = graph.add("Tanh", [names["g"]])
    kept = graph.add("Mul", [f, "cell"])
    cell = graph.add("Add", [kept, graph.add("Mul", [i, g])], "cell_next")
    return graph.add("Mul", [o, graph.add("Tanh", [cell])], "output_next")


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, inputs: list[str], output: str | None = None) -> str:
        """A node; returns its output's name."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output]))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        """A named constant."""
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def dense(self, layer: str, x: str) -> str:
        """A layer with kernel and bias."""
        kernel, bias = (
            self.constant(f"{layer}/{part}", self.weights[f"{layer}/{part}"])
            for part in ("kernel", "bias")
        )
        return self.add("Add", [self.add("MatMul", [x, kernel]), bias])

    def split(self, x: str, names: tuple[str, ...]) -> dict[str, str]:
        """Equal parts along the last axis."""
        self.nodes.append(helper.make_node("Split", [x], list(names), axis=1))
        return {name: name for name in names}


def _tensor(name: str, shape: tuple[int, ...]):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
