"""An exported graph in half precision for GPUs: maps and filter banks in float16, float32 where it decides.

Images come and probabilities leave in float32.  In between, the trunk computes in float16, whose numbers have 11 bits:

    y' = float16(sum float16(w) x' + float16(b)),   |y' - sum| <= 2^-11 |sum|   (for |sum| >= 2^-14)

with products summed in float32, as ONNX Runtime has them summed on NVIDIA GPUs.  The head behind the last wide
convolution stays float32: it costs little and lessens the violation of the symmetry.  What more would bring is measured
by ``tests/benchmarks/precisions.py``.

**Symmetry.**  Rounding acts on each weight by itself, so that the filters of one orbit stay turned copies of one
another: in exact arithmetic the network of rounded weights is as symmetric as the one before.  What is left comes from
float32 sums in another order, which now and then fall on the other side of a rounding to float16.  Where the maps of
all eight orientations are at most t from those of an exactly symmetric network, ``|f(g x) - g f(x)| <= 2 t``; measured,
it is less.

**Range.**  float16 ends at 65504.  Beyond come infinities, and their differences, which are no numbers, spread over the
receptive field.  Therefore the image is limited to 128 standard deviations on either side of the mean, and a network is
refused whose maps reach a quarter of the range on the worst patterns of that size known here.  Finite images then give
finite probabilities.  This is measured for each network, not proven for each image.

``onnxruntime.transformers.float16`` and ``onnxconverter_common.float16``, the usual converters, are not used: between
two nodes that they are told to leave in float32 they round to float16 and back, and a weight beyond the range they
silently replace by its end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from emboundary.model.head import head_of, name_nodes
from emboundary.model.operators import refuse_computing
from emboundary.model.storage import LARGEST_HALF, checked_half, restore_whole

Images = NDArray[np.float32]

IMAGE_LIMIT = 128.0
HEADROOM = 4
_LIMITED = "image_limited"
# Operators that choose or move numbers and make no new ones: nothing is rounded behind them.
_MOVING = frozenset({"Concat", "DepthToSpace", "MaxPool", "Relu", "Slice", "Squeeze", "Unsqueeze"})
_PROBE_SIDE = 128


def to_half(model: onnx.ModelProto, whole: Collection[str] | None = None) -> onnx.ModelProto:
    """Turn an exported graph into one that computes in float16; the graph that is given stays as it is.

    Args:
        model: a float32 graph as ``build_onnx`` or ``store_in_half`` writes it.
        whole: names that ``name_nodes`` gives to the nodes that stay float32; the head if None.

    Raises:
        ValueError: a weight beyond float16's range, maps that come too near its end on extreme images, or layers that
            compute with the values they pool.
    """
    refuse_computing(model, "float16")
    half = restore_whole(model)
    name_nodes(half)
    largest = largest_value(half, extreme_images(_channels(half)))
    if not largest * HEADROOM <= LARGEST_HALF:
        raise ValueError(
            f"maps reach {largest:g} on images of {IMAGE_LIMIT:g} standard deviations; float16 ends at "
            f"{LARGEST_HALF:g}, and a factor of {HEADROOM} must be left: offer the model in float32 alone"
        )
    _Halving(half, head_of(half) if whole is None else frozenset(whole)).apply()
    del half.metadata_props[:]
    onnx.checker.check_model(half, full_check=True)
    return half


class _Halving:
    """One pass over the nodes in order; casts are put in where a value is needed in the other type."""

    def __init__(self, model: onnx.ModelProto, whole: frozenset[str]) -> None:
        self._graph, self._whole = model.graph, whole
        self._weights = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
        self._infos = {info.name: info for info in model.graph.value_info}
        self._types = {_LIMITED: TensorProto.FLOAT}
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def apply(self) -> None:
        image, answer = self._graph.input[0].name, self._graph.output[0].name
        halves: dict[str, TensorProto] = {}
        self._nodes += [helper.make_node("Clip", [image, "image_low", "image_high"], [_LIMITED], name=_LIMITED)]
        for node in self._graph.node:
            wanted = TensorProto.FLOAT if node.name in self._whole else TensorProto.FLOAT16
            for place, name in enumerate(node.input):
                given = _LIMITED if name == image else name
                if given in self._types:
                    node.input[place] = self._in_type(given, wanted)
                elif name in self._weights and wanted == TensorProto.FLOAT16:
                    node.input[place] = f"{name}_float16"
                    halves[node.input[place]] = checked_half(self._weights[name], node.input[place])
            for place, name in enumerate(node.output):
                if name == answer and wanted == TensorProto.FLOAT16:
                    name = node.output[place] = f"{answer}_float16"
                self._types[name] = wanted
                if name in self._infos:
                    self._infos[name].type.tensor_type.elem_type = wanted
            self._nodes.append(node)
        if f"{answer}_float16" in self._types:
            self._nodes.append(_cast(f"{answer}_float16", answer, TensorProto.FLOAT))
        self._replace(halves)

    def _in_type(self, name: str, wanted: int) -> str:
        """The value in the type that is wanted, cast once."""
        if self._types[name] == wanted:
            return name
        if (name, wanted) not in self._casts:
            cast = f"{name}_{'float16' if wanted == TensorProto.FLOAT16 else 'float32'}"
            self._nodes.append(_cast(name, cast, wanted))
            if name in self._infos:
                info = self._graph.value_info.add()
                info.CopyFrom(self._infos[name])
                info.name, info.type.tensor_type.elem_type = cast, wanted
            self._casts[name, wanted] = cast
        return self._casts[name, wanted]

    def _replace(self, halves: dict[str, TensorProto]) -> None:
        used = {name for node in self._nodes for name in node.input}
        limits = (("image_low", -IMAGE_LIMIT), ("image_high", IMAGE_LIMIT))
        kept = [t for t in self._graph.initializer if t.name in used]
        kept += halves.values()
        kept += [numpy_helper.from_array(np.array(value, dtype=np.float32), name) for name, value in limits]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(kept)


def _cast(name: str, into: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [into], name=f"{into}_cast", to=to)


def imitate(half: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds wherever a graph of ``to_half`` does, for measuring on CPUs what GPUs compute.

    On a CPU, ONNX Runtime takes almost all roundings between float16 nodes away and would show an error too small.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(half)
    del whole.graph.value_info[:]
    for tensor in whole.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    halves = {t.name for t in half.graph.initializer if t.data_type == TensorProto.FLOAT16}
    rounded: dict[str, str] = {}
    nodes = []
    for node in whole.graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None)
        is_half = to == TensorProto.FLOAT16 if to is not None else any(name in halves for name in node.input)
        for place, name in enumerate(node.input):
            node.input[place] = rounded.get(name, name)
        if to is not None:
            node.CopyFrom(helper.make_node("Identity", list(node.input), list(node.output), name=node.name))
        nodes.append(node)
        if is_half:
            (name,) = node.output
            halves.add(name)
            if node.op_type not in _MOVING:
                nodes += [_cast(name, f"{name}@16", TensorProto.FLOAT16)]
                nodes += [_cast(f"{name}@16", f"{name}@32", TensorProto.FLOAT)]
                rounded[name] = f"{name}@32"
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    return whole


def extreme_images(channels: int) -> list[Images]:
    """Images (1, channels, y, x) at the limits: flat, striped, chequered and random, coarse and fine."""
    rng, side = np.random.default_rng(0), _PROBE_SIDE
    y, x = np.indices((side, side))
    flat = np.ones((side, side), dtype=np.int64)
    patterns = [flat, -flat]
    for step in (1, 2, 4, 8, 16):
        rows, columns = y // step % 2 * 2 - 1, x // step % 2 * 2 - 1
        noise = rng.integers(0, 2, (-(-side // step),) * 2).repeat(step, 0).repeat(step, 1)[:side, :side] * 2 - 1
        patterns += [rows, columns, rows * columns, noise]
    return [np.full((1, channels, 1, 1), IMAGE_LIMIT, dtype=np.float32) * p.astype(np.float32) for p in patterns]


def largest_value(model: onnx.ModelProto, images: Iterable[Images]) -> float:
    """The largest magnitude in any map of a float32 graph, its head aside; infinity where one is no number."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    name_nodes(shown)
    head = head_of(shown)
    maps = [node.output[0] for node in shown.graph.node if node.name not in head and node.op_type not in _MOVING]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in maps)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for image in images:
        for found in session.run(maps, {shown.graph.input[0].name: image}):
            largest = max(largest, float(np.nan_to_num(np.abs(found), nan=np.inf).max()))
    return largest


def _channels(model: onnx.ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
