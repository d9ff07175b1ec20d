"""The JSON of inference and repository calls of the Open Inference Protocol v2.

These are msgspec structs and not pydantic models, because an image's voxels must not become a tree of Python
objects of 24 bytes and more each: msgspec leaves them the text that they are (``Raw``), having checked that it is
JSON, and ``v2_tensors`` reads the numbers out of it.  Unknown fields and parameters are refused.

Beside what the protocol and Triton's extensions name, requests may hold what standard clients add by themselves:
``model_name`` (KServe's), ``null`` for what is not set, ``content_type`` and ``headers`` (MLServer's).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from emboundary.service.codecs.errors import MalformedBodyError
from emboundary.service.probabilities import Dtype

Datatype = Literal["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
AnswerDatatype = Literal["UINT8", "FP16", "FP32"]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Numbers = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {"type": ["number", "array"]}})
]
_Message = TypeVar("_Message", bound=msgspec.Struct)

_SHOWN_CHARACTERS = 300


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Unknown fields are refused."""


class InputParameters(_Strict, frozen=True):
    """How the tensor is sent.

    Attributes:
        binary_data_size: bytes behind the JSON that are the tensor; without it the tensor is ``data``.
    """

    binary_data_size: _Size | None = None
    content_type: Literal["np"] | None = None
    headers: None = None


class InputTensor(_Strict, frozen=True):
    """The image.

    Attributes:
        shape: (y, x), (z, y, x) or (z, 1, y, x).
        data: the voxels as JSON numbers in row-major order: one list, or nested like the shape.
    """

    name: str
    shape: Annotated[tuple[_Side, ...], msgspec.Meta(min_length=2, max_length=4)]
    datatype: Datatype
    parameters: InputParameters | None = None
    data: _Numbers = msgspec.field(default_factory=msgspec.Raw)


class OutputParameters(_Strict, frozen=True):
    """How the answer is sent.

    Attributes:
        binary_data: whether it comes as bytes behind the JSON; where missing, as ``binary_data_output`` says.
    """

    binary_data: bool | None = None
    content_type: Literal["np"] | None = None
    headers: None = None


class RequestedOutput(_Strict, frozen=True):
    """A tensor to be answered: the only one there is, asked for or not."""

    name: str
    parameters: OutputParameters | None = None


class InferParameters(_Strict, frozen=True):
    """How the image is mapped and answered.

    Attributes:
        intensity: ``MEAN,STD`` in voxel values; the image's own where missing.
        tta: whether to average the 8 rotations and flips.
        dtype: of the probabilities; uint8 stores round(255 p).
        timeout: microseconds until the answer, at most what the service allows; 0: that.
        binary_data_output: whether the answer comes as bytes behind the JSON.
    """

    intensity: str | None = None
    tta: bool = False
    dtype: Dtype = "float32"
    timeout: _Size = 0
    binary_data_output: bool = False
    content_type: Literal["np"] | None = None
    headers: None = None


class InferRequest(_Strict, frozen=True):
    """One image to be mapped.

    Attributes:
        id: comes back with the answer.
        model_name: the one that the path names.
    """

    inputs: Annotated[tuple[InputTensor, ...], msgspec.Meta(min_length=1, max_length=1)]
    id: str | None = None
    model_name: str | None = None
    parameters: InferParameters | None = None
    outputs: Annotated[tuple[RequestedOutput, ...], msgspec.Meta(max_length=1)] | None = None


class BinarySize(msgspec.Struct, frozen=True):
    """Bytes behind the JSON that are the tensor."""

    binary_data_size: int


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """The probabilities, in the shape of the image.

    Attributes:
        data: one list of JSON numbers in row-major order, where the tensor is not sent as bytes.
    """

    name: str
    shape: tuple[int, ...]
    datatype: AnswerDatatype
    parameters: BinarySize | None = None
    data: _Numbers | None = None


class Provenance(msgspec.Struct, frozen=True):
    """By what the map was computed.

    Attributes:
        intensity: ``MEAN,STD`` that the image was normalised by.
        model_sha256: hash of the model's file.
        device: ``cpu`` or ``cuda``.
    """

    intensity: str
    model_sha256: str
    device: str


class InferReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The map of one image; with ``Inference-Header-Content-Length`` the tensor's bytes follow the JSON."""

    model_name: str
    model_version: str
    outputs: tuple[OutputTensor, ...]
    parameters: Provenance
    id: str | None = None


class IndexRequest(_Strict, frozen=True):
    """Which models to list: with ``ready`` only those that answer."""

    ready: bool = False


class LoadParameters(_Strict, frozen=True):
    """None: a model is what its folder says."""


class LoadRequest(_Strict, frozen=True):
    """Nothing more than the path says."""

    parameters: LoadParameters | None = None


class UnloadParameters(_Strict, frozen=True):
    """``unload_dependents`` changes nothing, for no model depends on another."""

    unload_dependents: bool = False


class UnloadRequest(_Strict, frozen=True):
    """Nothing more than the path says."""

    parameters: UnloadParameters | None = None


def read_message(content: bytes | memoryview, kind: type[_Message]) -> _Message:
    """Read a request's JSON.

    Raises:
        MalformedBodyError: not JSON, or not what ``kind`` describes.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = "".join(c if c.isprintable() else "?" for c in str(error)[:_SHOWN_CHARACTERS])
        raise MalformedBodyError(
            f"the request's JSON cannot be read: {said}; GET /docs shows what it may hold"
        ) from None
