"""Which ONNX operators an exported segmenter consists of, and which of them need all the digits of float32."""

from __future__ import annotations

import onnx

# What a plain CNN may consist of.
PLAIN_OPERATORS = frozenset(
    {"Add", "AveragePool", "Concat", "Conv", "DepthToSpace", "MaxPool", "Relu", "Sigmoid", "Slice"}
    | {"Squeeze", "Unsqueeze"}
)
# What scattering and those poolings add that compute with the values they pool: norms, quotients, moduli.
COMPUTING_OPERATORS = frozenset(
    {"Abs", "Clip", "Div", "Gather", "Greater", "Max", "Mul", "Pad", "Pow", "Sqrt", "Where"}
)


def refuse_computing(model: onnx.ModelProto, what: str) -> None:
    """Refuse to give a graph fewer bits that computes with what it pools or scatters.

    Quotients, powers and squares of maps leave the range of 16 bits, and of 8, where the maps themselves do not.

    Raises:
        ValueError: names the operators.
    """
    found = sorted({node.op_type for node in model.graph.node} & COMPUTING_OPERATORS)
    if found:
        raise ValueError(
            f"the graph holds {found}, of a scattering stem or of a pooling that computes with values, which {what} "
            "is not for: offer the model in float32 alone, or choose another stem or pooling"
        )
