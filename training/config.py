"""Configurations of segmenters: one TOML file per model, strict at the edge, frozen inside.

An unknown key, a wrong type or a value out of range is refused with its name; nothing has a silent meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from emboundary.model.pooling import Kind as PoolingKind
from emboundary.model.spec import STRIDE, Last, Maxout, SegmenterSpec, StemKind, Symmetry, Trunk
from emboundary.training.learning.recipe import LearningConfig
from emboundary.training.strict import ConfigError, Fraction, NotNegative, PositiveInt, Strict, read_based, validated


def _in_order(sections: tuple[int, int]) -> tuple[int, int]:
    first, stop = sections
    if not 0 <= first < stop:
        raise ValueError("sections are [first, stop) with 0 <= first < stop")
    return sections


Nanometres = Annotated[float, Field(gt=0)]
Sections = Annotated[tuple[int, int], Field(strict=False), AfterValidator(_in_order)]
Plane = Literal["yx", "zx", "zy"]


class ModelConfig(Strict):
    """The network; see ``SegmenterSpec`` for what each width and each choice means."""

    symmetry: Symmetry
    context: Annotated[int, Field(ge=0)] = 0
    angles: Literal[2, 4, 8] = 4
    maxout: Maxout = "skip"
    stem: PositiveInt
    a: PositiveInt
    b: PositiveInt
    c: PositiveInt
    blocks: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)]
    decoder: PositiveInt
    head: PositiveInt
    mix: PositiveInt = 32
    last: Last = "max"
    trunk: Trunk | None = None
    stem_kind: StemKind | None = None
    level: Annotated[int, Field(ge=0, le=4)] = 0
    scales: Annotated[int, Field(ge=1, le=3)] = 2
    pooling: PoolingKind = "max"
    pooling_p: float | None = None

    def spec(self) -> SegmenterSpec:
        """The frozen description that the network is built from."""
        return SegmenterSpec(**self.model_dump())


class DataConfig(Strict):
    """One labelled volume and the sections of it that training may see.

    Paths are of anything that ``open_volume`` reads (``file.h5::/dataset`` too), relative to the data folder given
    on the command line.

    Attributes:
        membranes: a map whose voxels above 0 are boundary; or
        labels: a map of neuron ids, from which ``boundaries_of`` makes the target.  One of the two, not both.
        soft: a boundary map by other networks (float, or uint8 = 255 times the probability), for distillation: the
            target is ``(1 - soft_weight)`` times what people marked plus ``soft_weight`` times this; a volume without
            either of the two is learned from it alone.
        sections: that training sees.
        planes: of a volume whose voxels are cubes, the planes that crops are taken from, each as often: its sections
            (``yx``), and those across them.  Those that are smaller than a crop are continued by reflection.
        validation: that models are scored on; they share no section with ``sections``.
        share: of the crops, in relation to the other volumes' shares, whatever the volumes' sizes.
    """

    name: str
    raw: str
    membranes: str | None = None
    labels: str | None = None
    soft: str | None = None
    soft_weight: Fraction = 0.5
    sections: Sections
    planes: Annotated[tuple[Plane, ...], Field(strict=False, min_length=1)] = ("yx",)
    validation: Sections | None = None
    share: Annotated[float, Field(gt=0)] = 1.0
    voxel_size_nm: Annotated[tuple[Nanometres, Nanometres, Nanometres], Field(strict=False)]
    citation: str

    @model_validator(mode="after")
    def _has_one_target(self) -> DataConfig:
        if self.membranes is not None and self.labels is not None:
            raise ValueError("give either membranes (a boundary map) or labels (neuron ids), not both and not neither")
        if (self.membranes, self.labels, self.soft) == (None, None, None):
            raise ValueError(
                "give either membranes (a boundary map) or labels (neuron ids), not both and not neither; without "
                "either, soft (the map of other networks) is needed"
            )
        return self

    @model_validator(mode="after")
    def _has_cubes_for_several_planes(self) -> DataConfig:
        z, y, x = self.voxel_size_nm
        if set(self.planes) != {"yx"} and not z == y == x:
            raise ValueError(
                f"planes are {list(self.planes)}, voxels {z:g} x {y:g} x {x:g} nm; only a volume of cubes looks alike "
                'in all of them: leave planes out, or give ["yx"]'
            )
        return self

    @model_validator(mode="after")
    def _keeps_validation_apart(self) -> DataConfig:
        if self.validation and self.sections[0] < self.validation[1] and self.validation[0] < self.sections[1]:
            raise ValueError(f"validation {list(self.validation)} overlaps the training sections {list(self.sections)}")
        return self

    @property
    def is_marked(self) -> bool:
        """Whether people marked its boundaries or its neurons."""
        return self.membranes is not None or self.labels is not None

    @property
    def target(self) -> str:
        """The path that the target is read from."""
        return self.membranes or self.labels or self.soft or ""


class SamplingConfig(Strict):
    """Random crops.

    Attributes:
        crop: side in pixels, a multiple of the stride.
        batch: crops per step.
        margin: outer pixels of each crop that count nothing in the loss, because zero padding, which
            inference never shows, reaches into them.
    """

    crop: PositiveInt = 128
    batch: PositiveInt = 4
    margin: Annotated[int, Field(ge=0)] = 0

    @property
    def pixels(self) -> int:
        """Of the crops of a step, margins counted."""
        return self.batch * self.crop**2

    @model_validator(mode="after")
    def _fits(self) -> SamplingConfig:
        if self.crop % STRIDE:
            raise ValueError(f"crop must be a multiple of the stride, {STRIDE}")
        if 2 * self.margin >= self.crop:
            raise ValueError("margin must be less than half of crop, or no pixel is left for the loss")
        return self


class AugmentConfig(Strict):
    """Random changes of every crop; lengths in pixels, intensities in standard deviations of the volume.

    Attributes:
        symmetry: one of the 8 rotations and flips.
        rotate: a rotation by any angle.
        scale: magnification by ``exp(u)``, u uniform in +-scale; 0.26 stands for voxels 1.3 times as small or large.
        elastic: standard deviation of the displacement of control points ``elastic_spacing`` apart.
        elastic_spacing: distance of those points.
        contrast: intensities are multiplied by ``exp(u)``, u uniform in +-contrast.
        brightness: a shift, uniform in +-brightness.
        gamma: intensities, as a fraction of the range +-4, to the power ``exp(u)``, u uniform in +-gamma.
        noise: standard deviation of Gaussian noise, itself uniform in [0, noise].
        blur: standard deviation of a Gaussian blur, itself uniform in [0, blur].
        defects: share of the crops that have a stain or little contrast, as badly prepared sections do.
        missing: share of the neighbouring sections that are blank, for networks that see some.
    """

    symmetry: bool
    rotate: bool = False
    scale: NotNegative = 0.0
    elastic: NotNegative = 0.0
    elastic_spacing: PositiveInt = 32
    contrast: NotNegative = 0.0
    brightness: NotNegative = 0.0
    gamma: NotNegative = 0.0
    noise: NotNegative = 0.0
    blur: NotNegative = 0.0
    defects: Fraction = 0.0
    missing: Fraction = 0.0


class LossConfig(Strict):
    """What is minimised: cross entropy, and what is added to it.

    Attributes:
        boundary_weight: weight of boundary pixels against others in the cross entropy.
        dice: weight of the soft Dice loss, which does not care how rare boundaries are.
        skeleton: weight of the recall of the boundaries' centre lines, which a gap of a few pixels costs as much as
            its length: it closes gaps.
        deep: weight of the mean loss of the three auxiliary logits (deep supervision).
    """

    boundary_weight: Annotated[float, Field(gt=0)] = 1.0
    dice: NotNegative = 0.0
    skeleton: NotNegative = 0.0
    deep: NotNegative = 0.0


class TrainConfig(LearningConfig):
    """Everything that determines the training of a segmenter, besides the data itself.

    Attributes:
        name: of the model that is exported.
        start: a bundled model's name, or the path of a model folder or a ``.safetensors`` file (of this package too:
            ``starts/d4.safetensors``), whose weights training begins with; None, in a file "none": random weights.
    """

    start: Annotated[str | None, AfterValidator(lambda start: None if start == "none" else start)] = None
    model: ModelConfig
    data: Annotated[tuple[DataConfig, ...], Field(strict=False, min_length=1)]
    sampling: SamplingConfig
    augment: AugmentConfig
    loss: Annotated[LossConfig, Field(default_factory=LossConfig)]


def load_config(path: Path) -> TrainConfig:
    """Read and check a TOML file, or the JSON that a run keeps beside its weights.

    Raises:
        ConfigError: a missing file, text that does not parse, or a key that is unknown, missing or out of range.
    """
    return parse_table(read_based(path), origin=str(path))


def parse_table(table: dict[str, Any], *, origin: str) -> TrainConfig:
    """Check a table; ``origin`` names it in errors.

    Raises:
        ConfigError: a key that is unknown, missing or out of range.
    """
    config = validated(TrainConfig, table, origin=f"config {origin}")
    try:
        config.model.spec()
    except ValueError as error:
        raise ConfigError(f"config {origin}: model.{error}") from error
    return config


def refuse_seen(config: TrainConfig, volume: DataConfig, sections: tuple[int, int], *, origin: str) -> None:
    """Refuse to score a network on sections ``[first, stop)`` of a volume that it was trained on.

    Raises:
        ConfigError: the ranges overlap.
    """
    for seen in config.data:
        first, stop = seen.sections
        if seen.raw == volume.raw and first < sections[1] and sections[0] < stop:
            raise ConfigError(
                f"{origin}: scored sections {list(sections)} overlap the training sections {[first, stop]} of "
                f"{seen.name}; give sections that were never trained on"
            )
