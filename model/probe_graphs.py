"""The graphs that measure a device: matrix products in each precision, and a pass over memory.

ONNX Runtime runs them as it runs the networks, so that a network's speed can be held against what the same runtime
reaches on the same device where nothing but arithmetic, or nothing but memory, counts.  Extents are dynamic: one
small file serves every size.  ``python -m emboundary.model.probe_graphs FOLDER`` writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

_OPSET, _IR = 17, 10

# Operator, element types of both factors, and of the product.
_PRODUCTS = {
    "matrix_float32": ("MatMul", TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT),
    "matrix_float16": ("MatMul", TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.FLOAT16),
    # CPUs multiply unsigned by signed integers fastest; the GPU's kernels take signed ones alone.
    "matrix_int8": ("MatMulInteger", TensorProto.INT8, TensorProto.INT8, TensorProto.INT32),
    "matrix_uint8": ("MatMulInteger", TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32),
}


def matrix_graph(name: str) -> onnx.ModelProto:
    """``c = a b``: a (m, k), b (k, n), c (m, n); 2 m k n operations.

    Args:
        name: ``matrix_float32``, ``matrix_float16``, ``matrix_int8`` (both factors signed) or ``matrix_uint8`` (the
            first one unsigned); integers are added up in 32 bits.

    Raises:
        ValueError: another name.
    """
    if name not in _PRODUCTS:
        raise ValueError(f"name is {name!r}; it must be one of {', '.join(_PRODUCTS)}")
    operator, left, right, product = _PRODUCTS[name]
    return _model(
        name,
        helper.make_node(operator, ["a", "b"], ["c"]),
        [("a", left, ["m", "k"]), ("b", right, ["k", "n"])],
        ("c", product, ["m", "n"]),
    )


def memory_graph() -> onnx.ModelProto:
    """``y = -x`` for float32 x (n): every byte read once and written once, next to no arithmetic.

    A graph that only copies would be optimised away.
    """
    return _model(
        "memory",
        helper.make_node("Neg", ["x"], ["y"]),
        [("x", TensorProto.FLOAT, ["n"])],
        ("y", TensorProto.FLOAT, ["n"]),
    )


def probe_graphs() -> dict[str, bytes]:
    """All of them: content by file name."""
    models = {**{name: matrix_graph(name) for name in _PRODUCTS}, "memory": memory_graph()}
    return {f"{name}.onnx": model.SerializeToString(deterministic=True) for name, model in models.items()}


def _model(
    name: str, node: onnx.NodeProto, inputs: list[tuple[str, int, list[str]]], output: tuple[str, int, list[str]]
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(*value) for value in (*inputs, output)]
    graph = helper.make_graph([node], name, values[:-1], values[-1:])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="emboundary"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write_probe_graphs(folder: Path) -> None:
    """Write all files into a folder that exists."""
    for name, content in probe_graphs().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write_probe_graphs(Path(sys.argv[1]))
