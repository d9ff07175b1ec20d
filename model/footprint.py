"""What a network costs and how far it sees: parameters, FLOPs, stride and receptive field, all computed.

The receptive field is found by interval arithmetic over an ONNX graph.  Every layer used here maps a range of
output pixels to the range of input pixels that it can depend on, along each axis by itself; going backwards
from one output pixel and taking the hull where paths meet gives the range of image pixels behind it.  Which
range that is depends on the pixel's place in the stride ("phase"); the radius is the largest over all phases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import GraphProto, NodeProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from emboundary.model.geometry import Footprint, round_up

# Layers that compute every pixel from the same pixel of their inputs, whatever they do to the channels.
_POINTWISE = frozenset(
    {"Abs", "Add", "Clip", "Concat", "Div", "Greater", "Max", "Mul", "Pow", "Relu", "Sigmoid", "Sqrt", "Squeeze"}
    | {"Unsqueeze", "Where"}
)


@dataclass(frozen=True)
class Interval:
    """Pixels ``low <= i <= high`` along one axis; unlike boxes, both ends belong to it."""

    low: int
    high: int

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class ReceptiveField:
    """Which image pixels an output pixel can depend on.

    Attributes:
        stride: the graph commutes with shifts by its multiples.
        phases: for (y, x), for each place p = 0..stride-1 in the stride, the range of image pixels behind the
            output pixel p, counted from the image's origin as if it had no border.
        context: neighbouring sections on each side; the image's channels are 2 context + 1.
    """

    stride: int
    phases: tuple[tuple[Interval, ...], tuple[Interval, ...]]
    context: int = 0

    @property
    def radius(self) -> int:
        """Distance in pixels to the farthest image pixel, over both axes, directions and all phases."""
        return max(max(p - seen.low, seen.high - p) for axis in self.phases for p, seen in enumerate(axis))

    @property
    def halo(self) -> int:
        """The radius rounded up to a multiple of the stride."""
        return round_up(self.radius, self.stride)

    @property
    def footprint(self) -> Footprint:
        """Halo and stride as (z, y, x) for the tiler; sections are mapped one by one, each amid its neighbours."""
        return Footprint((self.context, self.halo, self.halo), (1, self.stride, self.stride))


def receptive_field(model: onnx.ModelProto) -> ReceptiveField:
    """Find the stride and the receptive field of a graph with one image input and one output of the same size.

    Raises:
        ValueError: a layer whose reach is not known here, an output that is not of the image's size, or an image
            with an even number of channels, among which no section is the middle one.
    """
    graph = model.graph
    channels = graph.input[0].type.tensor_type.shape.dim[1].dim_value or 1
    if channels % 2 == 0:
        raise ValueError(
            f"the image has {channels} channels; a section amid c neighbours on each side has 2 c + 1, an odd number"
        )
    stride = _stride(graph)
    y, x = (tuple(_seen(graph, axis, pixel) for pixel in range(stride)) for axis in (0, 1))
    return ReceptiveField(stride, (y, x), channels // 2)


def count_parameters(net: nn.Module) -> int:
    """Number of learned values; what is expanded from them does not count."""
    return sum(p.numel() for p in net.parameters())


def flops_per_pixel(plain: nn.Module, stride: int, channels: int = 1) -> float:
    """Multiplications and additions of all convolutions of an expanded network, per pixel of the map.

    Bias, pooling, maxout and activations are left out.

    Args:
        plain: the network.
        stride: whole multiples of it are its images' sides.
        channels: of its images: 1, or the sections of its context and the one that is mapped.
    """
    side = 8 * stride
    return count_flops(plain, (channels, side, side)) / side**2


def count_flops(plain: nn.Module, shape: tuple[int, int, int]) -> float:
    """Multiplications and additions of all convolutions and linear maps for one image of ``shape`` (C, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(torch.zeros(1, *shape))
    return float(counter.get_total_flops())


def _stride(graph: GraphProto) -> int:
    """Least common multiple of the spacings, in image pixels, of all maps of the graph along both axes."""
    return math.lcm(*(spacing for axis in (0, 1) for spacing in _spacings(graph, axis)))


def _spacings(graph: GraphProto, axis: int) -> list[int]:
    """Spacing of every map along y (axis 0) or x (axis 1)."""
    spacing = {graph.input[0].name: 1}
    for node in _moving(graph):
        # the first of its inputs that is a map: a constant may stand before it
        here = next(spacing[name] for name in node.input if name in spacing)
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            here *= _spatial(node, "strides", axis, default=1)
        elif node.op_type in ("ConvTranspose", "DepthToSpace"):
            name = "blocksize" if node.op_type == "DepthToSpace" else "strides"
            here, rest = divmod(here, _attribute(node, name)[0])
            if rest:
                raise ValueError(f"node {node.name} ({node.op_type}) makes pixels finer than the image's")
        spacing[node.output[0]] = here
    last = spacing[graph.output[0].name]
    if last != 1:
        raise ValueError(f"output pixels stand {last} image pixels apart; the map must be of the image's size")
    return list(spacing.values())


def _moving(graph: GraphProto) -> list[NodeProto]:
    """The nodes that compute maps from maps; what casts stored weights to another type is none."""
    constants = {tensor.name for tensor in graph.initializer}
    moving = []
    for node in graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)
        else:
            moving.append(node)
    return moving


def _seen(graph: GraphProto, axis: int, pixel: int) -> Interval:
    """Range of image pixels behind one output pixel, along y (axis 0) or x (axis 1)."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = _moving(graph)
    maps = {graph.input[0].name, *(node.output[0] for node in nodes)}
    needed = {graph.output[0].name: Interval(pixel, pixel)}
    for node in reversed(nodes):
        reached = _reach(node, axis, needed[node.output[0]], constants)
        for name in maps.intersection(node.input):
            needed[name] = reached.hull(needed.get(name, reached))
    return needed[graph.input[0].name]


def _reach(node: NodeProto, axis: int, out: Interval, constants: dict[str, onnx.TensorProto]) -> Interval:
    """Range of a node's input pixels that a range of its output pixels can depend on."""
    if node.op_type in _POINTWISE:
        return out
    if node.op_type in ("Conv", "MaxPool", "AveragePool"):
        kernel, stride = _spatial(node, "kernel_shape", axis), _spatial(node, "strides", axis, default=1)
        before, dilation = _spatial(node, "pads", axis, default=0), _spatial(node, "dilations", axis, default=1)
        return Interval(out.low * stride - before, out.high * stride - before + (kernel - 1) * dilation)
    if node.op_type == "ConvTranspose":
        kernel, stride = _spatial(node, "kernel_shape", axis), _spatial(node, "strides", axis, default=1)
        before = _spatial(node, "pads", axis, default=0)
        return Interval(-((kernel - 1 - out.low - before) // stride), (out.high + before) // stride)
    if node.op_type == "DepthToSpace":
        block = _attribute(node, "blocksize")[0]
        return Interval(out.low // block, out.high // block)
    if node.op_type == "Slice":
        starts, axes = (numpy_helper.to_array(constants[node.input[i]]).tolist() for i in (1, 3))
        start = dict(zip(axes, starts, strict=True)).get(axis + 2, 0)
        return Interval(out.low + start, out.high + start)
    if node.op_type == "Pad":
        before = numpy_helper.to_array(constants[node.input[1]]).tolist()[axis + 2]
        return Interval(out.low - before, out.high - before)
    if node.op_type == "Gather" and _attribute(node, "axis") == (1,):
        return out
    raise ValueError(f"the reach of operator {node.op_type} is not known; add it to footprint.py with a test")


def _attribute(node: NodeProto, name: str) -> Sequence[int]:
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value if isinstance(value, Sequence) else (value,)
    return ()


def _spatial(node: NodeProto, name: str, axis: int, *, default: int | None = None) -> int:
    """A value for y (axis 0) or x (axis 1); a pooling along channels too has a third axis before them."""
    values = _attribute(node, name)
    if not values:
        if default is None:
            raise ValueError(f"node {node.name} ({node.op_type}) has no attribute {name}; its reach cannot be computed")
        return default
    # pads lists the beginnings of all axes, then their ends
    begins = values[: len(values) // 2] if name == "pads" else values
    return int(begins[len(begins) - 2 + axis])
