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
Fraction = Annotated[float, Field(ge=0, le=1)]
Nanometres = Annotated[float, Field(gt=0)]
Sections = Annotated[tuple[int, int], Field(strict=False), AfterValidator(_in_order)]


class ModelConfig(Strict):
    """The network; see ``SegmenterSpec`` for what each width means."""

    symmetry: Literal["plain", "paper", "d4"]
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

    Paths are relative to the data folder given on the command line.
    """

    name: str
    raw: str
    membranes: str
    sections: Sections
    voxel_size_nm: Annotated[tuple[Nanometres, Nanometres, Nanometres], Field(strict=False)]
    citation: str


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
    """Random changes of every crop; intensities are in standard deviations of the training data.

    Attributes:
        symmetry: one of the 8 rotations and flips.
        contrast: intensities are multiplied by ``exp(u)``, u uniform in +-contrast.
        brightness: a shift, uniform in +-brightness.
        noise: standard deviation of Gaussian noise, itself uniform in [0, noise].
    """

    symmetry: bool
    contrast: Annotated[float, Field(ge=0)] = 0.0
    brightness: Annotated[float, Field(ge=0)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0


class OptimiserConfig(Strict):
    """AdamW, linear warm-up, cosine decay to zero, exponential moving average of the weights.

    Attributes:
        steps: optimiser steps.
        learning_rate: its peak.
        warmup: fraction of the steps in which it rises to the peak.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient.
        ema_steps: time constant of the moving average, in steps; 0 for none.
    """

    steps: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    ema_steps: Annotated[int, Field(ge=0)] = 100


class TrainConfig(Strict):
    """Everything that determines a training run, besides the data itself.

    Attributes:
        name: of the model that is exported, in letters, digits, ``.``, ``_`` and ``-``.
        seed: of the first weights, the crops and their changes.
        precision: ``float32``, or ``bfloat16`` for mixed precision (weights stay float32).
        loss_boundary_weight: weight of boundary pixels against others in the cross entropy.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    loss_boundary_weight: Annotated[float, Field(gt=0)] = 1.0
    model: ModelConfig
    data: Annotated[tuple[DataConfig, ...], Field(strict=False, min_length=1)]
    sampling: SamplingConfig
    augment: AugmentConfig
    optimiser: OptimiserConfig


def load_config(path: Path) -> TrainConfig:
    """Read and check a TOML file, or the JSON that a run keeps beside its weights.

    Raises:
        ConfigError: a missing file, text that does not parse, or a key that is unknown, missing or out of range.
    """
    return parse_table(read_table(path), origin=str(path))


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


def refuse_seen(config: TrainConfig, sections: tuple[int, int], *, origin: str) -> None:
    """Refuse to score a network on sections ``[first, stop)`` of its first volume that it was trained on.

    Raises:
        ConfigError: the ranges overlap.
    """
    for volume in config.data:
        first, stop = volume.sections
        if volume.raw == config.data[0].raw and first < sections[1] and sections[0] < stop:
            raise ConfigError(
                f"{origin}: scored sections {list(sections)} overlap the training sections {[first, stop]} of "
                f"{volume.name}; give sections that were never trained on"
            )
