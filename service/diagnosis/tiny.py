"""A network of one convolution, run on one provider of ONNX Runtime and no other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from emboundary.service.gpus.libraries import preload

# y = sigmoid(mean of the 9 pixels around x); the tests make the file anew and compare.
TINY_MODEL = Path(__file__).with_name("tiny.onnx")
# That of TensorFloat-32, which TensorRT may use.
_TOLERANCE = 1e-3


class TinyModelError(Exception):
    """The provider does not run the network, or runs it wrongly."""


@dataclass(frozen=True)
class Ran:
    """How it went.

    Attributes:
        open_seconds: until there was a session.
        run_seconds: of the second run; the first one loads what the provider needs.
    """

    open_seconds: float
    run_seconds: float


def run_tiny(provider: str) -> Ran:
    """Run the network and compare with what it must give.

    Args:
        provider: as ONNX Runtime names it.

    Raises:
        TinyModelError: it does not run there, or the result is wrong.
        ImportError: there is no ONNX Runtime.
    """
    import numpy as np
    import onnxruntime as ort

    preload()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if provider != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    image = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) / 64
    began = time.perf_counter()
    try:
        # Without enable_fallback=0 a provider that fails is replaced by the CPU, and its reason lost.
        session = ort.InferenceSession(str(TINY_MODEL), options, providers=[provider], enable_fallback=0)
        if session.get_providers()[0] != provider:
            raise TinyModelError(f"ONNX Runtime takes {session.get_providers()[0]} instead")
        opened = time.perf_counter()
        session.run(None, {"x": image})
        warm = time.perf_counter()
        (found,) = session.run(None, {"x": image})
        done = time.perf_counter()
    except TinyModelError:
        raise
    except Exception as error:  # the runtime's exceptions share no narrower base
        raise TinyModelError(str(error)) from error
    around = np.pad(image[0, 0], 1)
    mean = sum(around[y : y + 8, x : x + 8] for y in range(3) for x in range(3)) / 9
    wrong = float(np.abs(found[0, 0] - 1 / (1 + np.exp(-mean))).max())
    if not wrong <= _TOLERANCE:
        raise TinyModelError(f"the result is wrong by {wrong:.1e}, and may be by {_TOLERANCE:.0e}")
    return Ran(opened - began, done - warm)
