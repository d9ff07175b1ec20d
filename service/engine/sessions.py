"""Sessions of ONNX Runtime: a model file is opened, and compared with what its description says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
from pydantic import ValidationError

from emboundary.model.description import METADATA_KEY, PRECISION_KEY, ModelDescription, Precision, TensorDescription
from emboundary.model.repository import DEFAULT_MODEL, ZOO, ModelEntry, ModelError, load_model
from emboundary.service.cores import usable_cores
from emboundary.service.errors import ModelUnavailableError, first_line

Providers = list[Any]
CPU: Providers = ["CPUExecutionProvider"]


def find_model(name_or_path: str | Path = DEFAULT_MODEL, repository: Path = ZOO) -> ModelEntry:
    """Find a model by name or path and check its hash.

    Raises:
        ModelUnavailableError: no such model, or a file that is not what its description says.
    """
    try:
        return load_model(name_or_path, repository)
    except (ModelError, OSError) as error:
        raise ModelUnavailableError(first_line(error)) from error


def find_file(entry: ModelEntry, precision: Precision) -> Path:
    """The model's file for a precision, its hash checked.

    Raises:
        ModelUnavailableError: it is missing or damaged.
    """
    try:
        return entry.file(precision)
    except (ModelError, OSError) as error:
        raise ModelUnavailableError(first_line(error)) from error


def version() -> str:
    """What runs sessions, for the record."""
    return f"onnxruntime {ort.__version__}"


def session_options() -> Any:
    """What every session of ours has in common."""
    options = ort.SessionOptions()
    options.use_deterministic_compute = True
    # The planner of one large allocation needs a third more memory than the arena by itself, and wins no time.
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what fails is raised, and said once
    # Counted, not left to the runtime: it would count cores that this process may not use.
    options.intra_op_num_threads = usable_cores()
    return options


def open_session(
    entry: ModelEntry, file: Path, providers: Providers, options: Any, precision: Precision = "float32"
) -> Any:
    """A session of a model's file, compared with the model's description.

    Raises:
        ModelUnavailableError: a file that ONNX Runtime cannot load, or that differs from its description.
    """
    try:
        # Without enable_fallback=0 a provider that fails is replaced by the CPU, and its reason lost.
        session = ort.InferenceSession(str(file), options, providers=providers, enable_fallback=0)
    except Exception as error:  # the runtime's exceptions share no narrower base
        reason = first_line(error)
        raise ModelUnavailableError(f"{file} is not a model that ONNX Runtime can load: {reason}") from error
    _check_file(session, file, entry.description, precision)
    return session


def _check_file(session: Any, file: Path, described: ModelDescription, precision: Precision) -> None:
    """Compare the file with its description: the copy of that inside the file, its precision, and the tensors."""
    metadata = session.get_modelmeta().custom_metadata_map
    embedded = metadata.get(METADATA_KEY)
    try:
        inside = None if embedded is None else ModelDescription.model_validate_json(embedded)
    except ValidationError:
        inside = None
    if inside != described.embedded():
        raise ModelUnavailableError(
            f"{file} does not carry the description that stands beside it; export the model again, or copy all its "
            "files from the same export"
        )
    found = metadata.get(PRECISION_KEY, "float32")
    if found != precision:
        raise ModelUnavailableError(
            f"{file} computes in {found}, and the description beside it says {precision}; export the model again, or "
            "copy all its files from the same export"
        )
    for kind, tensors, described_tensor, channels in (
        ("input", session.get_inputs(), described.input, described.footprint.channels),
        ("output", session.get_outputs(), described.output, len(described.outputs)),
    ):
        if [_signature(t) for t in tensors] != [_expected(described_tensor, channels)]:
            there = "; ".join(f"{t.name} {t.type} {t.shape}" for t in tensors)
            raise ModelUnavailableError(
                f"{file} has {kind} {there}, its description says {described_tensor.name} tensor(float) "
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
