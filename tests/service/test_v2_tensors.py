from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from emboundary.service.codecs.errors import MalformedBodyError, TooLargeError, UnsupportedImageError
from emboundary.service.v2.messages import AnswerDatatype, Datatype, InputParameters, InputTensor
from emboundary.service.v2.tensors import read_tensor, refuse_long, write_numbers

LIMIT = 1 << 20
DATATYPES: dict[str, Datatype] = {
    **{"uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64"},
    **{"int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64"},
    **{"float16": "FP16", "float32": "FP32", "float64": "FP64"},
}
shapes = st.one_of(
    arrays.array_shapes(min_dims=2, max_dims=3, max_side=5),
    st.tuples(st.integers(1, 4), st.just(1), st.integers(1, 4), st.integers(1, 4)),
)


def binary(array: NDArray[Any], **changes: Any) -> InputTensor:
    parameters = InputParameters(binary_data_size=changes.pop("size", array.nbytes))
    return InputTensor(
        **{"name": "image", "shape": array.shape, "datatype": DATATYPES[array.dtype.name], "parameters": parameters}
        | changes
    )


def text(data: bytes, shape: tuple[int, ...] = (1, 1), datatype: Any = "FP32") -> InputTensor:
    return InputTensor("image", shape, datatype, data=msgspec.Raw(data))


def read(tensor: InputTensor, behind: bytes = b"", limit: int = LIMIT) -> NDArray[Any]:
    return read_tensor(tensor, memoryview(behind), limit=limit)


@pytest.mark.parametrize("dtype", DATATYPES)
def test_every_type_comes_in_as_bytes_and_as_json(dtype: str) -> None:
    array = np.array([[0, 1, 2], [3, 100, 127]], dtype)
    for found in (
        read(binary(array), array.tobytes()),
        read(text(json.dumps(array.tolist()).encode(), array.shape, DATATYPES[dtype])),
    ):
        assert found.dtype == dtype
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, array)


@given(shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(width=32, allow_nan=False))))
def test_bytes_are_taken_as_they_are_wherever_they_start(array: NDArray[np.float32]) -> None:
    for offset in range(3):
        behind = memoryview(b"x" * offset + array.tobytes())[offset:]
        found = read_tensor(binary(array), behind, limit=LIMIT)
        np.testing.assert_array_equal(found, array)
        assert found.flags.aligned


@given(
    shapes.flatmap(
        lambda shape: arrays.arrays(
            np.float32, shape, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
        )
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_json_is_read_exactly_flat_or_nested(array: NDArray[np.float32], nested: bool, indent: int | None) -> None:
    data = json.dumps(array.tolist() if nested else array.reshape(-1).tolist(), indent=indent).encode()
    np.testing.assert_array_equal(read(text(data, array.shape)), array)


@given(arrays.arrays(np.float32, shapes, elements=st.floats(0, 1, width=32)))
def test_an_answer_in_json_is_read_exactly(array: NDArray[np.float32]) -> None:
    content = write_numbers(array)
    np.testing.assert_array_equal(np.array(json.loads(content), np.float32).reshape(array.shape), array)
    refuse_long(array.shape, "FP32", 24 * array.size)
    assert len(content) <= 24 * array.size + 2


def test_an_answer_longer_than_a_block_is_one_list() -> None:
    array = np.arange(200_000, dtype=np.uint32).astype(np.uint8).reshape(2, 100_000)
    assert json.loads(write_numbers(array)) == array.reshape(-1).tolist()


@pytest.mark.parametrize(("datatype", "longest"), [("UINT8", 4), ("FP16", 24), ("FP32", 24)])
def test_an_answer_that_is_too_long_for_json_is_refused_before(datatype: AnswerDatatype, longest: int) -> None:
    refuse_long((2, 50), datatype, 100 * longest)
    with pytest.raises(TooLargeError, match=r"shape \[2, 50\] takes up to \d+ bytes as JSON, and at most \d+ are sent"):
        refuse_long((2, 50), datatype, 100 * longest - 1)


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (b"[1,2,3,4]", (2, 3)),
        (b"[[1,2],[3,4],[5,6]]", (2, 3)),
        (b"[[1,2,3],[4,5]]", (2, 3)),
        (b"[[1,2,3],[4,5],[6]]", (2, 3)),
        (b"[[1,2,3,4],[5,6]]", (2, 3)),
        (b"[[1,2,3,[4],5,6]]", (2, 3)),
        (b"[[[1,2,3],[4,5,6]]]", (2, 3)),
        (b"[[1,2,3],4,5,6]", (2, 3)),
        (b"[[1,2,3,4,5,6]]", (2, 3)),
        (b"7", (1, 1)),
        (b"[[[]]]", (1, 1)),
    ],
)
def test_json_of_another_shape_is_refused(data: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(MalformedBodyError, match=r"data of input image is not of shape \[\d, \d\]; give \d numbers in"):
        read(text(data, shape))


@pytest.mark.parametrize(
    ("data", "shape", "datatype", "said"),
    [
        (b"[]", (1, 1), "FP32", "is empty; give 1 numbers"),
        (b"[[]]", (1, 1), "FP32", "is empty; give 1 numbers"),
        (b"[[1],[]]", (2, 1), "FP32", "or an empty list; give 2 numbers of datatype FP32"),
        (b"[[],[1]]", (2, 1), "FP32", "or an empty list"),
        (b"[1e999]", (1, 1), "FP64", "too large for 64 bit"),
        (b"[1e39]", (1, 1), "FP32", "holds 1e+39; the largest value of FP32 is 3.40282e+38: choose another datatype"),
        (b"[65520]", (1, 1), "FP16", "holds 65520.0; the largest value of FP16 is 65504"),
        (b"[256]", (1, 1), "UINT8", "holds 256.0; as JSON UINT8 holds whole numbers from 0 to 255"),
        (b"[-1]", (1, 1), "UINT64", "holds -1.0; as JSON UINT64 holds whole numbers from 0 to 9007199254740992"),
        (b"[9007199254740994]", (1, 1), "INT64", "from -9007199254740992 to 9007199254740992"),
        (b"[0.5]", (1, 1), "INT16", "holds 0.5; as JSON INT16 holds whole numbers from -32768 to 32767"),
        (b"[true]", (1, 1), "UINT8", "holds 'tru'; it must be a list of numbers"),
        (b'["7"]', (1, 1), "UINT8", "holds '\"\"'; it must be a list of numbers"),
        (b"{}", (1, 1), "UINT8", "holds '{}'; it must be a list of numbers"),
    ],
)
def test_json_that_is_no_number_of_the_type_is_refused(
    data: bytes, shape: tuple[int, ...], datatype: str, said: str
) -> None:
    with pytest.raises(MalformedBodyError) as caught:
        read(text(data, shape, datatype))
    assert said in str(caught.value)


def test_sizes_must_fit_each_other() -> None:
    image = np.zeros((2, 3), np.uint16)
    with pytest.raises(MalformedBodyError, match=r"11 bytes follow the JSON and binary_data_size is 12; they must be"):
        read(binary(image), bytes(11))
    with pytest.raises(MalformedBodyError, match=r"binary_data_size is 10; shape \[2, 3\] of datatype UINT16 takes 12"):
        read(binary(image, size=10), bytes(10))
    with pytest.raises(MalformedBodyError, match=r"3 bytes follow the JSON and binary_data_size is 0"):
        read(text(b"[1]"), bytes(3))


def test_a_tensor_is_sent_once() -> None:
    image = np.zeros((1, 1), np.uint8)
    with pytest.raises(MalformedBodyError, match="has both data and the parameter binary_data_size; it must have one"):
        read(binary(image, data=msgspec.Raw(b"[0]")), b"0")
    for nothing in (msgspec.Raw(), msgspec.Raw(b"null")):
        with pytest.raises(MalformedBodyError, match="has neither data and the parameter binary_data_size"):
            read(InputTensor("image", (1, 1), "UINT8", data=nothing))


def test_colour_is_refused() -> None:
    image = np.zeros((1, 3, 4, 4), np.uint8)
    with pytest.raises(
        UnsupportedImageError, match=r"image has shape \[1, 3, 4, 4\]; images have one channel: \[z, 1, y"
    ):
        read(binary(image), image.tobytes())


def test_a_shape_is_refused_before_anything_is_made_of_it() -> None:
    huge = (2**31, 2**31, 2**31)
    tracemalloc.start()
    with pytest.raises(TooLargeError, match=r"datatype FP64 holds \d+ bytes once decompressed; at most 1048576"):
        read(text(b"[0]", huge, "FP64"))
    with pytest.raises(MalformedBodyError, match="is not of shape"):
        read(text(b"[0]", (1, 1 << 17), "FP64"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", [(500, 600), (300_000, 1), (1, 1, 1, 300_000)], ids=str)
def test_reading_json_takes_memory_like_its_text(shape: tuple[int, ...], nested: bool) -> None:
    values = np.random.default_rng(0).integers(0, 10, shape, np.uint8)
    data = json.dumps(values.tolist() if nested else values.reshape(-1).tolist(), separators=(",", ":")).encode()
    tensor = text(data, shape, "UINT8")
    tracemalloc.start()
    found = read(tensor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, values)
    # As Python floats the numbers alone would be 32 bytes each.
    assert peak < 3 * len(data) + 2 * values.size + (4 << 20)
