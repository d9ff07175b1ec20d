"""Storing a graph's weights in half precision: a file of half the size whose arithmetic is still float32.

Every convolution's filter bank ``w`` becomes a float16 constant with a Cast to float32 behind it:

    w' = float32(float16(w)),   |w' - w| <= 2^-11 |w|   (for |w| >= 2^-14; below, <= 2^-25)

A runtime computes the Cast once, when it loads the file, and from there on knows no difference.  Rounding acts on each
weight by itself: filters that are turned copies of one another before are so afterwards, and a symmetric network stays
exactly symmetric.  Biases stay float32: they are a hundredth of the file.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGEST_HALF = float(np.finfo(np.float16).max)


def store_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph with its filter banks (constants of two or more axes) in float16, each cast to float32 for use.

    Raises:
        ValueError: a weight that float16 cannot hold, above 65504 in magnitude or no number.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    casts = []
    for tensor in halved.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, stored = tensor.name, f"{tensor.name}_float16"
        tensor.CopyFrom(checked_half(tensor, stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def checked_half(weights: TensorProto, name: str) -> TensorProto:
    """Weights in float16, under another name.

    Raises:
        ValueError: one that float16 cannot hold, above 65504 in magnitude or no number.
    """
    values = numpy_helper.to_array(weights)
    if not np.all(np.abs(values) <= LARGEST_HALF):
        raise ValueError(
            f"weights {weights.name} reach {np.abs(values).max():g} in magnitude; float16 holds up to "
            f"{LARGEST_HALF:g}: store them as float32"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def one_digit_above(value: float) -> float:
    """The least number with one significant decimal digit that is not below ``value``: 0.0061 -> 0.007."""
    return float(Context(prec=1, rounding=ROUND_CEILING).create_decimal(repr(value)))


def restore_whole(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph that ``store_in_half`` wrote with float32 constants in place of the casts; any other as it is."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in whole.graph.initializer}
    rest = []
    for node in whole.graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            tensor = stored[node.input[0]]
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        else:
            rest.append(node)
    del whole.graph.node[:]
    whole.graph.node.extend(rest)
    return whole
