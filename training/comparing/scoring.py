"""Score a finished run: export it, map its volumes through the path that serves, and keep what was measured.

Every map's scores are stored as soon as they are there; an interrupted scoring goes on behind them.  Scores belong to
the weights by their SHA-256, and are measured again when those change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emboundary.model.description import TrainingData
from emboundary.model.export import ExportError, export_model
from emboundary.service.engine import Device, OnnxEngine, find_model
from emboundary.service.errors import OutputError
from emboundary.training.comparing.measuring import map_scores
from emboundary.training.comparing.records import (
    PROTOCOL,
    SCORES,
    MapScores,
    Passes,
    RunScores,
    environment,
    read_record,
)
from emboundary.training.config import DataConfig, TrainConfig
from emboundary.training.crops.data import load_volume
from emboundary.training.learning.runs import WEIGHTS, load_run
from emboundary.training.scoring.evaluate import segment
from emboundary.training.scoring.thresholds import boundary_threshold, choosing_sections
from emboundary.training.storing import store_text, storing
from emboundary.training.study import StudyRun

MAPS = "maps"
_LICENCE = "unpublished: a run of a study"


@dataclass(frozen=True)
class Wanted:
    """A map that is to be scored."""

    volume: DataConfig
    passes: Passes

    def is_of(self, scored: MapScores) -> bool:
        """Whether these are its scores."""
        return (scored.volume, scored.sections, scored.passes) == (self.volume.name, self.sections, self.passes)

    @property
    def sections(self) -> tuple[int, int]:
        """The validation sections, which a study's scored volumes all have."""
        assert self.volume.validation is not None
        return self.volume.validation


def passes_of(config: TrainConfig) -> tuple[Passes, ...]:
    """One pass, and for a network without any symmetry the 8 that stand in for it."""
    return (1, 8) if config.model.symmetry == "plain" else (1,)


def wanted_of(run: StudyRun) -> tuple[Wanted, ...]:
    """The maps of a run, cheap ones first."""
    return tuple(Wanted(volume, passes) for passes in passes_of(run.config) for volume in run.scored)


def weights_sha256(folder: Path) -> str:
    """SHA-256 of a finished run's weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def score_run(
    run: StudyRun,
    folder: Path,
    data: Path,
    *,
    device: Device,
    keep: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> RunScores:
    """Scores of a finished run, measured where they are not yet.

    Args:
        run: the volumes that it is scored on.
        folder: where it was trained.
        data: folder of the volumes; untouched where everything is measured already.
        device: that maps.
        keep: store the maps, too, for pictures.
        report: told what is being done.

    Raises:
        RunError, DataError: a run or a volume that cannot be read.
        OutputError: a folder that cannot be written, or a run that cannot be exported.
    """
    digest = weights_sha256(folder)
    stored = read_record(folder / SCORES, RunScores)
    if stored is None or (stored.protocol, stored.weights_sha256) != (PROTOCOL, digest):
        stored = None
    found = {} if stored is None else {want: m for want in wanted_of(run) for m in stored.maps if want.is_of(m)}
    lacking = [w for w in wanted_of(run) if w not in found or (keep and not map_file(folder, digest, w).exists())]
    if not lacking:
        assert stored is not None
        return stored
    engine = open_engine(folder, device)
    for want in lacking:
        report(f"{run.folder}: mapping {want.volume.name}, {want.passes} {'pass' if want.passes == 1 else 'passes'}")
        chosen = load_volume(data, want.volume, choosing_sections(want.volume.sections))
        threshold = boundary_threshold(chosen.target, segment(engine, chosen, tta=want.passes == 8)[0])
        volume = load_volume(data, want.volume, want.sections)
        probability, seconds = segment(engine, volume, tta=want.passes == 8)
        if keep:
            _keep(map_file(folder, digest, want), probability)
        found[want] = map_scores(
            volume.target,
            probability,
            threshold=threshold,
            volume=want.volume.name,
            sections=want.sections,
            passes=want.passes,
            seconds=seconds,
        )
        maps = tuple(found[w] for w in wanted_of(run) if w in found)
        stored = RunScores(protocol=PROTOCOL, weights_sha256=digest, environment=environment(engine.device), maps=maps)
        store_text(folder / SCORES, stored.model_dump_json(indent=1) + "\n")
    assert stored is not None
    return stored


def open_engine(folder: Path, device: Device) -> OnnxEngine:
    """The engine of a finished run, exported on its first use into ``model-SHA256`` in its folder.

    Raises:
        OutputError: the run cannot be exported.
    """
    model = folder / f"model-{weights_sha256(folder)[:12]}"
    if not model.exists():
        run = load_run(folder)
        try:
            export_model(
                run.network,
                model,
                name=run.config.name,
                version="1",
                summary=f"{run.config.name}, {run.config.optimiser.steps} steps, seed {run.config.seed}",
                voxel_sizes_nm=[d.voxel_size_nm for d in run.config.data],
                training=[
                    TrainingData(name=d.name, sections=f"{d.sections[0]}:{d.sections[1]}", citation=d.citation)
                    for d in run.config.data
                ],
                validation=[],
                weights_licence=_LICENCE,
            )
        except (ExportError, OSError) as error:
            raise OutputError(f"run {folder} cannot be exported: {error}") from error
    return OnnxEngine.open(find_model(model), device)


def map_file(folder: Path, digest: str, want: Wanted) -> Path:
    """Where a map is kept: uint8 (z, y, x), 255 times the probability."""
    first, stop = want.sections
    return folder / MAPS / f"{want.volume.name}-{first}-{stop}-{want.passes}-{digest[:12]}.npy"


def _keep(path: Path, probability: NDArray[np.float32]) -> None:
    with storing(path) as partial, partial.open("wb") as file:
        np.save(file, np.round(probability * 255).astype(np.uint8))
