"""What a check is asked, what it finds, and what that means in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from emboundary.model.geometry import Box, Triple
from emboundary.service.checking.estimate import Estimate
from emboundary.service.checking.grey_values import Comparison
from emboundary.service.errors import UsageError
from emboundary.service.finding import Finding
from emboundary.service.pace import mega
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.tiling import DEFAULT_TILE

VoxelSize = tuple[float, float, float]


@dataclass(frozen=True)
class CheckRequest:
    """What is to be checked.

    Attributes:
        source: INPUT, a path or URL.
        axes: names of INPUT's axes where it does not say them, e.g. ``zyx``.
        voxel_size_nm: (z, y, x) of INPUT where it does not say it.
        roi: ``Z0:Z1,Y0:Y1,X0:X1`` in voxels; None: the whole volume.
        tile: a tile with its halo holds as many pixels as a square of this side with its halo.
        intensity: statistics to normalise by; None: measured.
        tta: test-time augmentation, the mean over the 8 rotations and flips.
        seconds: that the check may take; what it began by then it ends.

    Raises:
        UsageError: a tile below 1.
    """

    source: str
    axes: str | None = None
    voxel_size_nm: VoxelSize | None = None
    roi: str | None = None
    tile: int = DEFAULT_TILE
    intensity: Intensity | None = None
    tta: bool = False
    seconds: float = 40.0

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise UsageError(f"tile is {self.tile}; it must be at least 1 (pixels, rounded up to the model's stride)")


@dataclass(frozen=True)
class VolumeFacts:
    """What INPUT is.

    Attributes:
        shape: (z, y, x) in voxels.
        dtype: of the voxels.
        axes: the axes of INPUT's file that are z, y and x, with their units.
        chunks: (z, y, x) of the parts that are read at once.
        voxel_size_nm: (z, y, x); None where neither INPUT nor the user says it.
        roi: the box that is to be mapped.
    """

    where: str
    shape: Triple
    dtype: str
    axes: str
    chunks: Triple
    voxel_size_nm: VoxelSize | None
    roi: Box


@dataclass(frozen=True)
class GreyValues:
    """Statistics of INPUT, and how it compares with the training data.

    Attributes:
        mean: in voxel values.
        std: in voxel values.
        basis: what they were taken from: ``given``, ``the whole volume``, ``a sample of 6.29 Mvoxel``.
        comparison: None where the model was trained on data of which no sample is bundled.
    """

    mean: float
    std: float
    basis: str
    comparison: Comparison | None


@dataclass(frozen=True)
class Law:
    """One law, measured.

    Attributes:
        places: where it was measured; 0: nowhere.
        side: of these places in y and x, at most, in voxels.
        error: largest difference, in probability.
        tolerance: that the law allows; None: it promises nothing for this model.
    """

    places: int
    side: int
    error: float
    tolerance: float | None

    @property
    def broken(self) -> bool:
        """Whether the difference is larger than promised; a difference that is no number is."""
        return self.tolerance is not None and not self.error <= self.tolerance


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        mismatch: what is wrong with the voxel size, in one line with the remedy; None: nothing that is known.
        constant_places: sampled places without any contrast.
        sampled_places: places that were read, or tried to.
        unreadable: what was wrong with each read that failed.
        described_symmetry_error: what the model's description states.
        check_seconds: that the check took.
    """

    volume: VolumeFacts
    trained_voxel_sizes_nm: tuple[VoxelSize, ...]
    mismatch: str | None
    grey_values: GreyValues
    sampled_places: int
    constant_places: int
    unreadable: tuple[str, ...]
    seams: Law
    symmetry: Law
    described_symmetry_error: float
    estimate: Estimate
    check_seconds: float

    @property
    def well(self) -> bool:
        """Whether a run will work: every place can be read, and no law is broken."""
        return all(finding.state != "failed" for finding in self.findings())

    def findings(self) -> list[Finding]:
        """The report in words."""
        return [
            self._volume(),
            self._reading(),
            self._voxel_size(),
            self._intensity(),
            *self._training(),
            self._seams(),
            self._symmetry(),
            self._time(),
            self._memory(),
            self._disk(),
        ]

    def to_json(self) -> dict[str, Any]:
        """All figures and findings, as JSON values."""
        figures = dataclasses.asdict(self)
        figures["volume"]["roi"] = str(self.volume.roi)
        figures["estimate"]["seconds"] = self.estimate.seconds
        comparison = self.grey_values.comparison
        if comparison is not None:
            figures["grey_values"]["comparison"]["verdict"] = comparison.verdict
        words = [dataclasses.asdict(finding) for finding in self.findings()]
        return {"ok": self.well, **figures, "checks": words}

    def _volume(self) -> Finding:
        volume = self.volume
        whole = Box.of_shape(volume.shape)
        part = "" if volume.roi == whole else f"; of these {volume.roi}, {mega(volume.roi.voxels)}voxel"
        return Finding(
            "volume",
            "ok",
            f"{volume.dtype}, (z, y, x) = {_triple(volume.shape)}, {mega(whole.voxels)}voxel, axes {volume.axes}, in "
            f"chunks of {_triple(volume.chunks)}{part}",
        )

    def _reading(self) -> Finding:
        sampled = f"{self.sampled_places} places"
        if self.unreadable:
            return Finding(
                "reading",
                "failed",
                f"of {sampled}, {len(self.unreadable)} reads failed; the first: {self.unreadable[0]}",
                "copy or export the volume again; --fill-missing P maps the rest and leaves P there",
            )
        if self.constant_places:
            return Finding("reading", "ok", f"{sampled}, {self.constant_places} of them empty (constant)")
        return Finding("reading", "ok", f"{sampled}, all with contrast")

    def _voxel_size(self) -> Finding:
        if self.mismatch is not None:
            return Finding("voxel size", "note", self.mismatch)
        size = self.volume.voxel_size_nm
        found = "not known" if size is None else f"{_triple(size)} nm"
        if not self.trained_voxel_sizes_nm:
            return Finding("voxel size", "note", f"{found}; the model does not say what it was trained on")
        trained = " or ".join(_triple(one) for one in self.trained_voxel_sizes_nm)
        return Finding("voxel size", "ok", f"{found}; the model was trained on {trained} nm")

    def _intensity(self) -> Finding:
        grey = self.grey_values
        return Finding("intensity", "ok", f"mean {grey.mean:.4g}, standard deviation {grey.std:.4g}: {grey.basis}")

    def _training(self) -> Iterator[Finding]:
        comparison = self.grey_values.comparison
        if comparison is None:
            yield Finding(
                "training data",
                "note",
                "grey values not compared: there is no sample here of what this model was trained on",
                "map a small --roi and look at it before a long run",
            )
            return
        distance = f"normalised grey values are {comparison.distance:.2f} standard deviations away"
        if comparison.verdict == "alike":
            yield Finding("training data", "ok", f"{distance}: like those that the model learned from")
            return
        words = "somewhat unlike" if comparison.verdict == "different" else "far from"
        remedy = "map a small --roi and look at it before a long run; --clahe may help"
        if comparison.looks_inverted:
            remedy = "if membranes are brighter than their surroundings here, invert the volume: they must be dark"
        yield Finding("training data", "note", f"{distance}: {words} what the model learned from", remedy)

    def _seams(self) -> Finding:
        law = self.seams
        found = f"in pieces or whole, maps differ by {law.error:.1e} at most, {_on(law)} (allowed: {law.tolerance:.0e})"
        if law.broken:
            return Finding("seams", "failed", found, "do not use this model tiled: export it again with its true halo")
        return Finding("seams", "ok", found)

    def _symmetry(self) -> Finding:
        law = self.symmetry
        if not law.places:
            return Finding("symmetry", "note", "not measured: the sections are smaller than the model's stride")
        found = (
            f"turned and mirrored, maps differ by {law.error:.1e} at most, {_on(law)} (described: "
            f"{self.described_symmetry_error:.1e})"
        )
        if law.broken:
            remedy = "do not rely on its symmetry: export the model again, or run it on another device"
            return Finding("symmetry", "failed", f"{found}; the model promises {law.tolerance:.0e}", remedy)
        if law.tolerance is None:
            return Finding("symmetry", "ok", f"{found}; this model promises none")
        return Finding("symmetry", "ok", found)

    def _time(self) -> Finding:
        cost = self.estimate
        parts = f"network {_duration(cost.compute_seconds)}, reading {_duration(cost.read_seconds)}"
        if cost.measure_seconds:
            parts += f", measuring the intensity before {_duration(cost.measure_seconds)}"
        pace = f"{mega(self.volume.roi.voxels / cost.seconds)}voxel/s"
        # A run passes over empty parts; how large they are, some places do not tell well enough.
        about = "at most about" if self.constant_places else "about"
        tile = " x ".join(str(side) for side in cost.tile)
        found = f"{about} {_duration(cost.seconds)} in tiles of {tile}, {pace} ({parts})"
        if cost.read_seconds > cost.compute_seconds:
            return Finding(
                "time", "note", found, "reading is slower than the network: a copy on a local disk would help"
            )
        return Finding("time", "ok", found)

    def _memory(self) -> Finding:
        cost = self.estimate
        found = f"up to {mega(cost.memory_bytes)}B"
        if cost.free_memory_bytes is None:
            return Finding("memory", "ok", found)
        found += f"; {mega(cost.free_memory_bytes)}B can be had"
        if cost.memory_bytes > cost.free_memory_bytes:
            return Finding("memory", "note", found, "give a smaller --tile")
        return Finding("memory", "ok", found)

    def _disk(self) -> Finding:
        return Finding(
            "disk", "ok", f"at most {mega(self.estimate.output_bytes)}B for OUTPUT in uint8, pyramid included"
        )


def _triple(numbers: tuple[float, float, float]) -> str:
    return " x ".join(f"{number:.12g}" for number in numbers)


def _on(law: Law) -> str:
    return f"on {law.places} place{'' if law.places == 1 else 's'} of {law.side} voxels"


def _duration(seconds: float) -> str:
    """As precise as an estimate is."""
    for unit, name, most in ((1, "s", 120), (60, "min", 7200), (3600, "h", 2 * 86400)):
        if seconds < most:
            return f"{seconds / unit:.2g} {name}" if seconds < 10 * unit else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} days"
