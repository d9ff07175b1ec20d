import numpy as np
import onnxruntime as ort
import pytest

from emboundary.model.probe_graphs import matrix_graph, memory_graph, probe_graphs
from emboundary.service.benchmark.probes import GRAPHS

TYPES = {
    "matrix_float32": (np.float32, np.float32),
    "matrix_float16": (np.float16, np.float16),
    "matrix_int8": (np.int8, np.int8),
    "matrix_uint8": (np.uint8, np.int8),
}


def run(content: bytes, **feeds: np.ndarray) -> np.ndarray:
    (found,) = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feeds)
    return np.asarray(found)


def test_the_files_of_the_service_are_what_is_built_here() -> None:
    assert {path.name: path.read_bytes() for path in GRAPHS.glob("*.onnx")} == probe_graphs()


@pytest.mark.parametrize("name", TYPES)
def test_a_matrix_graph_multiplies_matrices_of_any_size(name: str) -> None:
    left, right = TYPES[name]
    for m, k, n in ((2, 3, 4), (5, 1, 2)):
        a = np.arange(m * k).reshape(m, k).astype(left)
        b = (np.arange(k * n).reshape(k, n) - 3).astype(right)
        found = run(matrix_graph(name).SerializeToString(), a=a, b=b)
        np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


def test_the_memory_graph_touches_every_value() -> None:
    x = np.arange(7, dtype=np.float32)
    np.testing.assert_array_equal(run(memory_graph().SerializeToString(), x=x), -x)


def test_a_precision_without_a_graph_is_refused() -> None:
    with pytest.raises(ValueError, match=r"name is 'matrix_int4'; it must be one of matrix_float32, matrix_float16"):
        matrix_graph("matrix_int4")
