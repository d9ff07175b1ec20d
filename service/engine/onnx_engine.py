"""A described model file in ONNX Runtime, on the device that was asked for and no other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from emboundary.model.description import ModelDescription, Precision
from emboundary.model.geometry import Footprint
from emboundary.model.repository import ModelEntry
from emboundary.service.engine.fitting import largest_tile
from emboundary.service.engine.gpu import GpuOptions, NoGpuError, open_on_gpus
from emboundary.service.engine.lanes import Lanes, failure
from emboundary.service.engine.protocol import Device, Images, Mapper
from emboundary.service.engine.sessions import CPU, find_file, open_session, session_options, version
from emboundary.service.errors import UsageError

# 8-bit convolutions have no kernels on a GPU: they would run as float32 between casts.
_RUNNABLE: dict[str, tuple[Precision, ...]] = {"cpu": ("float32", "float16", "int8"), "cuda": ("float32", "float16")}


class Runner(Protocol):
    """A network on a device."""

    def run(self, images: Images) -> Images:
        """See ``Engine``."""
        ...

    def bare(self, n: int, y: int, x: int) -> Callable[[], None]:
        """A run of the network alone, on images that lie on the device; for benchmarks."""
        ...

    def warm(self, n: int, y: int, x: int) -> None:
        """Run images of a shape once, wherever later ones may run."""
        ...

    def __len__(self) -> int:
        """How many runs go side by side."""
        ...


class OnnxEngine:
    """A model file in ONNX Runtime.

    Attributes:
        description: what the file promises; checked against the file when it was opened.
        device: ``cpu`` or ``cuda``.
        device_reason: one line for people: which device runs, and why.
        precision: the arithmetic that was asked for.
        runtime: what runs it, for the record.
    """

    def __init__(
        self,
        runner: Runner,
        description: ModelDescription,
        *,
        device: str,
        precision: Precision,
        device_reason: str,
        runtime: str,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._runner = runner
        self.description = description
        self.device = device
        self.precision: Precision = precision
        self.device_reason = device_reason
        self.runtime = runtime
        self._facts = facts or {}
        self._largest: int | None = None

    @classmethod
    def open(
        cls,
        entry: ModelEntry,
        device: Device = "auto",
        precision: Precision = "float32",
        gpu: GpuOptions = GpuOptions(),  # noqa: B008  # frozen
    ) -> OnnxEngine:
        """Load a model file and prove that it runs where it was asked to.

        Args:
            entry: the file and its description, hash already checked.
            device: ``auto`` takes the GPUs if a session on each runs the model, else the CPU.
            precision: one of those that the description offers; ``int8`` runs on CPUs alone.
            gpu: how GPUs are used.

        Raises:
            UsageError: a precision that the model does not offer, or that the device has no arithmetic for.
            DeviceError: ``cuda`` without a GPU that runs this model.
            ModelUnavailableError: a file that is damaged or differs from its description.
        """
        _refuse_unknown(entry, device, precision)
        if device == "cpu" or (device == "auto" and precision not in _RUNNABLE["cuda"]):
            reason = "CPU, as asked" if device == "cpu" else f"CPU: {precision} runs there alone"
            return cls._on_cpu(entry, precision, reason)
        try:
            opened = open_on_gpus(entry, precision, gpu)
        except NoGpuError as error:
            if device == "cuda":
                raise
            return cls._on_cpu(entry, precision, f"CPU: {error.reason} (`emboundary doctor` says more)")
        reason = "; ".join(("GPU, as asked" if device == "cuda" else "GPU: a session on it works", *opened.notes))
        return cls(
            opened.lanes,
            entry.description,
            device="cuda",
            precision=precision,
            device_reason=reason,
            runtime=opened.runtime,
            facts=opened.facts | {"model_sha256": entry.description.sha256, "precision": precision},
        )

    @classmethod
    def _on_cpu(cls, entry: ModelEntry, precision: Precision, reason: str) -> OnnxEngine:
        session = open_session(entry, find_file(entry, precision), CPU, session_options(), precision)
        if precision == "float16":
            reason = f"{reason}; CPUs compute float16 in float32 and gain nothing by it"
        return cls(
            CpuRunner(session, entry.description),
            entry.description,
            device="cpu",
            precision=precision,
            device_reason=reason,
            runtime=version(),
        )

    @property
    def footprint(self) -> Footprint:
        """Halo and stride of the network."""
        return self.description.footprint

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the K output channels."""
        return self.description.outputs

    @property
    def lanes(self) -> int:
        """How many runs go side by side."""
        return len(self._runner)

    @property
    def mapper(self) -> Mapper | None:
        """What maps stored voxels to stored probabilities on the device itself; None where the host does as well."""
        return self._runner if isinstance(self._runner, Mapper) else None

    def largest_tile(self) -> int | None:
        """Side in pixels, before the halo, of the largest tile that a GPU has memory for; None on a CPU.

        The first call tries, which takes seconds; the answer is remembered for the next process.

        Raises:
            DeviceError: there is not even memory for a small one.
        """
        if self._largest is None and isinstance(self._runner, Lanes):
            self._largest = largest_tile(self._runner, self.footprint, self._facts)
        return self._largest

    def run(self, images: Images) -> Images:
        """Map (n, c, y, x), y and x multiples of the stride, to probabilities (n, K, y, x); see ``Engine``.

        Raises:
            DeviceError: the runtime failed, as it does when memory runs out.
        """
        return self._runner.run(images)

    def warm(self, n: int, y: int, x: int) -> None:
        """Run images of a shape once on every lane, so that later ones find kernels and memory.

        Raises:
            DeviceError: the runtime failed, as it does when memory runs out.
        """
        self._runner.warm(n, y, x)

    def bare(self, n: int, y: int, x: int) -> Callable[[], None]:
        """A run of the network alone, on n images (y, x) that lie on the device; for benchmarks.

        Raises:
            DeviceError: memory for the images runs out.
        """
        return self._runner.bare(n, y, x)


class CpuRunner:
    """A session on the CPU.

    Calls from several threads run one after another: a second image in flight would double the memory and gain
    nothing, because one run already uses the whole device.
    """

    def __init__(self, session: Any, description: ModelDescription) -> None:
        self._session = session
        self._description = description
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """One run at a time."""
        return 1

    def run(self, images: Images) -> Images:
        """See ``Engine``.

        Raises:
            DeviceError: the runtime failed, as it does when memory runs out.
        """
        names, feeds = [self._description.output.name], {self._description.input.name: images}
        with self._lock:
            try:
                (probability,) = self._session.run(names, feeds)
            except Exception as error:  # the runtime's exceptions share no narrower base
                raise failure("cpu", images.shape, error) from error
        result: Images = probability
        return result

    def bare(self, n: int, y: int, x: int) -> Callable[[], None]:
        """A run of the network alone."""
        shape = (n, self._description.footprint.channels, y, x)
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)

        def once() -> None:
            self.run(images)

        return once

    def warm(self, n: int, y: int, x: int) -> None:
        """Run images of a shape once."""
        self.run(np.zeros((n, self._description.footprint.channels, y, x), np.float32))


def _refuse_unknown(entry: ModelEntry, device: Device, precision: Precision) -> None:
    """Refuse what the model does not offer, and what the device has no arithmetic for."""
    runnable = _RUNNABLE["cuda" if device == "cuda" else "cpu"]
    offered = [p for p in runnable if p in entry.description.precisions]
    if precision not in offered:
        where = "on a GPU" if device == "cuda" else "here"
        raise UsageError(
            f"precision is {precision}; model {entry.description.name} runs {where} in "
            f"{' or '.join(offered) or 'none that this version knows'}: give --precision accordingly"
        )
