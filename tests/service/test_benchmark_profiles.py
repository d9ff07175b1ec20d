"""Profiles of ONNX Runtime, read and added up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emboundary.model.repository import load_model
from emboundary.service.benchmark.findings import bottleneck
from emboundary.service.benchmark.profiles import read_profile
from emboundary.service.benchmark.profiling import profile_in_a_process, profile_model
from emboundary.service.benchmark.records import Limits
from emboundary.service.engine.place import Place
from emboundary.service.errors import DeviceError

SHAPE = (1, 1, 8, 8)


def run(began: int, took: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": began, "dur": took, "args": {}}


def node(name: str, operator: str, began: int, took: int, **args: Any) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "ts": began,
        "dur": took,
        "args": {"op_name": operator, **args},
    }


def conv(began: int, took: int) -> dict[str, Any]:
    """3 x 3, from 2 to 4 channels on 8 x 8 pixels."""
    return node(
        "wide",
        "Conv",
        began,
        took,
        input_type_shape=[{"float": [1, 2, 8, 8]}, {"float": [4, 2, 3, 3]}, {"float": [4]}],
        output_type_shape=[{"float": [1, 4, 8, 8]}],
        activation_size="512",
        parameter_size="304",
        output_size="1024",
    )


def relu(began: int, took: int) -> dict[str, Any]:
    return node("relu", "Relu", began, took, output_type_shape=[{"float": [1, 4, 8, 8]}], output_size="1024")


def test_the_last_run_is_added_up_by_layer_and_by_operator() -> None:
    events = [conv(1, 80), run(0, 90), conv(101, 30), relu(131, 10), run(100, 50)]
    found = read_profile("d4", "float32", SHAPE, events)
    assert (found.seconds, found.run_seconds) == (pytest.approx(40e-6), pytest.approx(50e-6))
    assert [(o.operator, o.layers, o.share) for o in found.operators] == [
        ("Conv", 1, pytest.approx(0.75)),
        ("Relu", 1, pytest.approx(0.25)),
    ]
    wide = found.bottleneck
    assert (wide.name, wide.bytes, wide.output) == ("wide", 512 + 304 + 1024, (1, 4, 8, 8))
    assert wide.operations == 2 * 4 * 8 * 8 * (2 * 3 * 3)
    assert found.layer_bytes == 1840 + 1024
    assert found.layer_bytes_per_pixel == (1840 + 1024) / 64
    assert found.clock == "calls"


def test_a_transposed_convolution_counts_its_input_pixels() -> None:
    up = node(
        "up",
        "ConvTranspose",
        1,
        5,
        input_type_shape=[{"float": [1, 3, 4, 4]}, {"float": [3, 5, 2, 2]}],
        output_type_shape=[{"float": [1, 5, 8, 8]}],
    )
    found = read_profile("d4", "float32", SHAPE, [up, run(0, 10)])
    assert found.bottleneck.operations == 2 * (3 * 4 * 4) * (5 * 2 * 2)


def test_operations_of_packed_weights_are_not_known() -> None:
    packed = conv(1, 40)
    packed["args"]["input_type_shape"] = [{"float": [1, 2, 8, 8]}, {"float": [72]}, {"float": [4]}]
    found = read_profile("d4", "float32", SHAPE, [packed, run(0, 50)])
    assert found.bottleneck.operations is None
    told = bottleneck(found, Limits(matrix={"float32": 1.0}, memory=4 * 1840 / 40e-6))
    assert told.endswith("with 25% of the bandwidth; how many operations it does the runtime does not tell")


def test_on_a_gpu_the_time_of_its_kernels_counts_not_that_of_the_calls() -> None:
    def kernel(took: int, **args: str) -> dict[str, Any]:
        # a GPU's own clock need not be the host's
        return {"cat": "Kernel", "name": "gemm", "ts": 9000, "dur": took, "args": args}

    warm = [conv(1, 1), kernel(70), run(0, 60)]
    events = [*warm, conv(101, 1), kernel(5), kernel(2), relu(102, 1), kernel(20), run(100, 60)]
    found = read_profile("d4", "float32", SHAPE, events)
    assert found.clock == "kernels"
    assert [(layer.name, layer.seconds) for layer in found.layers] == [
        ("relu", pytest.approx(20e-6)),
        ("wide", pytest.approx(7e-6)),
    ]
    events[-2] = kernel(20, parent_name="wide_kernel_time")
    (longest, _) = read_profile("d4", "float32", SHAPE, events).layers
    assert (longest.name, longest.seconds) == ("wide", pytest.approx(27e-6))


def test_only_the_longest_layers_are_told() -> None:
    events = [*(node(f"n{i}", "Relu", i, i) for i in range(1, 10)), run(0, 100)]
    found = read_profile("d4", "float32", SHAPE, events, layers=2)
    assert [layer.name for layer in found.layers] == ["n9", "n8"]
    assert found.operators[0].layers == 9


def test_events_without_a_run_are_refused() -> None:
    with pytest.raises(ValueError, match="events tell of no run; profiling was ended before the session ran"):
        read_profile("d4", "float32", SHAPE, [conv(1, 2)])


def test_the_bottleneck_is_named_with_the_limit_that_it_is_nearer_to() -> None:
    found = read_profile("d4", "float32", SHAPE, [conv(1, 40), run(0, 50)])
    operations, moved = 2 * 256 * 18 / 40e-6, 1840 / 40e-6
    by_arithmetic = Limits(matrix={"float32": 2 * operations}, memory=100 * moved)
    assert bottleneck(found, by_arithmetic) == (
        "the next bottleneck is Conv wide (1 x 4 x 8 x 8) with 100% of the time, nearer to arithmetic than to "
        "memory: 50% of the matrix rate"
    )
    by_memory = Limits(matrix={"float32": 100 * operations}, memory=4 * moved)
    assert bottleneck(found, by_memory).endswith("nearer to memory than to arithmetic: 25% of the bandwidth")


def test_a_model_is_profiled_through_the_runtime(repository: Path, tmp_path: Path) -> None:
    found = profile_model(load_model("d4", repository), "float32", Place("cpu"), (2, 24, 32))
    assert found.shape == (2, 1, 24, 32)
    assert {"Conv", "ConvTranspose"} <= {operator.operator for operator in found.operators}
    assert found.seconds > 0
    assert found.layer_bytes >= 4 * (3 * 16 + 3 * 16 + 9) + 2 * 4 * 2 * 24 * 32  # weights, the image and the map
    assert not list(tmp_path.iterdir())


def test_a_profile_is_taken_in_a_process_whose_calls_wait(repository: Path) -> None:
    entry = load_model("d4", repository)
    found = profile_in_a_process(entry, "float32", Place("cpu"), (1, 24, 24), layers=2)
    here = profile_model(entry, "float32", Place("cpu"), (1, 24, 24))
    assert (found.clock, here.clock) == ("waiting calls", "calls")
    assert (found.shape, found.layer_bytes, len(found.layers)) == (here.shape, here.layer_bytes, 2)


def test_a_profile_that_fails_says_why(repository: Path) -> None:
    with pytest.raises(DeviceError, match=r"no profile of d4 in float32 on images of shape \(1, 0, 24\): .*--tile"):
        profile_in_a_process(load_model("d4", repository), "float32", Place("cpu"), (1, 0, 24))
