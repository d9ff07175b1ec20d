"""Where a segmenter's head begins: all that computes each pixel from itself, behind the last wide convolution.

It costs little and decides about the last digits, so that graphs in fewer bits keep it in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

# Each computes a pixel of its output from the same pixel of its inputs; of convolutions those of 1 x 1, of poolings
# those along channels.
_POINTWISE = frozenset({"Add", "Conv", "MaxPool", "ReduceMax", "Relu", "Reshape", "Sigmoid", "Squeeze", "Unsqueeze"})


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: its operator and its place in the graph."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"


def head_of(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes behind the last wide convolution, its ReLU and its sums; all nodes must have names."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    pending, head = [graph.output[0].name], set[str]()
    while pending:
        node = makers.get(pending.pop())
        if node is None or node.name in head or not _is_pointwise(node) or _completes_a_wide_one(node, makers):
            continue
        head.add(node.name)
        pending.extend(node.input)
    return frozenset(head)


def _completes_a_wide_one(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a ReLU or a sum takes nothing but wide convolutions: it is computed with them."""
    before = [makers.get(name) for name in node.input]
    return node.op_type in ("Add", "Relu") and all(
        maker is not None and (not _is_pointwise(maker) or _completes_a_wide_one(maker, makers)) for maker in before
    )


def _is_pointwise(node: onnx.NodeProto) -> bool:
    kernels = [list(a.ints)[-2:] for a in node.attribute if a.name == "kernel_shape"]
    return node.op_type in _POINTWISE and (kernels == [[1, 1]] or (not kernels and node.op_type != "Conv"))
