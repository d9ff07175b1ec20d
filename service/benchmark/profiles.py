"""Where a network's time goes: ONNX Runtime's own profile of one run, added up by operator and by layer."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from emboundary.model.description import Precision

_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "QLinearConv", "ConvInteger", "ConvTranspose")
_SUFFIX = "_kernel_time"
_MICROSECOND = 1e-6


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class OperatorTime(_Record):
    """All layers of one kind.

    Attributes:
        share: of the time of all layers.
    """

    operator: str
    layers: int
    seconds: float
    share: float


class LayerTime(_Record):
    """One layer.

    Attributes:
        share: of the time of all layers.
        operations: multiplications and additions of a convolution; 0 for other layers; None where the runtime keeps
            the shape of the weights to itself.
        bytes: of maps and weights that it reads, and of maps that it writes.
        output: shape of what it writes.
    """

    name: str
    operator: str
    seconds: float
    share: float
    operations: float | None
    bytes: float
    output: tuple[int, ...]


class Profile(_Record):
    """One run of one network.

    Attributes:
        shape: of the images (n, c, y, x).
        clock: what the times are of: ``calls``, as a CPU's layers are called one after another; ``waiting calls``, to
            a GPU, each until its work is done; ``kernels``, as a GPU recorded them.
        seconds: of all layers.
        run_seconds: of the whole run; what layers do not account for passes between them.
        layer_bytes: read and written by all layers together.
        operators: the longest first.
        layers: the longest first.
    """

    model: str
    precision: Precision
    shape: tuple[int, ...]
    clock: Literal["calls", "waiting calls", "kernels"]
    seconds: float
    run_seconds: float
    layer_bytes: float
    operators: tuple[OperatorTime, ...]
    layers: tuple[LayerTime, ...]

    @property
    def layer_bytes_per_pixel(self) -> float:
        """Bytes that all layers read and write for each pixel of the images."""
        n, _, y, x = self.shape
        return self.layer_bytes / (n * y * x)

    @property
    def bottleneck(self) -> LayerTime:
        """The layer that takes longest."""
        return self.layers[0]


def profile(
    model: str,
    precision: Precision,
    shape: tuple[int, ...],
    run: Callable[[], None],
    end: Callable[[], Path],
    *,
    layers: int = 5,
) -> Profile:
    """Run a session that was opened with profiling twice, and read the profile of the second run.

    Args:
        model: its name.
        precision: its arithmetic.
        shape: of the images that ``run`` gives it.
        run: one run.
        end: ends profiling; gives the file, which is removed.
        layers: that are told apart, the longest ones.
    """
    run()
    run()
    path = end()
    try:
        events: list[dict[str, Any]] = json.loads(path.read_text())
    finally:
        path.unlink()
    return read_profile(model, precision, shape, events, layers=layers)


def read_profile(
    model: str, precision: Precision, shape: tuple[int, ...], events: Sequence[dict[str, Any]], *, layers: int = 5
) -> Profile:
    """Add up the last run in the events of a profile.

    Raises:
        ValueError: events of no run.
    """
    ends = [place for place, event in enumerate(events) if event["name"] == "model_run"]
    if not ends:
        raise ValueError("events tell of no run; profiling was ended before the session ran, or was never on")
    # A run is told of behind its layers, and kernels behind the layer that began them.
    last, inside = events[ends[-1]], events[ends[-2] + 1 if len(ends) > 1 else 0 : ends[-1]]
    nodes = [e for e in inside if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    kernels = _seconds_of_kernels(inside)
    found = _layers(nodes, kernels or None)
    total = sum(layer.seconds for layer in found) or 1.0
    told = [layer.model_copy(update={"share": layer.seconds / total}) for layer in found]
    return Profile(
        model=model,
        precision=precision,
        shape=shape,
        clock="kernels" if kernels else "calls",
        seconds=sum(layer.seconds for layer in told),
        run_seconds=last["dur"] * _MICROSECOND,
        layer_bytes=sum(layer.bytes for layer in told),
        operators=_operators(told, total),
        layers=tuple(sorted(told, key=lambda layer: -layer.seconds)[:layers]),
    )


def _layers(nodes: Iterable[dict[str, Any]], device: dict[str, float] | None) -> list[LayerTime]:
    found = []
    for node in nodes:
        name, args = node["name"].removesuffix(_SUFFIX), node["args"]
        seconds = node["dur"] * _MICROSECOND if device is None else device.get(name, 0.0)
        shapes = [tuple(*entry.values()) for entry in args.get("output_type_shape", [])]
        moved = (float(args.get(size, 0)) for size in ("activation_size", "parameter_size", "output_size"))
        found.append(
            LayerTime(
                name=name,
                operator=args["op_name"],
                seconds=seconds,
                share=0.0,
                operations=_operations(args, shapes),
                bytes=sum(moved),
                output=shapes[0] if shapes else (),
            )
        )
    return found


def _seconds_of_kernels(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Seconds of a GPU's kernels by the name of the layer that began them; empty where none were recorded."""
    seconds: dict[str, float] = defaultdict(float)
    layer = ""
    for event in events:
        if event["cat"] == "Node":
            layer = event["name"]
        elif event["cat"] == "Kernel":
            began_by = event["args"].get("parent_name", layer)
            seconds[began_by.removesuffix(_SUFFIX)] += event["dur"] * _MICROSECOND
    return dict(seconds)


def _operations(args: dict[str, Any], outputs: Sequence[tuple[int, ...]]) -> float | None:
    """2 x products of a convolution: each output pixel, or input pixel of a transposed one, meets the whole kernel."""
    if args["op_name"] not in _CONVOLUTIONS or not outputs:
        return 0.0
    inputs = [tuple(*entry.values()) for entry in args["input_type_shape"]]
    weights = next((shape for shape in inputs[1:] if len(shape) == 4), None)
    if weights is None:
        return None  # they were packed for the processor when the session was opened
    moved = inputs[0] if args["op_name"] == "ConvTranspose" else outputs[0]
    # In either layout a value meets all extents of the weights but their first.
    return float(2 * math.prod(moved) * math.prod(weights) / weights[0])


def _operators(layers: Iterable[LayerTime], total: float) -> tuple[OperatorTime, ...]:
    groups: dict[str, list[LayerTime]] = defaultdict(list)
    for layer in layers:
        groups[layer.operator].append(layer)
    found = [
        OperatorTime(
            operator=name, layers=len(group), seconds=(s := sum(one.seconds for one in group)), share=s / total
        )
        for name, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: -one.seconds))
