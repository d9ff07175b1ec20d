"""A model file in ONNX Runtime."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from pydantic import ValidationError

from emboundary.model.description import METADATA_KEY, ModelDescription, Precision, TensorDescription
from emboundary.model.geometry import Footprint
from emboundary.model.repository import DEFAULT_MODEL, ZOO, ModelEntry, ModelError, load_model
from emboundary.service.engine.protocol import Device, Images
from emboundary.service.errors import DeviceError, ModelUnavailableError, UsageError, first_line

# What OnnxEngine can run today: the file as it is.
_RUNNABLE: tuple[Precision, ...] = ("float32",)


class OnnxEngine:
    """A model file in ONNX Runtime, on the device that was asked for and no other.

    Calls from several threads run one after another: a second image in flight would double the memory and gain
    nothing, because one run already uses the whole device.

    Attributes:
        description: what the file promises; checked against the file when it was opened.
        device: ``cpu`` or ``cuda``, read back from the session.
        device_reason: one line for people: which device runs, and why.
        precision: the arithmetic that was asked for.
    """

    def __init__(self, session: Any, description: ModelDescription, precision: Precision, device_reason: str) -> None:
        self._session = session
        self._lock = threading.Lock()
        self.description = description
        self.precision: Precision = precision
        self.device: str = "cuda" if _CUDA in session.get_providers() else "cpu"
        self.device_reason = device_reason

    @classmethod
    def open(cls, entry: ModelEntry, device: Device = "auto", precision: Precision = "float32") -> OnnxEngine:
        """Load a model file and prove that the session runs where it was asked to.

        Args:
            entry: the file and its description, hash already checked.
            device: ``auto`` takes the GPU if a session on it runs the model, else the CPU.
            precision: one of those that the description offers.

        Raises:
            UsageError: a precision that the model does not offer.
            DeviceError: ``cuda`` without a GPU that runs this model.
            ModelUnavailableError: a file that is damaged or differs from its description.
        """
        offered = [p for p in _RUNNABLE if p in entry.description.precisions]
        if precision not in offered:
            raise UsageError(
                f"precision is {precision}; model {entry.description.name} runs here in "
                f"{' or '.join(offered) or 'none that this version knows'}: give --precision accordingly"
            )
        session, reason = _SESSIONS[device](entry)
        return cls(session, entry.description, precision, reason)

    @property
    def footprint(self) -> Footprint:
        """Halo and stride of the network."""
        return self.description.footprint

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the K output channels."""
        return self.description.outputs

    def run(self, images: Images) -> Images:
        """Map (n, c, y, x), y and x multiples of the stride, to probabilities (n, K, y, x); see ``Engine``.

        Raises:
            DeviceError: the runtime failed, as it does when memory runs out.
        """
        with self._lock:
            try:
                (probability,) = self._session.run(
                    [self.description.output.name], {self.description.input.name: images}
                )
            except Exception as error:  # the runtime's exceptions share no narrower base
                raise DeviceError(
                    f"{self.device} failed on images of shape {images.shape}: {first_line(error)}; "
                    "if memory ran out, give a smaller --tile"
                ) from error
        result: Images = probability
        return result


def find_model(name_or_path: str | Path = DEFAULT_MODEL, repository: Path = ZOO) -> ModelEntry:
    """Find a model by name or path and check its hash.

    Raises:
        ModelUnavailableError: no such model, or a file that is not what its description says.
    """
    try:
        return load_model(name_or_path, repository)
    except (ModelError, OSError) as error:
        raise ModelUnavailableError(first_line(error)) from error


def _cpu_session(entry: ModelEntry, reason: str = "CPU, as asked") -> tuple[Any, str]:
    return _session(entry, ["CPUExecutionProvider"], _options()), reason


def _cuda_session(entry: ModelEntry, reason: str = "GPU, as asked") -> tuple[Any, str]:
    if _CUDA not in ort.get_available_providers():
        raise _NoCudaError(
            "this ONNX Runtime was built without CUDA", "emboundary[gpu] in place of emboundary[cpu] brings it"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = _options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = _session(entry, [(_CUDA, _CUDA_OPTIONS)], options)
    except ModelUnavailableError as error:
        _cpu_session(entry)  # a damaged file fails here as well, and is then no matter of the device
        raise _NoCudaError(f"no session starts on it ({first_line(error.__cause__ or error)})") from error
    if _CUDA not in session.get_providers():
        raise _NoCudaError(f"ONNX Runtime fell back to {session.get_providers()[0]}")
    _prove(session, entry.description)
    return session, reason


def _auto_session(entry: ModelEntry) -> tuple[Any, str]:
    try:
        return _cuda_session(entry, "GPU: a session on it works")
    except _NoCudaError as error:
        return _cpu_session(entry, f"CPU: {error.reason}; {error.remedy}")


class _NoCudaError(DeviceError):
    def __init__(self, reason: str, remedy: str = "`emboundary doctor` shows what is missing") -> None:
        super().__init__(f"device is cuda, but {reason}; {remedy}, and --device cpu runs without")
        self.reason = reason
        self.remedy = remedy


def _prove(session: Any, description: ModelDescription) -> None:
    """Run the smallest image once: a session can start on a GPU for which the runtime holds no kernels."""
    _, y, x = description.stride
    try:
        session.run(None, {description.input.name: np.zeros((1, description.footprint.channels, y, x), np.float32)})
    except Exception as error:  # the runtime's exceptions share no narrower base
        raise _NoCudaError(f"a first run on it fails ({first_line(error)})") from error


_CUDA = "CUDAExecutionProvider"
_CUDA_OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",  # no timing runs, whose winner could differ from run to run
    "arena_extend_strategy": "kSameAsRequested",
}
_SESSIONS = {"auto": _auto_session, "cpu": _cpu_session, "cuda": _cuda_session}


def _options() -> Any:
    options = ort.SessionOptions()
    options.use_deterministic_compute = True
    # The planner of one large allocation needs a third more memory than the arena by itself, and wins no time.
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what fails is raised, and said once
    # Counted, not left to the runtime: it would count cores that this process may not use.
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    return options


def _session(entry: ModelEntry, providers: list[Any], options: Any) -> Any:
    try:
        session = ort.InferenceSession(str(entry.path), options, providers=providers)
    except Exception as error:  # the runtime's exceptions share no narrower base
        reason = first_line(error)
        raise ModelUnavailableError(f"{entry.path} is not a model that ONNX Runtime can load: {reason}") from error
    _check_file(session, entry)
    return session


def _check_file(session: Any, entry: ModelEntry) -> None:
    """Compare the file with its description: the copy of that inside the file, and the tensors."""
    described = entry.description
    embedded = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    try:
        inside = None if embedded is None else ModelDescription.model_validate_json(embedded)
    except ValidationError:
        inside = None
    if inside != described.model_copy(update={"sha256": None, "variants": {}}):
        raise ModelUnavailableError(
            f"{entry.path} does not carry the description that stands beside it; export the model again, or copy both "
            "files from the same export"
        )
    for kind, tensors, described_tensor, channels in (
        ("input", session.get_inputs(), described.input, described.footprint.channels),
        ("output", session.get_outputs(), described.output, len(described.outputs)),
    ):
        if [_signature(t) for t in tensors] != [_expected(described_tensor, channels)]:
            found = "; ".join(f"{t.name} {t.type} {t.shape}" for t in tensors)
            raise ModelUnavailableError(
                f"{entry.path} has {kind} {found}, its description says {described_tensor.name} tensor(float) "
                f"({', '.join(described_tensor.axes)}) with c = {channels}: export the model again"
            )
    if described.stride[0] != 1 or described.input.axes != ("n", "c", "y", "x"):
        raise ModelUnavailableError(
            f"model {described.name} wants axes {described.input.axes} with halo {described.halo} and stride "
            f"{described.stride}; this version maps section by section, neighbours as channels: axes (n, c, y, x), "
            "z stride 1"
        )


def _signature(tensor: Any) -> tuple[str, str, tuple[bool, ...], int]:
    dynamic = tuple(not isinstance(extent, int) for extent in tensor.shape)
    return tensor.name, tensor.type, dynamic, tensor.shape[1] if len(tensor.shape) > 1 else 0


def _expected(tensor: TensorDescription, channels: int) -> tuple[str, str, tuple[bool, ...], int]:
    return tensor.name, "tensor(float)", tuple(axis != "c" for axis in tensor.axes), channels
