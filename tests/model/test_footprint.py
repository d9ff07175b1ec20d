from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import Interval, ReceptiveField, count_parameters, flops_per_pixel, receptive_field
from emboundary.model.geometry import Footprint
from emboundary.model.inception import STRIDE, Segmenter, SegmenterSpec


def positive(net: Segmenter) -> Segmenter:
    """Make every weight positive and every batch norm the identity.

    On a black image with one bright pixel nothing then cancels, and no maximum hides a change: the output is
    positive where it depends on the pixel and zero where it does not.
    """
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_var is not None
                module.running_var.fill_(1 - module.eps)
                continue
            for name, values in module.named_parameters(recurse=False):
                values.zero_() if name == "bias" else values.uniform_(0.05, 0.15)
    return net.eval()


def affected(net: Segmenter, pixels: list[tuple[int, int]], side: int) -> list[tuple[Interval, Interval]]:
    """Rows and columns of the output that each of some single input pixels changes."""
    images = torch.zeros(len(pixels), 1, side, side)
    for image, (y, x) in zip(images, pixels, strict=True):
        image[0, y, x] = 1.0
    with torch.no_grad():
        changed = net(images)[:, 0].numpy() != 0
    edges = [[np.flatnonzero(one.any(axis))[[0, -1]] for axis in (1, 0)] for one in changed]
    return [(Interval(*rows.tolist()), Interval(*columns.tolist())) for rows, columns in edges]


def expected(field: ReceptiveField, axis: int, pixel: int, side: int) -> Interval:
    """Outputs whose computed range of image pixels holds the pixel."""
    depends = []
    for out in range(side):
        shift, phase = out // field.stride * field.stride, out % field.stride
        seen = field.phases[axis][phase]
        if seen.low + shift <= pixel <= seen.high + shift:
            depends.append(out)
    return Interval(depends[0], depends[-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"symmetry": "plain"},
        {"symmetry": "paper"},
        {"symmetry": "d4"},
        {"symmetry": "d4", "pooling": "gaussian-lp"},
        {"symmetry": "custom", "trunk": "symmetric", "level": 3, "pooling": "entropy"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_pixel_at_every_phase_reaches_exactly_as_far_as_computed(
    changes: dict[str, Any], narrow: SegmenterSpec, exported: Callable[[SegmenterSpec], onnx.ModelProto]
) -> None:
    torch.manual_seed(0)
    spec = replace(narrow, **changes)
    net, field = positive(Segmenter(spec)), receptive_field(exported(spec))
    corner = field.halo + STRIDE
    side = 2 * corner + STRIDE
    farthest = 0
    for y in range(corner, corner + STRIDE):
        pixels = [(y, x) for x in range(corner, corner + STRIDE)]
        for (_, x), (rows, columns) in zip(pixels, affected(net, pixels, side), strict=True):
            assert rows == expected(field, 0, y, side), (y, x)
            assert columns == expected(field, 1, x, side), (y, x)
            farthest = max(farthest, y - rows.low, rows.high - y, x - columns.low, columns.high - x)
    assert farthest == field.radius


def test_the_image_s_channels_are_the_halo_in_z(
    narrow: SegmenterSpec, exported: Callable[[SegmenterSpec], onnx.ModelProto]
) -> None:
    alone, amid = (receptive_field(exported(replace(narrow, symmetry="d4", context=c))) for c in (0, 2))
    assert replace(amid, context=0) == alone
    assert amid.footprint == Footprint((2, alone.halo, alone.halo), (1, STRIDE, STRIDE))


def test_an_image_without_a_middle_section_is_refused() -> None:
    model = graph_of(node("Relu"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(
        ValueError, match=r"^the image has 4 channels; a section amid c neighbours on each side has 2 c"
    ):
        receptive_field(model)


def test_a_receptive_field_is_rounded_up_to_the_stride() -> None:
    phases = tuple(Interval(p - 5 - p, p + 3) for p in range(4))
    field = ReceptiveField(4, (phases, phases))
    assert field.radius == 8
    assert field.halo == 8
    assert replace(field, phases=(phases, tuple(Interval(-6, p) for p in range(4)))).radius == 9
    assert replace(field, phases=(phases, tuple(Interval(-6, p) for p in range(4)))).footprint == Footprint(
        (0, 12, 12), (1, 4, 4)
    )


def graph_of(*nodes: onnx.NodeProto, **constants: list[int]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("image", "out")]
    tensors = [numpy_helper.from_array(np.array(values), name) for name, values in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))


def node(operator: str, inputs: str = "image", output: str = "out", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=f"the_{operator}", **attributes)


@pytest.mark.parametrize(
    ("model", "low", "high"),
    [
        (graph_of(node("Relu")), 0, 0),
        (graph_of(node("Conv", "image w", kernel_shape=[3, 3], pads=[1, 1, 1, 1])), -1, 1),
        (graph_of(node("Conv", "image w", kernel_shape=[3, 3], pads=[2, 2, 2, 2], dilations=[2, 2])), -2, 2),
        (graph_of(node("Conv", "image w", kernel_shape=[4, 4], pads=[1, 1, 2, 2])), -1, 2),
        (graph_of(node("MaxPool", kernel_shape=[8, 1, 1], strides=[8, 1, 1])), 0, 0),
        (graph_of(node("Pad", "image pads"), pads=[0, 0, 2, 3, 0, 0, 2, 3]), -2, -2),
        (graph_of(node("Gather", "image places", axis=1), places=[0, 0]), 0, 0),
        (graph_of(node("Mul", "factor image"), factor=[3]), 0, 0),
        (graph_of(node("Slice", "image start stop axes"), start=[5, 3], stop=[9, 9], axes=[3, 2]), 3, 3),
        (
            graph_of(
                node("Conv", "image w", "a", kernel_shape=[3, 3], pads=[1] * 4),
                node("AveragePool", "image", "b", kernel_shape=[5, 5], pads=[0, 0, 4, 4]),
                node("Concat", "a b", axis=1),
            ),
            -1,
            4,
        ),
    ],
    ids=[
        "pointwise",
        "3x3",
        "dilated",
        "4x4",
        "pooling along channels",
        "border",
        "gather channels",
        "times a constant",
        "crop",
        "hull of two paths",
    ],
)
def test_reach_of_one_layer(model: onnx.ModelProto, low: int, high: int) -> None:
    assert receptive_field(model).phases[0] == (Interval(low, high),)


@pytest.mark.parametrize(
    ("up", "ranges"),
    [
        (node("ConvTranspose", "coarse w", kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4), [(-2, 1), (0, 3)]),
        (node("ConvTranspose", "coarse w", kernel_shape=[2, 2], strides=[2, 2]), [(0, 1), (0, 1)]),
        (node("DepthToSpace", "coarse", blocksize=2), [(0, 1), (0, 1)]),
    ],
    ids=["overlapping", "separate", "moved into place"],
)
def test_reach_depends_on_the_phase(up: onnx.NodeProto, ranges: list[tuple[int, int]]) -> None:
    down = node("MaxPool", "image", "coarse", kernel_shape=[2, 2], strides=[2, 2])
    field = receptive_field(graph_of(down, up))
    assert field.stride == 2
    assert field.phases == (tuple(Interval(*r) for r in ranges),) * 2


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the reach of operator Resize is not known; add it to footprint.py with a"):
        receptive_field(graph_of(node("Resize")))


def test_a_layer_without_its_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^node the_Conv \(Conv\) has no attribute kernel_shape; its reach cannot be"):
        receptive_field(graph_of(node("Conv", "image w")))


def test_a_map_smaller_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^output pixels stand 2 image pixels apart; the map must be of the image's"):
        receptive_field(graph_of(node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])))


def test_a_map_finer_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^node the_DepthToSpace \(DepthToSpace\) makes pixels finer than the image"):
        receptive_field(graph_of(node("DepthToSpace", blocksize=2)))


def test_flops_are_those_of_every_convolution() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 2, 2), nn.ConvTranspose2d(8, 2, 4, 2, 1)
    )
    assert flops_per_pixel(net, 2) == 2 * (4 * 9) + 2 * (8 * 4 * 4) / 4 + 2 * (2 * 8 * 16) / 4


def test_parameters_are_those_before_expansion(narrow: SegmenterSpec) -> None:
    net = Segmenter(replace(narrow, symmetry="d4"))
    plain = expand_and_fold(net)
    assert count_parameters(net) == sum(p.numel() for p in net.parameters())
    assert count_parameters(net) < count_parameters(plain) / 6
    # an averaged copy is frozen, and has learned all the same
    assert count_parameters(net.requires_grad_(False)) == count_parameters(net.requires_grad_(True))
