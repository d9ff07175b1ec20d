"""What the Open Inference Protocol v2 tells about the service and its models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from emboundary.model.description import TensorDescription
from emboundary.service.hosting import IndexEntry


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerMetadata(_Reply):
    """Which program answers, and what it can do beyond the protocol."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "emboundary",
                "version": "0.1.0",
                "extensions": ["binary_tensor_data", "model_repository", "parameters"],
            }
        }
    )

    name: str
    version: str
    extensions: tuple[str, ...]


class ServerLive(_Reply):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"example": {"live": True}})

    live: Literal[True] = True


class ServerReady(_Reply):
    """The default model runs, and requests are taken."""

    model_config = ConfigDict(json_schema_extra={"example": {"ready": True}})

    ready: Literal[True] = True


class ModelReady(_Reply):
    """The model is served."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "d4", "ready": True}})

    name: str
    ready: Literal[True] = True


class TensorMetadata(_Reply):
    """One tensor; -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: TensorDescription) -> TensorMetadata:
        """What a model's description says of a tensor."""
        return cls(
            name=tensor.name,
            datatype={"float32": "FP32"}[tensor.dtype],
            shape=tuple(1 if axis == "c" else -1 for axis in tensor.axes),
        )


class ModelMetadata(_Reply):
    """A model's versions and tensors.

    Attributes:
        versions: that are served, the newest first.
        platform: what runs it.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "d4",
                "versions": ["1"],
                "platform": "onnx_onnxv1",
                "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, -1, -1]}],
                "outputs": [{"name": "probability", "datatype": "FP32", "shape": [-1, 1, -1, -1]}],
            }
        }
    )

    name: str
    versions: tuple[str, ...]
    platform: Literal["onnx_onnxv1"] = "onnx_onnxv1"
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class IndexedModel(_Reply):
    """One version of a model in the repository.

    Attributes:
        reason: why it is not served, or why its files no longer can be.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "d4", "version": "1", "state": "READY", "reason": ""}}
    )

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str

    @classmethod
    def of(cls, entry: IndexEntry) -> IndexedModel:
        """What the repository knows of it."""
        return cls(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
