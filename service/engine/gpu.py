"""Networks on GPUs: opened there and nowhere else, and proved by a first run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import platformdirs

from emboundary.model.description import Precision
from emboundary.model.repository import ModelEntry
from emboundary.service.engine.cuda import CUDA, cuda_options, gpu_session_options, open_graph
from emboundary.service.engine.lane import Lane
from emboundary.service.engine.lanes import Lanes
from emboundary.service.engine.place import Place
from emboundary.service.engine.protocol import Part
from emboundary.service.engine.sessions import CPU, find_file, open_session, session_options, version
from emboundary.service.errors import DeviceError, ModelUnavailableError, UsageError
from emboundary.service.gpus.driver import visible
from emboundary.service.gpus.explain import why_no_cuda
from emboundary.service.gpus.libraries import missing as why_missing
from emboundary.service.gpus.missing import Missing
from emboundary.service.gpus.runtime import preload

TENSORRT = "TensorrtExecutionProvider"
# What a second network on the same GPU, and the small graphs around each, need beside the arena of the first.
_SPARED = 0.1


@dataclass(frozen=True)
class GpuOptions:
    """How GPUs are used.

    Attributes:
        memory_bytes: that a network may take on each GPU; None: nine tenths of what is free when it is opened.
        lanes: runs side by side on each GPU.
        recording: whether the kernels of a shape are recorded once and replayed (CUDA graphs).
        tensorrt: whether TensorRT builds an engine from the network, which takes minutes once; float16 alone.

    Raises:
        UsageError: no lane, or no memory.
    """

    memory_bytes: int | None = None
    lanes: int = 2
    recording: bool = True
    tensorrt: bool = False

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise UsageError(f"gpu_lanes is {self.lanes}; it must be at least 1: runs side by side on each GPU")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise UsageError(f"gpu_memory is {self.memory_bytes} bytes; it must be above 0")


class NoGpuError(DeviceError):
    """A GPU that was asked for and does not work.

    Attributes:
        reason: what is missing.
        remedy: what to do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"device is cuda, but {reason}; {remedy}, and --device cpu runs without")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class OpenedGpus:
    """A network on all GPUs that this process sees.

    Attributes:
        lanes: of all of them.
        runtime: what runs it, for the record.
        notes: what is not as fast as it could be, and why.
        facts: what the memory that is left for a tile depends on.
    """

    lanes: Lanes
    runtime: str
    notes: tuple[str, ...]
    facts: dict[str, Any]


def open_on_gpus(entry: ModelEntry, precision: Precision, options: GpuOptions) -> OpenedGpus:
    """Open a network on every GPU that this process sees (``CUDA_VISIBLE_DEVICES``), and prove each by a run.

    Raises:
        NoGpuError: no GPU, or one that does not run this model: which link of the chain is missing.
        ModelUnavailableError: a file that is damaged or differs from its description.
        UsageError: TensorRT in a precision other than float16.
    """
    if options.tensorrt and precision != "float16":
        raise UsageError(
            f"tensorrt with precision {precision}: it would compute in TF32; give --precision float16, or no --tensorrt"
        )
    _require_provider(TENSORRT if options.tensorrt else CUDA)
    file = find_file(entry, precision)
    gpus = visible().gpus
    for recording in (True, False) if options.recording and not options.tensorrt else (False,):
        opener = _Opener(entry, file, precision, options, max(1, len(gpus)), recording)
        try:
            lanes = Lanes(opener.lanes)
            opener.prove(lanes)
        except NoGpuError:
            if recording:
                continue  # perhaps it is the recording; the next round tells
            raise
        wanted = options.recording and not options.tensorrt
        notes = ("CUDA graphs do not work here",) if wanted and not recording else ()
        runtime = f"{version()} TensorRT" if options.tensorrt else version()
        facts = {"gpus": [(gpu.name, gpu.memory_bytes) for gpu in gpus], "runtime": runtime}
        return OpenedGpus(lanes, runtime, notes, facts | dataclasses.asdict(options))
    raise AssertionError("unreachable: the last round returns or raises")


def _require_provider(provider: str) -> None:
    preload()
    ort.set_default_logger_severity(4)  # else each session warns of a plug-in that nobody asked for
    if CUDA not in ort.get_available_providers():
        missing = why_no_cuda()
        raise NoGpuError(missing.what, missing.remedy)
    if provider not in ort.get_available_providers():
        missing = why_no_tensorrt()
        raise NoGpuError(missing.what, missing.remedy)


def why_no_tensorrt() -> Missing:
    """What keeps TensorRT from running models here."""
    found = why_missing(TENSORRT)
    if found is not None:
        return found
    return Missing("tensorrt", "this ONNX Runtime offers no TensorRT", "leave --tensorrt out")


@dataclass(frozen=True)
class _Opener:
    """Opens the lanes of one network."""

    entry: ModelEntry
    file: Path
    precision: Precision
    options: GpuOptions
    gpus: int
    recording: bool

    def lanes(self) -> list[Lane]:
        """Those of all GPUs, the GPUs in turn."""
        return [self._lane(index) for _ in range(self.options.lanes) for index in range(self.gpus)]

    def prove(self, lanes: Lanes) -> None:
        """Run the smallest image on every lane, twice: a session can open on a GPU that it has no kernels for.

        Raises:
            NoGpuError: a run fails, or a replay gives other values than the run that was recorded.
        """
        footprint = self.entry.description.footprint
        shape = (1, footprint.channels, *footprint.stride[1:])
        values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        part = Part(values, 128.0, 64.0, slice(None), slice(None))
        try:
            answers = [lanes.map([part])[0].stored for _ in range(2 * len(lanes))]
        except DeviceError as error:
            missing = why_no_cuda(error.__cause__ or error)
            raise NoGpuError(missing.what, missing.remedy) from error
        if not all(np.array_equal(answer, answers[0]) for answer in answers):
            raise NoGpuError("it gives another map for the same image each time", "`emboundary doctor` tells more")

    def _lane(self, index: int) -> Lane:
        try:
            network = open_session(self.entry, self.file, self._providers(index), gpu_session_options(), self.precision)
        except ModelUnavailableError as error:
            open_session(self.entry, self.file, CPU, session_options(), self.precision)  # a damaged file fails here too
            missing = why_no_cuda(error.__cause__ or error)
            raise NoGpuError(missing.what, missing.remedy) from error
        wanted = TENSORRT if self.options.tensorrt else CUDA
        if wanted not in network.get_providers():
            missing = why_no_tensorrt() if self.options.tensorrt else why_no_cuda()
            raise NoGpuError(missing.what, missing.remedy)
        return Lane(
            network, self.entry.description, Place("cuda", index), self._graph_opener(index), recording=self.recording
        )

    def _graph_opener(self, index: int) -> Callable[[Path], Any]:
        return lambda file: open_graph(file, Place("cuda", index))

    def _providers(self, index: int) -> list[Any]:
        cuda = cuda_options(
            index,
            memory_bytes=self._memory(index),
            channels_last=self.precision == "float16",  # in float32 there are no tensor cores to be had
            recording=self.recording,
        )
        if not self.options.tensorrt:
            return [(CUDA, cuda)]
        cache = platformdirs.user_cache_path("emboundary") / "tensorrt" / str(self.entry.description.sha256)
        cache.mkdir(parents=True, exist_ok=True)
        tensorrt = {
            "device_id": str(index),
            "trt_fp16_enable": "True",
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(cache),
        }
        return [(TENSORRT, tensorrt), (CUDA, cuda)]

    def _memory(self, index: int) -> int | None:
        """Of one lane's arena, in bytes; None where nobody knows how much there is."""
        limit = self.options.memory_bytes
        if limit is None:
            free = {gpu.index: gpu.free_bytes for gpu in visible().gpus}.get(index)
            if not free:
                return None
            limit = int(free * (1 - _SPARED))
        return max(1, limit // self.options.lanes)
