"""From volumes that a user names on the command line to a configuration: nobody has to write a file for a first try.

What is not told is taken from the files (shape, voxel size), from ``configs/own.toml`` (how to learn), and from the
model that training starts with (widths and symmetry).  The configuration is an ordinary one, kept in the run's folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from emboundary.model.export import WEIGHTS_FILE
from emboundary.model.inception import STRIDE, SegmenterSpec
from emboundary.model.repository import DEFAULT_MODEL, MODEL_FILE, ZOO, canonical_name, list_models
from emboundary.model.weights import WeightsError, load_segmenter
from emboundary.service.engine import find_model
from emboundary.service.errors import InputError, ModelUnavailableError, UsageError
from emboundary.service.volumes import Volume, open_volume
from emboundary.service.volumes.hdf5_input import split_name
from emboundary.service.volumes.storage import is_url
from emboundary.training.config import ModelConfig, TrainConfig, parse_table
from emboundary.training.crops.data import DataError
from emboundary.training.strict import ConfigError, read_based

CONFIGS = Path(__file__).parent / "configs"
# Networks that can be trained from nothing by name; the small ones are what the bundled models are.
NETWORKS = ("d4", "plain", "paper", "d4-base", "plain-base", "paper-base")

NOTHING = "none"
NO_CITATION = "no citation given"

Range = tuple[int, int]
VoxelSize = tuple[float, float, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Told:
    """What a user tells about volumes and training.

    Attributes:
        raw: volumes of grey values, anything that ``open_volume`` reads.
        labels, membranes: of the first or of the second kind, one for each of ``raw``.
        sections, validation, voxel_sizes_nm, citations: one for all volumes, or one for each; empty: see ``split``,
            the file's own voxel size, and none.
        start: a model's name or path whose weights training begins with, ``none`` for random ones; None: ``model``
            where that is bundled, ``d4`` where neither is told.
        model: the network to train from nothing, one of ``NETWORKS``, or a configuration that has one.
        steps, learning_rate: None: as ``configs/own.toml`` says.
    """

    raw: tuple[str, ...]
    labels: tuple[str, ...] = ()
    membranes: tuple[str, ...] = ()
    sections: tuple[Range, ...] = ()
    validation: tuple[Range, ...] = ()
    voxel_sizes_nm: tuple[VoxelSize, ...] = ()
    citations: tuple[str, ...] = ()
    start: str | None = None
    model: str | None = None
    steps: int | None = None
    learning_rate: float | None = None


def own_config(told: Told, *, name: str, seed: int = 0) -> TrainConfig:
    """The configuration that follows from what a user tells.

    Args:
        told: volumes and wishes.
        name: of the model; characters that no name may have are replaced.
        seed: of the first weights, the crops and their changes.

    Raises:
        UsageError: options that do not fit together, or not to the volumes.
        DataError: a volume that cannot be read, or a target that does not fit its raw volume.
        ModelUnavailableError, ConfigError: a model to start from, or a network, that cannot be had.
    """
    targets = told.labels or told.membranes
    if told.labels and told.membranes:
        raise UsageError("give either --labels (neuron ids) or --membranes (boundary maps) for all volumes, not both")
    if len(targets) != len(told.raw):
        raise UsageError(
            f"--raw is given {len(told.raw)} times, --labels or --membranes {len(targets)} times; every raw volume "
            "needs one of them, in the same order"
        )
    count = len(told.raw)
    sections, validation = _each(told.sections, count, "sections"), _each(told.validation, count, "validation")
    sizes, citations = _each(told.voxel_sizes_nm, count, "voxel-size"), _each(told.citations, count, "citation")
    data: list[dict[str, Any]] = []
    side = None
    for raw, target, trained, kept, size, citation in zip(
        told.raw, targets, sections, validation, sizes, citations, strict=True
    ):
        found = _look_at(raw, target, labels=bool(told.labels))
        trained, kept = split(found.depth, trained, kept, volume=raw)
        side = found.side if side is None else min(side, found.side)
        data.append(
            {
                "name": _new_name(raw, {volume["name"] for volume in data}),
                "raw": _absolute(raw),
                "labels" if told.labels else "membranes": _absolute(target),
                "sections": trained,
                "validation": kept,
                "voxel_size_nm": size or found.voxel_size_nm or _unknown_size(raw),
                "citation": citation or NO_CITATION,
            }
        )
    start, network = _network(told.start, told.model)
    table = read_based(CONFIGS / ("own-scratch.toml" if start is None else "own.toml"))
    table |= {"name": _model_name(name), "seed": seed, "start": start, "model": network, "data": data}
    assert side is not None
    table["sampling"]["crop"] = max(STRIDE, min(table["sampling"]["crop"], side // STRIDE * STRIDE))
    table["optimiser"] |= {
        key: value for key, value in (("steps", told.steps), ("learning_rate", told.learning_rate)) if value is not None
    }
    return parse_table(table, origin="of the volumes given")


def split(depth: int, sections: Range | None, validation: Range | None, *, volume: str) -> tuple[Range, Range | None]:
    """Training and validation sections ``[first, stop)`` of a volume of ``depth`` sections.

    Told neither, the last fifth, at least one section, is kept for validation; told one, the other is the longer part
    that it leaves at one of the two ends.  No validation sections where nothing is left.

    Raises:
        UsageError: sections outside the volume, ranges that overlap, or validation sections that leave none to train
            on.
    """
    for option, told in (("sections", sections), ("validation", validation)):
        if told is not None and not told[1] <= depth:
            raise UsageError(
                f"--{option} is {told[0]}:{told[1]}, but {volume} has {depth} sections; it must be within 0:{depth}"
            )
    if sections and validation:
        if sections[0] < validation[1] and validation[0] < sections[1]:
            raise UsageError(
                f"--sections {sections[0]}:{sections[1]} and --validation {validation[0]}:{validation[1]} overlap; a "
                "model must not be scored on what it was trained on"
            )
        return sections, validation
    if sections:
        return sections, _longer_end(depth, sections)
    if validation is None:
        if depth == 1:
            return (0, 1), None
        kept = max(1, round(depth / 5))
        return (0, depth - kept), (depth - kept, depth)
    trained = _longer_end(depth, validation)
    if trained is None:
        raise UsageError(
            f"--validation {validation[0]}:{validation[1]} leaves no section of {volume} to train on; it has {depth}"
        )
    return trained, validation


def _longer_end(depth: int, taken: Range) -> Range | None:
    before, behind = (0, taken[0]), (taken[1], depth)
    first, stop = behind if behind[1] - behind[0] >= before[1] - before[0] else before
    return (first, stop) if first < stop else None


@dataclass(frozen=True)
class _Found:
    depth: int
    side: int
    voxel_size_nm: VoxelSize | None


def _look_at(raw: str, target: str, *, labels: bool) -> _Found:
    """What two files say of themselves; no voxel is read."""
    with _opened(raw) as grey, _opened(target, labels=True) as truth:
        if grey.shape != truth.shape:
            raise DataError(
                f"{raw} has shape {grey.shape}, {target} has {truth.shape}; they must be the same voxels: crop the "
                "larger one"
            )
        if labels and truth.dtype.kind not in "iu":
            raise DataError(
                f"{target} has voxels of type {truth.dtype}; neuron ids must be integers: give a boundary map as "
                "--membranes"
            )
        return _Found(grey.shape[0], min(grey.shape[1:]), grey.voxel_size_nm or truth.voxel_size_nm)


@contextmanager
def _opened(where: str, *, labels: bool = False) -> Iterator[Volume]:
    if is_url(where):
        raise UsageError(f"{where} is a URL; training reads its volumes again and again: download it first")
    try:
        volume = open_volume(where, labels=labels)
    except InputError as error:
        raise DataError(str(error)) from error
    with volume:
        yield volume


def _unknown_size(raw: str) -> VoxelSize:
    raise UsageError(
        f"{raw} does not say its voxel size; give --voxel-size Z,Y,X in nm, e.g. 40,4,4: the model states on what it "
        "was trained"
    )


def _each(told: Sequence[T], count: int, option: str) -> Sequence[T | None]:
    if len(told) not in (0, 1, count):
        raise UsageError(f"--{option} is given {len(told)} times for {count} volumes; give it once, or once for each")
    return [None] * count if not told else list(told) * count if len(told) == 1 else list(told)


def _absolute(where: str) -> str:
    """The path from anywhere, so that an interrupted run goes on wherever its command is given again."""
    file, inside = _parts(where)
    return f"{file.absolute()}::{inside}" if inside else str(file.absolute())


def _parts(where: str) -> tuple[Path, str]:
    named = None if Path(where).exists() else split_name(where)
    return (Path(where), "") if named is None else (Path(named[0]), named[1])


def _new_name(raw: str, taken: set[str]) -> str:
    name = _parts(raw)[0].absolute().name.partition(".")[0] or "volume"
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 2))
    return next(n for n in (name, *numbered) if n not in taken)


def _model_name(wish: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", wish).lstrip("._-") or "own"


def _network(start: str | None, model: str | None) -> tuple[str | None, dict[str, Any]]:
    """The weights to start from, None for random ones, and the network."""
    if start is None:
        bundled = list_models(ZOO)
        wanted = DEFAULT_MODEL if model is None else canonical_name(model, bundled)
        if wanted in bundled:
            return wanted, asdict(_spec_of(wanted))
        start = NOTHING
    if start == NOTHING:
        return None, _table_of(model or DEFAULT_MODEL)
    spec = _spec_of(start)
    if model is not None and ModelConfig(**_table_of(model)).spec() != spec:
        raise UsageError(
            f"--start is {start}, which is another network than --model {model}; give --start {NOTHING}, or leave "
            "--model out"
        )
    is_path = os.sep in start or start.endswith(".safetensors") or (Path(start) / MODEL_FILE).exists()
    return str(Path(start).absolute()) if is_path else start, asdict(spec)


def _spec_of(start: str) -> SegmenterSpec:
    path = Path(start)
    try:
        weights = path if path.suffix == ".safetensors" else find_model(start).path.with_name(WEIGHTS_FILE)
        return load_segmenter(weights).spec
    except WeightsError as error:
        raise ModelUnavailableError(f"--start is {start}: {error}") from error


def _table_of(model: str) -> dict[str, Any]:
    if model.endswith(".toml"):
        path = Path(model)
    elif (name := canonical_name(model, NETWORKS)) in NETWORKS:
        path = CONFIGS / f"{name}.toml"
    else:
        raise UsageError(f"--model is {model}; it must be one of {', '.join(NETWORKS)}, or the path of a .toml file")
    table = read_based(path).get("model")
    if not isinstance(table, dict):
        raise ConfigError(f"config {path}: model is missing; give a file that has a table [model]")
    return table
