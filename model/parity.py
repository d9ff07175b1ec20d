"""Two measurements of an exported file: its distance from the network it was made from, and from symmetry.

Both run the file through ONNX Runtime on seeded noise, at several sizes and in all eight orientations, and are
differences in probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.inception import STRIDE, Segmenter

# (batch, height, width), the sides in strides: square, oblong in a batch, and the smallest image there is.
PROBES = ((1, 8, 8), (2, 5, 13), (1, 1, 1))


@dataclass(frozen=True)
class Parity:
    """Largest differences in probability over all pixels, sizes and orientations.

    Attributes:
        torch_difference: ``|onnx(g x) - sigmoid(net(g x))|``.
        symmetry_error: ``|onnx(g x) - g onnx(x)|``.
    """

    torch_difference: float
    symmetry_error: float


def measure_parity(net: Segmenter, model: bytes, *, seed: int = 0) -> Parity:
    """Compare a serialised ONNX model with the network that it was exported from.

    ``net`` is used as it is: it must be in evaluation mode, on the CPU, in float32.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    from_torch = from_symmetry = 0.0
    for batch, height, width in PROBES:
        image = rng.standard_normal((batch, net.spec.channels, height * STRIDE, width * STRIDE), dtype=np.float32)
        upright = _run(session, image)
        for element in D4.elements:
            turned = np.ascontiguousarray(act(element, image))
            probability = _run(session, turned)
            with torch.no_grad():
                wanted = torch.sigmoid(net(torch.from_numpy(turned))).numpy()
            from_torch = max(from_torch, _distance(probability, wanted))
            from_symmetry = max(from_symmetry, _distance(act(inverse_element(element), probability), upright))
    return Parity(from_torch, from_symmetry)


def _run(session: ort.InferenceSession, image: NDArray[np.float32]) -> NDArray[np.float32]:
    (probability,) = session.run(["probability"], {"image": image})
    return np.asarray(probability, dtype=np.float32)


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    # NaN would slip through a comparison with a tolerance
    return float(np.max(np.nan_to_num(np.abs(a - b), nan=np.inf)))
