"""The numpy file format, without pickles.  The header is read first; nothing is allocated that the body lacks."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from emboundary.service.codecs.errors import MalformedBodyError, UnsupportedImageError, refuse_large
from emboundary.service.errors import first_line

_READERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_COLOUR_CHANNELS = (3, 4)


def decode(body: bytes, limit: int) -> tuple[NDArray[Any], str]:
    """Read a .npy file and guess its axes from the number of dimensions: ``yx`` or ``zyx``.

    The guess is ``yxs`` (colour) for three dimensions whose last has 3 or 4 entries and is the smallest.

    Raises:
        MalformedBodyError: no .npy file, or not as many bytes as its header promises.
        UnsupportedImageError: Python objects or records instead of numbers.
        TooLargeError: more than ``limit`` bytes.
    """
    stream = io.BytesIO(body)
    try:
        version = npy_format.read_magic(stream)
        shape, fortran_order, dtype = _READERS[version](stream)
    except KeyError:
        raise MalformedBodyError("the npy file is of an unknown version; write it with numpy.save") from None
    except Exception as error:  # the header is evaluated as a Python literal, which fails in many ways
        reason = first_line(error)
        raise MalformedBodyError(f"the body is no npy file ({reason}); write it with numpy.save") from error
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None or dtype.itemsize == 0:
        raise UnsupportedImageError(f"the npy file holds {dtype}; it must hold plain numbers: convert it")
    nbytes = math.prod(shape) * dtype.itemsize
    refuse_large(nbytes, limit, f"the npy file of shape {shape}, {dtype},")
    present = len(body) - stream.tell()
    if present != nbytes or any(n < 0 for n in shape):
        raise MalformedBodyError(
            f"the npy file has {present} bytes of values, its header promises {nbytes} (shape {shape}, {dtype}); "
            "it is truncated or damaged: send it whole"
        )
    values = np.frombuffer(body, dtype, offset=stream.tell(), count=math.prod(shape))
    array = values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)
    return array, _axes_of(array.shape)


def encode(array: NDArray[Any]) -> bytes:
    """Write an array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _axes_of(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[2] in _COLOUR_CHANNELS and shape[2] < min(shape[:2]):
        return "yxs"
    return {2: "yx", 3: "zyx"}.get(len(shape), "?" * len(shape))
