"""Rewrites of an exported graph into forms that ONNX Runtime's 8-bit kernels compute fastest, before quantisation.

What suits the float kernels (``lowering``) does not suit these.  Each pass was chosen by measurement; none changes
what is computed.

- ``rejoin_split_convolutions``: a sum of two convolutions is one of joined maps; 8-bit convolutions know no channel
  blocks, and a sum between them would be rounded once more.
- ``averages_to_convolutions``: average pooling is a depthwise convolution with equal weights, which has a fast
  8-bit kernel where pooling has none.
- ``orbit_pooling_to_maxima``: the maximum over each orbit as a reduction; pooling along channels is scalar in 8 bits.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from emboundary.model.rewriting import (
    bias_of,
    constant_of,
    only_consumer,
    producer_of,
    put_in_place,
    static_shape,
    tensor_of,
)


def lower_for_integers(graph: ir.Graph) -> None:
    """Apply all passes in place."""
    rejoin_split_convolutions(graph)
    averages_to_convolutions(graph)
    orbit_pooling_to_maxima(graph)


def rejoin_split_convolutions(graph: ir.Graph) -> None:
    """Replace ``W_u * u + b_u + W_v * v + b_v`` by ``[W_u, W_v] * [u, v] + (b_u + b_v)``.

    Only where the geometries agree, and not for 1x1 layers: copying their maps side by side costs more than it wins.
    """
    for node in list(graph):
        halves = [producer_of(value) for value in node.inputs] if node.op_type == "Add" else []
        convolutions = [half for half in halves if half is not None and half.op_type == "Conv"]
        if len(convolutions) != 2 or not _can_be_joined(*convolutions):
            continue
        banks = [constant_of(conv.inputs[1]) for conv in convolutions]
        maps: list[ir.Value | None] = []
        for conv in convolutions:
            joined = producer_of(conv.inputs[0])
            flat = joined is not None and joined.op_type == "Concat"
            maps.extend(joined.inputs if joined is not None and flat else conv.inputs[:1])
        tape, name = Tape(), node.outputs[0].name
        bank = tape.initializer(tensor_of(np.concatenate(banks, axis=1)), f"{name}_weight")
        shift = np.sum([bias_of(c, len(w)) for c, w in zip(convolutions, banks, strict=True)], axis=0)
        bias = tape.initializer(tensor_of(shift), f"{name}_bias")
        whole = tape.op("Conv", [tape.op("Concat", maps, {"axis": 1}), bank, bias], dict(convolutions[0].attributes))
        whole.shape, whole.type = node.outputs[0].shape, node.outputs[0].type
        put_in_place(graph, [*convolutions, node], tape, whole)


def _can_be_joined(one: ir.Node, other: ir.Node) -> bool:
    names = ("kernel_shape", "pads", "strides", "dilations")
    one_has, other_has = (
        [list(conv.attributes[name].as_ints()) if name in conv.attributes else [] for name in names]
        for conv in (one, other)
    )
    free = all(conv.attributes.get_int("group", 1) == 1 and only_consumer(conv.outputs[0]) for conv in (one, other))
    return free and one_has == other_has and one_has[0] != [1, 1]


def averages_to_convolutions(graph: ir.Graph) -> None:
    """Replace average pooling that counts its zero padding by a depthwise convolution, all weights ``1 / taps``.

    Quantised, equal weights are one and the same integer: the result is exactly the rounded mean, in any orientation.

    Raises:
        ValueError: padding that the mean leaves out.
    """
    for node in list(graph):
        if node.op_type != "AveragePool":
            continue
        pads = list(node.attributes["pads"].as_ints()) if "pads" in node.attributes else [0]
        if any(pads) and not node.attributes.get_int("count_include_pad", 0):
            raise ValueError(
                f"average pooling {node.name} leaves its padding out of the mean; only a mean that counts it as zeros "
                "is a convolution"
            )
        kernel, channels = list(node.attributes["kernel_shape"].as_ints()), static_shape(node.inputs[0])[1]
        weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel), dtype=np.float32)
        kept = {k: node.attributes[k] for k in ("kernel_shape", "pads", "strides") if k in node.attributes}
        tape = Tape()
        bank = tape.initializer(tensor_of(weight), f"{node.outputs[0].name}_weight")
        mean = tape.op("Conv", [node.inputs[0], bank], {**kept, "group": channels})
        mean.shape, mean.type = node.outputs[0].shape, node.outputs[0].type
        put_in_place(graph, [node], tape, mean)


def orbit_pooling_to_maxima(graph: ir.Graph) -> None:
    """Replace Unsqueeze, max pooling of |G| x 1 x 1, Squeeze by (N, 1, C |G|, H, W) -> (N, C, |G|, H, W) -> maximum.

    The extra axis lets Reshape copy H and W from their places; no shape has to be computed while the graph runs.
    """
    for node in list(graph):
        pool, unsqueeze = _orbit_pooling(node)
        if pool is None or unsqueeze is None:
            continue
        order = pool.attributes["kernel_shape"].as_ints()[0]
        fields = static_shape(unsqueeze.inputs[0])[1] // order
        tape, name = Tape(), node.outputs[0].name
        shape = tape.initializer(tensor_of(np.array([0, fields, order, 0, 0], dtype=np.int64)), f"{name}_orbits")
        axis = tape.initializer(tensor_of(np.array([2], dtype=np.int64)), f"{name}_over")
        y = tape.op("Reshape", [tape.op("Unsqueeze", list(unsqueeze.inputs)), shape])
        y = tape.op("ReduceMax", [y, axis], {"keepdims": 0})
        y.shape, y.type = node.outputs[0].shape, node.outputs[0].type
        put_in_place(graph, [unsqueeze, pool, node], tape, y)


def _orbit_pooling(node: ir.Node) -> tuple[ir.Node | None, ir.Node | None]:
    """The pooling and the Unsqueeze before a Squeeze, if that is what they are."""
    pool = producer_of(node.inputs[0]) if node.op_type == "Squeeze" else None
    if pool is None or pool.op_type != "MaxPool" or list(pool.attributes["kernel_shape"].as_ints())[1:] != [1, 1]:
        return None, None
    return pool, producer_of(pool.inputs[0])
