"""Two measurements of an exported file: its distance from the network it was made from, and from symmetry.

Both run the file through ONNX Runtime in all eight orientations, on seeded noise at several sizes or on given images,
and are differences in probability.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.inception import STRIDE, Segmenter

Images = NDArray[np.float32]

# (batch, height, width), the sides in strides: square, oblong in a batch, and the smallest image there is.
PROBES = ((1, 8, 8), (2, 5, 13), (1, 1, 1))


@dataclass(frozen=True)
class Parity:
    """Largest differences in probability over all pixels, sizes and orientations.

    Attributes:
        torch_difference: ``|onnx(g x) - sigmoid(net(g x))|``.
        symmetry_error: ``|onnx(g x) - g onnx(x)|`` over all 8 elements.
        law_error: the same over the elements of the network's own group, ``SegmenterSpec.law``.
    """

    torch_difference: float
    symmetry_error: float
    law_error: float


def measure_parity(net: Segmenter, model: bytes, *, seed: int = 0) -> Parity:
    """Compare a serialised ONNX model with the network that it was exported from, on seeded noise.

    ``net`` is used as it is: it must be in evaluation mode, on the CPU, in float32.
    """
    rng = np.random.default_rng(seed)
    shapes = [(batch, net.spec.channels, height * STRIDE, width * STRIDE) for batch, height, width in PROBES]
    return Reference(net, [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]).compare(model)


class Reference:
    """What a network makes of images (n, c, y, x) in all eight orientations; computed once for all comparisons."""

    def __init__(self, net: Segmenter, images: Iterable[Images]) -> None:
        self._law = net.spec.law.elements
        turned = [[np.ascontiguousarray(act(element, image)) for element in D4.elements] for image in images]
        with torch.no_grad():
            self._pairs = [[(t, torch.sigmoid(net(torch.from_numpy(t))).numpy()) for t in group] for group in turned]

    def compare(self, model: bytes) -> Parity:
        """Measure a serialised ONNX model, computed on the CPU."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        from_torch = 0.0
        from_symmetry = dict.fromkeys(D4.elements, 0.0)
        for group in self._pairs:
            upright: Images | None = None
            for element, (turned, wanted) in zip(D4.elements, group, strict=True):
                probability = _run(session, turned)
                from_torch = max(from_torch, _distance(probability, wanted))
                back = act(inverse_element(element), probability)
                upright = back if upright is None else upright
                from_symmetry[element] = max(from_symmetry[element], _distance(back, upright))
        law_error = max(from_symmetry[element] for element in self._law)
        return Parity(from_torch, max(from_symmetry.values()), law_error)


def _run(session: ort.InferenceSession, image: Images) -> Images:
    (probability,) = session.run(["probability"], {"image": image})
    return np.asarray(probability, dtype=np.float32)


def _distance(a: Images, b: Images) -> float:
    # NaN would slip through a comparison with a tolerance
    return float(np.max(np.nan_to_num(np.abs(a - b), nan=np.inf)))
