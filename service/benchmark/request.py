"""What a benchmark measures, checked and in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emboundary.model.description import Precision
from emboundary.model.geometry import Triple
from emboundary.model.repository import ZOO
from emboundary.service.benchmark.probes import QUICK_SIZES, Sizes
from emboundary.service.benchmark.records import What
from emboundary.service.engine import Device, GpuOptions
from emboundary.service.errors import UsageError

ALL: tuple[What, ...] = ("session", "predict", "service")


@dataclass(frozen=True)
class Effort:
    """How large and how long everything is.

    Attributes:
        shape: of the volume that is made (z, y, x).
        tile: side of a session's images before the halo.
        image: side of the images that clients send.
        seconds: that a session, and a service, goes on for in each round.
        sizes: of the probes; None: what suits the device.
        warm: whether everything is done once before it is measured.
    """

    shape: Triple
    tile: int
    image: int
    seconds: float
    sizes: Sizes | None = None
    warm: bool = True


QUICK = Effort((1, 64, 64), 64, 64, 0.0, QUICK_SIZES, warm=False)
_EFFORTS = {"cpu": Effort((2, 640, 640), 640, 384, 1.5), "cuda": Effort((16, 4096, 4096), 2048, 1024, 3.0)}


@dataclass(frozen=True)
class BenchmarkRequest:
    """What is asked for.

    Attributes:
        what: is measured.
        models: names or paths.
        device: that runs them.
        precisions: those that a model does not offer are left out and said; empty: float32, on a GPU float16 too.
        tta: whether the mean over rotations and flips is measured too.
        tiles: sides of images and tiles in pixels, before the halo; empty: what suits the device.
        batches: images in each run of a session.
        rounds: how often everything is measured.
        clients: that send images to a service at the same time.
        volume: path or URL of what is mapped; None: one is made.
        shape: of the volume that is made; None: what suits the device.
        repository: that names of models are looked up in.
        gpu: how GPUs are used.
        quick: whether everything is as small as can be: to see that it works.

    Raises:
        UsageError: a value out of its range, or nothing to measure.
    """

    what: tuple[What, ...] = ("session", "predict")
    models: tuple[str, ...] = ("d4", "plain")
    device: Device = "auto"
    precisions: tuple[Precision, ...] = ()
    tta: bool = False
    tiles: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    rounds: int = 3
    clients: int = 4
    volume: str | None = None
    shape: Triple | None = None
    repository: Path = ZOO
    gpu: GpuOptions = GpuOptions()  # noqa: RUF009  # frozen
    quick: bool = False

    def __post_init__(self) -> None:
        for name, values in (
            ("tile", self.tiles),
            ("batch", self.batches),
            ("rounds", (self.rounds,)),
            ("clients", (self.clients,)),
        ):
            _refuse_below_one(name, values)
        if not (self.what and self.models and self.batches):
            raise UsageError("there is nothing to measure; give at least one --what, --model and --batch")
        if self.gpu.tensorrt and "service" in self.what:
            raise UsageError("what is service with tensorrt, which a service takes from its settings; leave one out")
        if self.volume is not None and self.shape is not None:
            raise UsageError(f"shape is {self.shape} and volume {self.volume!r}; give one of the two")

    def effort(self, device: str) -> Effort:
        """How large and how long, on a device."""
        return QUICK if self.quick else _EFFORTS[device]

    def precisions_on(self, device: str) -> tuple[Precision, ...]:
        """Those that are tried on a device."""
        if self.precisions:
            return self.precisions
        return ("float32", "float16") if device == "cuda" else ("float32",)


def _refuse_below_one(name: str, values: Sequence[int]) -> None:
    for value in values:
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
