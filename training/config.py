"""Training configurations: one TOML file per model, strict at the edge, frozen inside.

An unknown key, a wrong type or a value out of range is refused with its name; nothing has a silent meaning.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emboundary.model.inception import SegmenterSpec


class ConfigError(ValueError):
    """A configuration file that cannot be read or breaks a rule."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class ModelConfig(_Strict):
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


class DataConfig(_Strict):
    """One labelled volume and the sections of it that training may see.

    Paths are relative to the data folder given on the command line.
    """

    name: str
    raw: str
    membranes: str
    sections: Annotated[tuple[int, int], Field(strict=False)]
    voxel_size_nm: Annotated[tuple[float, float, float], Field(strict=False)]
    citation: str

    @model_validator(mode="after")
    def _sections_are_a_range(self) -> DataConfig:
        first, stop = self.sections
        if not 0 <= first < stop:
            raise ValueError(f"sections is {list(self.sections)}; it is [first, stop) with 0 <= first < stop")
        return self


class SamplingConfig(_Strict):
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
        if self.crop % 8:
            raise ValueError(f"crop is {self.crop}; it must be a multiple of the stride, 8")
        if 2 * self.margin >= self.crop:
            raise ValueError(f"margin is {self.margin} of a crop of {self.crop}; it leaves no pixel for the loss")
        return self


class AugmentConfig(_Strict):
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


class OptimiserConfig(_Strict):
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


class TrainConfig(_Strict):
    """Everything that determines a training run, besides the data itself.

    Attributes:
        precision: ``float32``, or ``bfloat16`` for mixed precision (weights stay float32).
        loss_boundary_weight: weight of boundary pixels against others in the cross entropy.
    """

    name: str
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    loss_boundary_weight: Annotated[float, Field(gt=0)] = 1.0
    model: ModelConfig
    data: Annotated[tuple[DataConfig, ...], Field(strict=False, min_length=1)]
    sampling: SamplingConfig
    augment: AugmentConfig
    optimiser: OptimiserConfig


def load_config(path: Path) -> TrainConfig:
    """Read and check a TOML file.

    Raises:
        ConfigError: a missing file, TOML that does not parse, or a key that is unknown, missing or out of range.
    """
    try:
        return parse_config(path.read_text(encoding="utf-8"), origin=str(path))
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}; give the path of a TOML file") from error


def parse_config(text: str, *, origin: str) -> TrainConfig:
    """The same for a text; ``origin`` names it in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config {origin} is not TOML: {error}") from error
    return parse_table(table, origin=origin)


def parse_config_json(text: str, *, origin: str) -> TrainConfig:
    """The same for the JSON that a run keeps beside its weights."""
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"config {origin} is not JSON: {error}") from error
    return parse_table(table, origin=origin)


def parse_table(table: dict[str, Any], *, origin: str) -> TrainConfig:
    """The same for a parsed table."""
    try:
        config = TrainConfig.model_validate(table)
        config.model.spec()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"config {origin}: {where} is {first['input']!r}: {first['msg']}") from error
    except ValueError as error:
        raise ConfigError(f"config {origin}: model: {error}") from error
    return config
