"""Tensors of the Open Inference Protocol v2: from requests, and into answers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from emboundary.service.codecs.errors import MalformedBodyError, TooLargeError, UnsupportedImageError, refuse_large
from emboundary.service.probabilities import Dtype
from emboundary.service.v2.messages import AnswerDatatype, InputTensor

# Values of the binary tensor extension are little-endian.
_DTYPES: dict[str, np.dtype[Any]] = {
    **{
        f"{sign}INT{8 * size}": np.dtype(f"<{sign.lower() or 'i'}{size}") for sign in ("U", "") for size in (1, 2, 4, 8)
    },
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_OF_NUMBERS = b"0123456789+-.eE"
_SPACES = b" \t\r\n"
_LARGEST_EXACT = 2**53  # beyond it JSON numbers, which are float64 to most clients, are not what they seem
# Numbers become Python objects, 32 bytes each, on their way into the array: few at a time, which also lets other
# threads run in between.
_TEXT_AT_ONCE = 1 << 17
# How the types of answers are called, and their longest number as JSON: 255, or 1.1754943508222875e-38, and a comma.
ANSWERED: dict[Dtype, AnswerDatatype] = {"uint8": "UINT8", "float16": "FP16", "float32": "FP32"}
_LONGEST_NUMBER: dict[AnswerDatatype, int] = {"UINT8": 4, "FP16": 24, "FP32": 24}
_VALUES_AT_ONCE = 1 << 16


def read_tensor(tensor: InputTensor, binary: memoryview, *, limit: int) -> NDArray[Any]:
    """The array that an input describes, in its shape.

    Args:
        tensor: the input.
        binary: what stands behind the JSON.
        limit: largest size in bytes.

    Raises:
        MalformedBodyError: sizes that do not fit each other, or data that are not numbers of that type and shape.
        UnsupportedImageError: a shape that is no image or stack.
        TooLargeError: more than ``limit`` bytes.
    """
    shape, dtype = tensor.shape, _DTYPES[tensor.datatype]
    if len(shape) == 4 and shape[1] != 1:
        raise UnsupportedImageError(
            f"input {tensor.name} has shape {list(shape)}; images have one channel: [z, 1, y, x], [z, y, x] or [y, x]"
        )
    nbytes = math.prod(shape) * dtype.itemsize
    refuse_large(nbytes, limit, f"input {tensor.name} of shape {list(shape)} and datatype {tensor.datatype}")
    announced = tensor.parameters.binary_data_size if tensor.parameters is not None else None
    text = bytes(tensor.data).strip(_SPACES)
    has_data = text not in (b"", b"null")
    if (announced is not None) == has_data:
        raise MalformedBodyError(
            f"input {tensor.name} has {'both' if has_data else 'neither'} data and the parameter binary_data_size; it "
            "must have one of them"
        )
    if len(binary) != (announced or 0):
        raise MalformedBodyError(
            f"{len(binary)} bytes follow the JSON and binary_data_size is {announced or 0}; they must be equal: let "
            "Inference-Header-Content-Length say how long the JSON is"
        )
    if has_data:
        return _read_numbers(text, tensor, dtype)
    if announced != nbytes:
        raise MalformedBodyError(
            f"binary_data_size is {announced}; shape {list(shape)} of datatype {tensor.datatype} takes {nbytes} bytes"
        )
    # A copy: what stands before the tensor, aligned or not, is not kept with it.
    return np.frombuffer(binary, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_numbers(text: bytes, tensor: InputTensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read valid JSON as an array."""
    others = text.translate(None, _OF_NUMBERS + _SPACES + b"[],")
    if others:
        shown = others[:20].decode("ascii", "replace")
        raise MalformedBodyError(f"data of input {tensor.name} holds {shown!r}; it must be a list of numbers")
    brackets = text.translate(None, _OF_NUMBERS + _SPACES)
    if not (_is_list(brackets, (math.prod(tensor.shape),)) or _is_list(brackets, tensor.shape)):
        raise MalformedBodyError(
            f"data of input {tensor.name} is not of shape {list(tensor.shape)}; give {math.prod(tensor.shape)} numbers "
            "in one list, or nested like the shape"
        )
    numbers = text.translate(None, _SPACES + b"[]")
    values = np.empty(math.prod(tensor.shape), dtype.newbyteorder("="))
    start = filled = 0
    while start < len(numbers):
        comma = numbers.find(b",", start + _TEXT_AT_ONCE)
        end = len(numbers) if comma < 0 else comma
        try:
            block = np.array(msgspec.json.decode(b"[%b]" % numbers[start:end], type=list[float]), np.float64)
        except msgspec.DecodeError:
            raise MalformedBodyError(
                f"data of input {tensor.name} holds a number too large for 64 bit, or an empty list; give "
                f"{len(values)} numbers of datatype {tensor.datatype}"
            ) from None
        values[filled : filled + len(block)] = _cast(block, values.dtype, tensor)
        start, filled = end + 1, filled + len(block)
    if filled != len(values):
        raise MalformedBodyError(f"data of input {tensor.name} is empty; give {len(values)} numbers")
    return values.reshape(tensor.shape)


def _is_list(brackets: bytes, shape: tuple[int, ...]) -> bool:
    """Whether the brackets and commas of JSON are those of nested lists of that shape."""
    length, lists = math.prod(shape) - 1, 1
    for side in shape:
        length, lists = length + 2 * lists, lists * side
    if length != len(brackets):
        return False
    expected = b""
    for side in reversed(shape):
        expected = b"[%b]" % ((expected + b",") * (side - 1) + expected)
    return expected == brackets


def _cast(block: NDArray[np.float64], dtype: np.dtype[Any], tensor: InputTensor) -> NDArray[Any]:
    """The same values in another type.

    Raises:
        MalformedBodyError: a value that the type does not have.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = block.astype(dtype)
        wrong = ~np.isfinite(cast)
        rule = f"the largest value of {tensor.datatype} is {np.finfo(dtype).max:g}"
    else:
        low, high = (int(bound) for bound in (np.iinfo(dtype).min, np.iinfo(dtype).max))
        low, high = max(low, -_LARGEST_EXACT), min(high, _LARGEST_EXACT)
        wrong = (block != np.rint(block)) | (block < low) | (block > high)
        rule = f"as JSON {tensor.datatype} holds whole numbers from {low} to {high}"
        cast = np.where(wrong, 0, block).astype(dtype)
    if wrong.any():
        raise MalformedBodyError(
            f"data of input {tensor.name} holds {block[wrong][0]!s}; {rule}: choose another datatype"
        )
    return cast


def refuse_long(shape: tuple[int, ...], datatype: AnswerDatatype, limit: int) -> None:
    """Refuse, before it is computed, an answer whose JSON might be longer than ``limit`` bytes.

    Raises:
        TooLargeError: it might; binary answers have no such limit.
    """
    length = math.prod(shape) * _LONGEST_NUMBER[datatype]
    if length > limit:
        raise TooLargeError(
            f"the answer of shape {list(shape)} takes up to {length} bytes as JSON, and at most {limit} are sent; set "
            "the parameter binary_data_output, or send fewer voxels"
        )


def write_numbers(array: NDArray[Any]) -> bytes:
    """An array as one JSON list, in row-major order; float32 read from it is exactly the same."""
    flat = array.reshape(-1)
    blocks = (flat[first : first + _VALUES_AT_ONCE].tolist() for first in range(0, flat.size, _VALUES_AT_ONCE))
    return b"[%b]" % b",".join(msgspec.json.encode(block)[1:-1] for block in blocks)
