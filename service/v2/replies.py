"""What the Open Inference Protocol v2 tells about the service and its models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from emboundary.model.description import TensorDescription
from emboundary.service.hosting import IndexEntry

_DATATYPES = {"float32": "FP32"}


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerMetadata(_Reply):
    """Which program answers, and what it can do beyond the protocol."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "emboundary",
                "version": "0.1.0",
                "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "parameters"],
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
        return cls(name=tensor.name, datatype=_DATATYPES[tensor.dtype], shape=_shape(tensor))


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


class TensorConfig(_Reply):
    """One tensor; -1 stands for any size."""

    name: str
    data_type: str
    dims: tuple[int, ...]

    @classmethod
    def of(cls, tensor: TensorDescription) -> TensorConfig:
        """What a model's description says of a tensor."""
        return cls(name=tensor.name, data_type=f"TYPE_{_DATATYPES[tensor.dtype]}", dims=_shape(tensor))


class ModelConfig(_Reply):
    """What Triton's tools want to know before they measure a model.

    Attributes:
        max_batch_size: 0: an image's sections are its first axis, and requests are batched by the service.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "d4",
                "platform": "onnxruntime_onnx",
                "backend": "onnxruntime",
                "max_batch_size": 0,
                "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [-1, 1, -1, -1]}],
                "output": [{"name": "probability", "data_type": "TYPE_FP32", "dims": [-1, 1, -1, -1]}],
            }
        }
    )

    name: str
    platform: Literal["onnxruntime_onnx"] = "onnxruntime_onnx"
    backend: Literal["onnxruntime"] = "onnxruntime"
    max_batch_size: Literal[0] = 0
    input: tuple[TensorConfig, ...]
    output: tuple[TensorConfig, ...]


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


def _shape(tensor: TensorDescription) -> tuple[int, ...]:
    return tuple(1 if axis == "c" else -1 for axis in tensor.axes)
