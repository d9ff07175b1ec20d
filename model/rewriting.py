"""What passes over an ONNX graph ask of its values, and how they put new nodes in place of old ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape


def producer_of(value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value; None for images and constants."""
    return value.producer() if value is not None else None


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The node that takes a value, if there is one alone and the value does not leave the graph."""
    consumers = value.consumers()
    return consumers[0] if len(consumers) == 1 and not value.is_graph_output() else None


def static_shape(value: ir.Value | None) -> list[int]:
    """Shape of a value with -1 for every dynamic extent."""
    assert value is not None and value.shape is not None, "exported graphs declare the rank of every value"
    return [extent if isinstance(extent, int) else -1 for extent in value.shape]


def constant_of(value: ir.Value | None) -> NDArray[np.generic]:
    """The array behind a weight, a bias, an axis."""
    assert value is not None and value.const_value is not None, "weights and axes are constants of the graph"
    return value.const_value.numpy()


def bias_of(node: ir.Node, outputs: int) -> NDArray[np.generic]:
    """A convolution's bias (outputs,); the exporter leaves out those that are zero."""
    return constant_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(outputs, dtype=np.float32)


def tensor_of(array: NDArray[np.generic]) -> ir.TensorProtocol:
    """An array as a constant for a graph."""
    return ir.Tensor(np.ascontiguousarray(array))


def put_in_place(graph: ir.Graph, old: Sequence[ir.Node], tape: Tape, result: ir.Value) -> None:
    """Put the tape's nodes where the old ones stood; the last old node's output becomes ``result``."""
    for value in tape.initializers:
        graph.register_initializer(value)
    ir.convenience.replace_nodes_and_values(graph, old[-1], old, list(tape.nodes), [old[-1].outputs[0]], [result])
