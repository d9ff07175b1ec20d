"""From the body of an inference request to the question that it asks, and from the map back to a body."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from emboundary.model.description import ModelDescription
from emboundary.model.repository import canonical_name
from emboundary.service.codecs.errors import MalformedBodyError, UnsupportedImageError, refuse_large
from emboundary.service.errors import first_line
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.refusal import RequestError
from emboundary.service.schemas import Limits
from emboundary.service.v2.messages import (
    BinarySize,
    InferParameters,
    InferReply,
    InferRequest,
    OutputTensor,
    Provenance,
    read_message,
)
from emboundary.service.v2.tensors import ANSWERED, read_tensor, refuse_long, write_numbers
from emboundary.service.visits.question import Question, settle

LENGTH_HEADER = "Inference-Header-Content-Length"

# zlib's window, with the header that the encoding has.
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


@dataclass(frozen=True)
class Asked(Question):
    """An image to be mapped, and how the map is to be answered.

    The request itself, whose text may be much longer than the image, is not kept.

    Attributes:
        id: of the request.
        parameters: how to map it.
        binary: whether the map is to come as bytes behind the JSON.
    """

    id: str | None
    parameters: InferParameters
    binary: bool

    @property
    def timeout_s(self) -> float | None:
        """Seconds that the client waits, if it says so."""
        return self.parameters.timeout / 1e6 or None


def read_question(body: bytes, headers: Mapping[str, str], description: ModelDescription, limits: Limits) -> Asked:
    """Read an inference request.

    Args:
        body: as received.
        headers: of the request; names in lower case are found.
        description: of the model that the path names.
        limits: in force.

    Raises:
        InputError: JSON or a tensor that cannot be read, or an image that cannot be mapped.
        UsageError: an intensity that is none.
        RequestError: 415 for a body compressed in another way than gzip and deflate.
    """
    content = memoryview(_inflate(body, headers.get("content-encoding", ""), limits.max_body_bytes))
    length = _length_of_json(headers.get(LENGTH_HEADER.lower()), len(content))
    request = read_message(content[:length], InferRequest)
    (tensor,) = request.inputs
    _refuse_other("the input", tensor.name, description.input.name)
    for output in request.outputs or ():
        _refuse_other("the output", output.name, description.output.name)
    if request.model_name is not None:
        _refuse_other("model_name", canonical_name(request.model_name, {description.name}), description.name)
    parameters = request.parameters or InferParameters()
    given = None if parameters.intensity is None else Intensity.parse(parameters.intensity)
    binary = _is_binary(request, parameters)
    array = read_tensor(tensor, content[length:], limit=limits.max_body_bytes)
    if not binary:
        refuse_long(array.shape, ANSWERED[parameters.dtype], limits.max_body_bytes)
    question = settle(array, limits=limits, footprint=description.footprint, intensity=given)
    return Asked(question.image, question.intensity, question.shape, request.id, parameters, binary)


def write_answer(
    asked: Asked, stored: NDArray[Any], description: ModelDescription, device: str
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where the map follows as bytes."""
    little = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<"))
    size, data = (BinarySize(little.nbytes), None) if asked.binary else (None, msgspec.Raw(write_numbers(stored)))
    output = OutputTensor(description.output.name, stored.shape, ANSWERED[asked.parameters.dtype], size, data)
    reply = InferReply(
        description.name,
        description.version,
        (output,),
        Provenance(str(asked.intensity), str(description.sha256), device),
        asked.id,
    )
    head = msgspec.json.encode(reply)
    return (b"".join((head, little.data)), len(head)) if asked.binary else (head, None)


def _inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a ``Content-Encoding``; no more than ``limit`` bytes are ever made."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOWS:
        raise RequestError(415, f"Content-Encoding is {encoding}; it must be gzip, deflate or left out", reason="type")
    stream = zlib.decompressobj(_WINDOWS[name])
    try:
        content = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedBodyError(f"the body is not {name}, as Content-Encoding says: {first_line(error)}") from error
    refuse_large(len(content), limit, "the body, with what was not decompressed any more,")
    if not stream.eof or stream.unused_data:
        raise MalformedBodyError(f"the body is not one whole {name} stream, as Content-Encoding says; send it whole")
    return content


def _length_of_json(header: str | None, size: int) -> int:
    """How many bytes of a body are JSON: all, where no header says otherwise."""
    if header is None:
        return size
    if not (header.isascii() and header.isdecimal() and len(header) < 20 and 1 <= int(header) <= size):
        raise MalformedBodyError(
            f"{LENGTH_HEADER} is {header}; it must be the length in bytes of the JSON that the body, of {size} bytes, "
            "begins with"
        )
    return int(header)


def _is_binary(request: InferRequest, parameters: InferParameters) -> bool:
    for output in request.outputs or ():
        if output.parameters is not None and output.parameters.binary_data is not None:
            return output.parameters.binary_data
    return parameters.binary_data_output


def _refuse_other(what: str, name: str, expected: str) -> None:
    if name != expected:
        raise UnsupportedImageError(f"{what} is {name[:100]!r}; this model's is {expected!r} (GET /v2/models/NAME)")
