"""Training configurations: one TOML file per model, strict at the edge, frozen inside.

An unknown key, a wrong type or a value out of range is refused with its name; nothing has a silent meaning.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from emboundary.model.inception import STRIDE, SegmenterSpec
from emboundary.service.errors import EmboundaryError


class ConfigError(EmboundaryError):
    """A configuration file that cannot be read or breaks a rule."""


class Strict(BaseModel):
    """Nothing unknown, nothing converted, nothing infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _in_order(sections: tuple[int, int]) -> tuple[int, int]:
    first, stop = sections
    if not 0 <= first < stop:
        raise ValueError("sections are [first, stop) with 0 <= first < stop")
    return sections


PositiveInt = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Nanometres = Annotated[float, Field(gt=0)]
Sections = Annotated[tuple[int, int], Field(strict=False), AfterValidator(_in_order)]


class ModelConfig(Strict):
    """The network; see ``SegmenterSpec`` for what each width means."""

    symmetry: Literal["plain", "paper", "d4"]
    context: Annotated[int, Field(ge=0)] = 0
    angles: Literal[2, 4, 8] = 4
    maxout: Literal["none", "skip", "beside", "first", "both"] = "skip"
    stem: PositiveInt
    a: PositiveInt
    b: PositiveInt
    c: PositiveInt
    blocks: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)]
    decoder: PositiveInt
    head: PositiveInt
    mix: PositiveInt = 32
    last: Literal["max", "max-mean"] = "max"

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
        sections: that training sees.
        validation: that models are scored on; they share no section with ``sections``.
        share: of the crops, in relation to the other volumes' shares, whatever the volumes' sizes.
    """

    name: str
    raw: str
    membranes: str | None = None
    labels: str | None = None
    sections: Sections
    validation: Sections | None = None
    share: Annotated[float, Field(gt=0)] = 1.0
    voxel_size_nm: Annotated[tuple[Nanometres, Nanometres, Nanometres], Field(strict=False)]
    citation: str

    @model_validator(mode="after")
    def _has_one_target(self) -> DataConfig:
        if (self.membranes is None) == (self.labels is None):
            raise ValueError("give either membranes (a boundary map) or labels (neuron ids), not both and not neither")
        return self

    @model_validator(mode="after")
    def _keeps_validation_apart(self) -> DataConfig:
        if self.validation and self.sections[0] < self.validation[1] and self.validation[0] < self.sections[1]:
            raise ValueError(f"validation {list(self.validation)} overlaps the training sections {list(self.sections)}")
        return self

    @property
    def target(self) -> str:
        """The path that the target is read from."""
        return self.membranes or self.labels or ""


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
        deep: weight of the mean loss of the three auxiliary logits (deep supervision).
    """

    boundary_weight: Annotated[float, Field(gt=0)] = 1.0
    dice: NotNegative = 0.0
    deep: NotNegative = 0.0


class OptimiserConfig(Strict):
    """AdamW, linear warm-up, decay to zero, exponential moving average of the weights.

    Attributes:
        steps: optimiser steps.
        learning_rate: its peak.
        warmup: fraction of the steps in which it rises to the peak.
        schedule: how it falls from there: half a ``cosine``, or a straight line (``linear``: one cycle).
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient.
        ema_steps: time constant of the moving average, in steps; 0 for none.
    """

    steps: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Fraction = 0.05
    schedule: Literal["cosine", "linear"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    ema_steps: Annotated[int, Field(ge=0)] = 100


class TrainConfig(Strict):
    """Everything that determines a training run, besides the data itself.

    Attributes:
        name: of the model that is exported, in letters, digits, ``.``, ``_`` and ``-``.
        seed: of the first weights, the crops and their changes.
        start: a bundled model's name, or the path of a model folder or a ``.safetensors`` file (of this package too:
            ``starts/d4.safetensors``), whose weights training begins with; None, in a file "none": random weights.
        precision: ``float32``, or ``bfloat16`` for mixed precision (weights stay float32).
        channels_last: keep feature maps with the channel fastest, as GPUs' tensor cores like them.
        compile: let ``torch.compile`` fuse the layers; minutes at the start.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    start: Annotated[str | None, AfterValidator(lambda start: None if start == "none" else start)] = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    model: ModelConfig
    data: Annotated[tuple[DataConfig, ...], Field(strict=False, min_length=1)]
    sampling: SamplingConfig
    augment: AugmentConfig
    loss: Annotated[LossConfig, Field(default_factory=LossConfig)]
    optimiser: OptimiserConfig


def load_config(path: Path) -> TrainConfig:
    """Read and check a TOML file, or the JSON that a run keeps beside its weights.

    Raises:
        ConfigError: a missing file, text that does not parse, or a key that is unknown, missing or out of range.
    """
    return parse_table(read_based(path), origin=str(path))


def read_based(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a JSON one by its suffix, on top of the one that its key ``base`` names, if it has one.

    Tables are joined key by key; any other value takes the place of the base's.

    Raises:
        ConfigError: a missing file, text that does not parse, or a file that is its own base.
    """
    return _read_onto_base(path, ())


def _read_onto_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"config {path}: base leads back to the file itself; remove one of the two")
    table = read_table(path)
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise ConfigError(f"config {path}: base is {base!r}; it must be the path of a file, relative to this one")
    return _joined(_read_onto_base(path.parent / base, (*above, path.resolve())), table)


def _joined(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    joined = dict(under)
    for key, value in over.items():
        inner = joined.get(key)
        joined[key] = _joined(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return joined


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a JSON one by its suffix, as it is.

    Raises:
        ConfigError: a missing file, or text that does not parse.
    """
    is_json = path.suffix == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        table: dict[str, Any] = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}; give the path of a TOML file") from error
    except ValueError as error:  # of either parser, or of the decoder of UTF-8
        raise ConfigError(f"config {path} is not {'JSON' if is_json else 'TOML'}: {error}") from error
    return table


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


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], table: dict[str, Any], *, origin: str) -> Model:
    """Check a table against a pydantic model.

    Raises:
        ConfigError: names the first key that breaks a rule, and what it holds.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ConfigError(f"{origin}: {where} is missing; it has no default") from error
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{origin}: {where} is not a key that is known here; remove it, or correct it") from error
        rule = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{origin}: {where} is {first['input']!r}: {rule}") from error


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
