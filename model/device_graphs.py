"""What stands around a network on a GPU, as ONNX graphs: normalising before it, cropping and storing behind it.

    prepare:  image  = pad(float32((float64(voxels) - mean) / std))
    store:    stored = T(crop(p)),  T(p) = uint8(round(255 p)) or a cast;  finite = no probability is NaN

The arithmetic is that of ``Intensity.normalise`` and ``to_stored``, operation for operation, rounding half to even, so
that a map does not depend on where it was normalised.  They are graphs of their own, not part of the model's: a model
file stays what it is, and one of these serves every model.

The files lie in ``service/engine/graphs``; ``write_graphs`` makes them anew.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

# Voxel types that are normalised on the device; others are on the host, and cross the bus as float32.
VOXELS = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "uint16": TensorProto.UINT16,
    "int16": TensorProto.INT16,
    "float32": TensorProto.FLOAT,
}
STORED = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}
_OPSET = 20
_IR = 10
_IMAGES = ["n", "c", "y", "x"]


def prepare_graph(voxels: str) -> onnx.ModelProto:
    """``voxels`` (n, c, y, x), ``mean`` and ``std`` (float64 scalars), ``pads`` (8 integers) -> ``image``."""
    nodes = [
        helper.make_node("Cast", ["voxels"], ["values"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["values", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["normalised"], to=TensorProto.FLOAT),
        helper.make_node("Pad", ["normalised", "pads"], ["image"]),
    ]
    inputs = [
        helper.make_tensor_value_info("voxels", VOXELS[voxels], _IMAGES),
        helper.make_tensor_value_info("mean", TensorProto.DOUBLE, []),
        helper.make_tensor_value_info("std", TensorProto.DOUBLE, []),
        helper.make_tensor_value_info("pads", TensorProto.INT64, [8]),
    ]
    outputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", "c", "Y", "X"])]
    return _model(f"prepare_{voxels}", nodes, inputs, outputs)


def store_graph(stored: str) -> onnx.ModelProto:
    """``probability`` (n, K, y, x), ``starts`` and ``stops`` (4 integers) -> ``stored``, ``invalid`` (1 if any NaN)."""
    nodes = [
        helper.make_node("Slice", ["probability", "starts", "stops"], ["kept"]),
        helper.make_node("IsNaN", ["kept"], ["nans"]),
        helper.make_node("Cast", ["nans"], ["counted"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["counted"], ["invalid"], keepdims=0),
    ]
    constants = []
    if stored == "uint8":
        constants.append(helper.make_tensor("levels", TensorProto.FLOAT, [], [255.0]))
        nodes += [
            helper.make_node("Mul", ["kept", "levels"], ["scaled"]),
            helper.make_node("Round", ["scaled"], ["rounded"]),
            helper.make_node("Cast", ["rounded"], ["stored"], to=STORED[stored]),
        ]
    elif stored == "float16":
        nodes.append(helper.make_node("Cast", ["kept"], ["stored"], to=STORED[stored]))
    else:
        nodes.append(helper.make_node("Identity", ["kept"], ["stored"]))
    inputs = [
        helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", "k", "y", "x"]),
        helper.make_tensor_value_info("starts", TensorProto.INT64, [4]),
        helper.make_tensor_value_info("stops", TensorProto.INT64, [4]),
    ]
    outputs = [
        helper.make_tensor_value_info("stored", STORED[stored], ["N", "k", "Y", "X"]),
        helper.make_tensor_value_info("invalid", TensorProto.FLOAT, []),
    ]
    return _model(f"store_{stored}", nodes, inputs, outputs, constants)


def write_graphs(folder: Path) -> None:
    """Write all of them as ``prepare_uint8.onnx`` and so on."""
    for model in (*map(prepare_graph, VOXELS), *map(store_graph, STORED)):
        (folder / f"{model.graph.name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, name, inputs, outputs, constants or [])
    model = helper.make_model(
        graph, producer_name="emboundary", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    onnx.checker.check_model(model, full_check=True)
    return model
