"""Rewrites of an ONNX graph into the forms that ONNX Runtime computes fastest; none changes what is computed.

Each pass was chosen by measurement against the graph as exported.  What they exploit: on a CPU, ONNX Runtime
computes convolutions in a blocked channel layout (8 or 16 channels at a time) and fuses sums and ReLUs into
them, but only where channel counts are multiples of the block and shapes are provably equal; transposed
convolutions and reductions have no blocked form.

- ``deconvolutions_to_subpixel``: the overlapping deconvolution is a 2x2 convolution that makes all s x s
  output pixels between four coarse ones as channels, which are then moved into place and cropped.
- ``group_maxima_to_pooling``: the maximum over each orbit is a max pooling along channels.
- ``flatten_concatenations``: maps that are concatenated twice are copied once.
- ``split_unaligned_concatenations``: a convolution of concatenated maps whose channels do not fill whole
  blocks is the sum of an aligned one and a small one.

Source for the first: Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?".
"""

from __future__ import annotations

from typing import TypeGuard

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

# The largest channel block of any CPU that ONNX Runtime has kernels for; a multiple of the smaller ones.
CHANNEL_BLOCK = 16


def lower(graph: ir.Graph) -> None:
    """Apply all passes in place."""
    deconvolutions_to_subpixel(graph)
    group_maxima_to_pooling(graph)
    flatten_concatenations(graph)
    split_unaligned_concatenations(graph)


def deconvolutions_to_subpixel(graph: ir.Graph) -> None:
    """Replace deconvolutions of kernel 2 s, stride s, padding s / 2 by convolution, DepthToSpace and Slice.

    Along one axis, output pixel ``o = s q + r - s / 2`` (r = 0..s-1) is made from the coarse pixels q - 1 and
    q with taps r + s and r.  A 2-tap convolution with padding 1 computes all r as channels at every q; moving
    them into place gives s / 2 pixels too many at either end.

    A ReLU that follows alone goes before the move, where it is fused into the convolution.

    Raises:
        ValueError: a transposed convolution of any other geometry.
    """
    for node in list(graph):
        if node.op_type != "ConvTranspose":
            continue
        stride = _checked_subpixel_stride(node)
        weight = constant_of(node.inputs[1])
        inputs, outputs = weight.shape[:2]
        bias = bias_of(node, outputs)
        # (input, output, coarse y, r y, coarse x, r x); the farther coarse pixel has the later taps
        taps = weight.reshape(inputs, outputs, 2, stride, 2, stride)[:, :, ::-1, :, ::-1, :]
        bank = taps.transpose(1, 3, 5, 0, 2, 4).reshape(outputs * stride**2, inputs, 2, 2)

        last, relu = node, only_consumer(node.outputs[0])
        tape, name = Tape(), node.outputs[0].name
        y = tape.op(
            "Conv",
            [
                node.inputs[0],
                tape.initializer(tensor_of(bank), f"{name}_weight"),
                tape.initializer(tensor_of(np.repeat(bias, stride**2)), f"{name}_bias"),
            ],
            {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]},
        )
        if relu is not None and relu.op_type == "Relu":
            y, last = tape.op("Relu", [y]), relu
        y = tape.op("DepthToSpace", [y], {"blocksize": stride, "mode": "CRD"})
        crop = [
            tape.initializer(tensor_of(np.array(values, dtype=np.int64)), f"{name}_crop_{what}")
            for what, values in (("start", [stride // 2] * 2), ("stop", [-(stride // 2)] * 2), ("axes", [2, 3]))
        ]
        y = tape.op("Slice", [y, *crop])
        put_in_place(graph, [node] if last is node else [node, last], tape, y)


def _checked_subpixel_stride(node: ir.Node) -> int:
    kernel, strides, pads = (list(node.attributes[key].as_ints()) for key in ("kernel_shape", "strides", "pads"))
    stride, groups = strides[0], node.attributes.get_int("group", 1)
    wanted = ([2 * stride] * 2, [stride] * 2, [stride // 2] * 4)
    if (kernel, strides, pads) != wanted or stride % 2 or groups != 1:
        raise ValueError(
            f"deconvolution {node.name} has kernel {kernel}, strides {strides}, pads {pads}, {groups} groups; "
            "only kernel 2 s, stride s and padding s / 2 with even s and one group are lowered"
        )
    return stride


def group_maxima_to_pooling(graph: ir.Graph) -> None:
    """Replace (N, C |G|, H, W) -> (N, C, |G|, H, W) -> maximum over the third axis by a pooling along channels.

    Unsqueeze to (N, 1, C |G|, H, W), max pooling of |G| x 1 x 1 with the same strides, Squeeze: no shape has to
    be computed while the graph runs.
    """
    for node in list(graph):
        if node.op_type != "ReduceMax":
            continue
        unflatten = producer_of(node.inputs[0])
        if unflatten is None or unflatten.op_type != "Reshape" or constant_of(node.inputs[1]).tolist() != [2]:
            continue
        order = static_shape(unflatten.outputs[0])[2]
        tape, name = Tape(), node.outputs[0].name
        axis = tape.initializer(tensor_of(np.array([1], dtype=np.int64)), f"{name}_axis")
        y = tape.op("Unsqueeze", [unflatten.inputs[0], axis])
        y = tape.op("MaxPool", [y], {"kernel_shape": [order, 1, 1], "strides": [order, 1, 1]})
        y = tape.op("Squeeze", [y, axis])
        put_in_place(graph, [node], tape, y)


def flatten_concatenations(graph: ir.Graph) -> None:
    """Let a concatenation of a concatenation along channels take the parts themselves.

    Nodes are visited in order, so that inner ones are flat before outer ones are reached.
    """
    for node in list(graph):
        if not _is_channel_concatenation(node):
            continue
        parts: list[ir.Value | None] = []
        for value in node.inputs:
            inner = producer_of(value)
            parts += inner.inputs if _is_channel_concatenation(inner) else [value]
        if len(parts) > len(node.inputs):
            tape = Tape()
            flat = tape.op("Concat", parts, {"axis": 1})
            flat.shape, flat.type = node.outputs[0].shape, node.outputs[0].type
            put_in_place(graph, [node], tape, flat)


def split_unaligned_concatenations(graph: ir.Graph) -> None:
    """Split convolutions of a concatenation into the part that fills whole channel blocks and a small rest.

    ``W * [u, v] + b = W_u * u + (W_v * v + b)``.  Only where the leading maps fill whole blocks and the rest is
    less than a block.
    """
    for node in list(graph):
        concat = producer_of(node.inputs[0]) if node.op_type == "Conv" else None
        if concat is None or not _is_channel_concatenation(concat):
            continue
        parts = list(concat.inputs)
        ends = np.cumsum([static_shape(part)[1] for part in parts])
        aligned = [i + 1 for i, end in enumerate(ends) if end % CHANNEL_BLOCK == 0]
        if not aligned or aligned[-1] == len(parts) or ends[-1] - ends[aligned[-1] - 1] >= CHANNEL_BLOCK:
            continue
        cut, channels = aligned[-1], int(ends[aligned[-1] - 1])
        weight = constant_of(node.inputs[1])
        bias = bias_of(node, len(weight))
        tape, name = Tape(), node.outputs[0].name
        halves = []
        for what, maps, bank, shift in (
            ("aligned", parts[:cut], weight[:, :channels], np.zeros_like(bias)),
            ("rest", parts[cut:], weight[:, channels:], bias),
        ):
            maps_joined = maps[0] if len(maps) == 1 else tape.op("Concat", maps, {"axis": 1})
            terms = [
                tape.initializer(tensor_of(bank), f"{name}_{what}_weight"),
                tape.initializer(tensor_of(shift), f"{name}_{what}_bias"),
            ]
            half = tape.op("Conv", [maps_joined, *terms], dict(node.attributes))
            # The sum is fused into a convolution only if both shapes are declared and equal.
            half.shape, half.type = node.outputs[0].shape, node.outputs[0].type
            halves.append(half)
        put_in_place(graph, [node], tape, tape.op("Add", halves))


def _is_channel_concatenation(node: ir.Node | None) -> TypeGuard[ir.Node]:
    return node is not None and node.op_type == "Concat" and node.attributes.get_int("axis") == 1
