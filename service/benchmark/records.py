"""What a benchmark found, as it stands in its JSON file: what was measured, round by round, and what follows from it.

A figure that compares two others is taken within each round, where both were measured right after one another, so that
a machine whose speed drifts slows both alike.  Of the rounds the median, the least and the most are told.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from emboundary.model.description import Precision
from emboundary.service.benchmark.profiles import Profile

FORMAT: Literal[1] = 1
What = Literal["session", "predict", "service"]
Limit = Literal["arithmetic", "memory"]


class Record(BaseModel):
    """Frozen; figures that are computed anew from the others are left out when a file is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Spread(Record):
    """Median, least and most of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Of those that were measured; None where none was."""
        found = [value for value in values if value is not None]
        return cls(median=statistics.median(found), low=min(found), high=max(found)) if found else None


class Limits(Record):
    """What the device did in one round where nothing else counted.

    Attributes:
        matrix: operations per second of the fastest matrix product in each precision; a multiplication and an addition
            are two.
        memory: bytes per second, read and written, of the fastest pass over memory that no cache holds.
    """

    matrix: dict[Precision, Annotated[float, Field(gt=0)]]
    memory: Annotated[float, Field(gt=0)]


class Round(Record):
    """One measurement.

    Attributes:
        seconds: that it took.
        pixels: of maps that were made in it: of a session, halos included, of the others, without.
        limits: of the device in this round.
        bare_seconds: of the bare session over the very images that ``predict`` gave its network.
        bare_rate: pixels per second of the bare session over such images, their halos included.
        network: share of ``seconds`` in which the network ran.
        device: share in which the GPU computed, as its driver says.
        waiting: shares of the run that waited for input, computed, and waited for output.
        p50: seconds from a request to its answer that half of them do not exceed.
        p99: likewise, of 99 in 100.
        refused: requests that were not answered.
    """

    seconds: Annotated[float, Field(gt=0)]
    pixels: Annotated[int, Field(gt=0)]
    limits: Limits
    bare_seconds: float | None = None
    bare_rate: float | None = None
    network: float | None = None
    device: float | None = None
    waiting: tuple[float, float, float] | None = None
    p50: float | None = None
    p99: float | None = None
    refused: int | None = None


class Cost(Record):
    """What a pixel of the map costs one pass of the network.

    Attributes:
        operations: multiplications and additions.
        least_bytes: the image, the map, and its part of the model file: what crosses the memory whatever the runtime.
        layer_bytes: what all layers read and write, as the runtime carries them out; None: not measured.
    """

    operations: float
    least_bytes: float
    layer_bytes: float | None = None


class Row(Record):
    """One case and its rounds.

    Attributes:
        what: ``session``: the network alone, images and maps on the device; ``predict``: a Zarr volume in, a Zarr
            volume out; ``service``: clients that send images.
        passes: 8 where rotations and flips are averaged.
        shape: of the images (n, c, y, x) of a session, of the volume (z, y, x), or of an image (y, x) of a client.
        tile: side that a map was cut by.
        clients: that sent images at the same time.
        images: shapes that the network was given, and how often.
    """

    what: What
    model: str
    version: str
    precision: Precision
    passes: Literal[1, 8]
    shape: tuple[int, ...]
    cost: Cost
    rounds: tuple[Round, ...]
    tile: int | None = None
    clients: int | None = None
    images: tuple[tuple[tuple[int, ...], int], ...] = ()

    @property
    def title(self) -> str:
        """Model and passes, for people."""
        return self.model if self.passes == 1 else f"{self.model} + 8x"

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def pixels_per_second(self) -> Spread | None:
        """Of the map."""
        return Spread.of(r.pixels / r.seconds for r in self.rounds)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def of_matrix(self) -> Spread | None:
        """Operations per second over the device's matrix rate in the same precision."""
        return Spread.of(
            self._passed(r) * self.cost.operations / rate if (rate := r.limits.matrix.get(self.precision)) else None
            for r in self.rounds
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def of_memory(self) -> Spread | None:
        """The least bytes per second over the device's memory bandwidth."""
        return Spread.of(self._passed(r) * self.cost.least_bytes / r.limits.memory for r in self.rounds)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def of_memory_by_layers(self) -> Spread | None:
        """Bytes per second of all layers over the device's bandwidth; above 1 where caches hold what they share."""
        each = self.cost.layer_bytes
        return Spread.of(each and self._passed(r) * each / r.limits.memory for r in self.rounds)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def nearer_limit(self) -> Limit | None:
        """Which limit of the device a network that goes layer by layer is nearer to."""
        arithmetic, memory = self.of_matrix, self.of_memory_by_layers or self.of_memory
        if arithmetic is None or memory is None:
            return None
        return "arithmetic" if arithmetic.median >= memory.median else "memory"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def of_bare(self) -> Spread | None:
        """The bare session's time over the same images, over this one's: what is left of its speed."""
        return Spread.of(None if r.bare_seconds is None else r.bare_seconds / r.seconds for r in self.rounds)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def of_bare_rate(self) -> Spread | None:
        """Pixels per second of map over those of the bare session, halos counted as pixels of the latter."""
        return Spread.of(None if not r.bare_rate else self._passed(r) / r.bare_rate for r in self.rounds)

    def _passed(self, one: Round) -> float:
        """Pixels per second, each counted as often as the network saw it."""
        return one.pixels * self.passes / one.seconds


class Ratio(Record):
    """Time per pixel of one case over that of another, within rounds.

    Attributes:
        name: e.g. ``d4 / plain``.
    """

    what: What
    precision: Precision
    tile: int | None
    name: str
    times: Spread


class Agreement(Record):
    """How far a map by this device is from the map by the CPU in float32, on the bundled sample.

    Attributes:
        largest: difference in probability over all voxels.
        mean: of the differences.
        promised: by the model's description, against float32; None: it says nothing.
    """

    model: str
    precision: Precision
    voxels: int
    largest: float
    mean: float
    promised: float | None


class Gpu(Record):
    """A GPU as its driver describes it."""

    name: str
    memory_bytes: int
    compute_capability: str


class Machine(Record):
    """What the figures were taken on.

    Attributes:
        cores: that this process may use.
        load: average number of processes that wanted to run in the minute before; more than none slow this one.
        packages: version by name.
    """

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load: float
    packages: dict[str, str]
    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()


class Report(Record):
    """A whole benchmark.

    Attributes:
        measured: day, as ISO 8601.
        device: that ran: ``cpu`` or ``cuda``.
        reason: why, for people.
        runtime: that ran the networks.
    """

    format: Literal[1] = FORMAT
    measured: str
    machine: Machine
    device: Literal["cpu", "cuda"]
    reason: str
    runtime: str = ""
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    profiles: tuple[Profile, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        """The most that the device did in any round: whatever disturbs a round only takes from that."""
        every = [one.limits for row in self.rows for one in row.rounds]
        precisions = dict.fromkeys(precision for limits in every for precision in limits.matrix)
        return Limits(
            matrix={p: max(limits.matrix[p] for limits in every if p in limits.matrix) for p in precisions},
            memory=max(limits.memory for limits in every),
        )
