"""An exported graph in 8-bit arithmetic for CPUs, its symmetry as exact as before.

Maps are unsigned 8-bit integers with one scale and zero point per map, filter banks signed ones with one scale per
output channel, sums 32-bit integers:

    w = s_w q_w,   x = s_x (q_x - z_x),   y = s_y (round(s_x s_w / s_y * sum q_w (q_x - z_x)) + z_y)

Why a symmetric network stays symmetric.  The filters of one orbit hold the same numbers in turned order, so the scale
of each, the largest magnitude over 64, is one and the same number, and their integers are turned copies, too.
Integer sums are the same in any order.  Rounding acts on one sum by itself, ties included, so that equal sums give
equal results.  Up to the head, ``f(g x) = g f(x)`` therefore holds bit for bit, where float networks have an error of
rounding.  What must not happen is saturation: processors without VNNI add pairs of products in 16 bits,
and which pairs meet depends on the orientation.  Weights of 7 bits keep ``255 * 64 * 2`` below ``2^15``.

The head, all behind the last wide convolution, computes each pixel from itself, costs little, and decides about the
last digits: it stays float32.

Source: the scheme is that of Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", sections 2.1 and 2.2; carried out by ``onnxruntime.quantization``.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from emboundary.model.head import head_of, name_nodes
from emboundary.model.integer_lowering import lower_for_integers
from emboundary.model.operators import refuse_computing
from emboundary.model.storage import restore_whole

Images = NDArray[np.float32]


def quantise(model: onnx.ModelProto, images: Sequence[Images]) -> onnx.ModelProto:
    """Quantise an exported graph for CPUs; the graph that is given stays as it is.

    Args:
        model: a float32 graph as ``build_onnx`` or ``store_in_half`` writes it.
        images: normalised images (n, c, y, x) like those the network was trained on, sides multiples of the stride.
            The range of each map is the widest over all of them; whatever goes beyond is clipped later.

    Raises:
        ValueError: no image, an average pooling that leaves its padding out, or layers that compute with the values
            they pool.
    """
    refuse_computing(model, "int8")
    if not images:
        raise ValueError("images is empty; the ranges of maps are measured on them: give some of the training sections")
    prepared = _prepare(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "quantised.onnx"
        quantize_static(
            prepared,
            target,
            _Images(prepared.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=sorted(head_of(prepared)),
        )
        quantised = onnx.load(target)
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    del quantised.metadata_props[:]
    return quantised


def _prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in the forms that 8-bit kernels like, every node with a name of its own."""
    rewritten = ir.from_proto(onnx.shape_inference.infer_shapes(restore_whole(model)))
    lower_for_integers(rewritten.graph)
    Sequential(RemoveUnusedNodesPass(), NameFixPass())(rewritten)
    prepared = ir.to_proto(rewritten)
    name_nodes(prepared)
    return prepared


class _Images(CalibrationDataReader):  # type: ignore[misc]  # the runtime's package has no types
    """Images one by one, as the calibration asks for them."""

    def __init__(self, name: str, images: Sequence[Images]) -> None:
        self._feeds: Iterator[dict[str, Images]] = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, Images] | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which has been followed, from the user."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
