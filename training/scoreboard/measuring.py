"""Fill a scoreboard: map what is not measured yet, through the code that serves, and keep every record at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from emboundary.model.export import ExportError, export_model
from emboundary.service.engine import Device, ModelEngine, OnnxEngine, find_model
from emboundary.service.errors import OutputError
from emboundary.training.comparing.records import environment
from emboundary.training.crops.data import LabelledVolume, load_volume
from emboundary.training.learning.train import load_start
from emboundary.training.metrics import boundary_scores, thinned
from emboundary.training.scoreboard.plan import WEIGHTS_SUFFIX, Entry, Scoreboard, Scored
from emboundary.training.scoreboard.records import PROTOCOL, Board, EntryRecord, Measured, VolumeRecord
from emboundary.training.scoring.evaluate import segment
from emboundary.training.scoring.segmentation import section_labels
from emboundary.training.scoring.thresholds import chosen_thresholds, joined_scores


def fill(
    plan: Scoreboard,
    data: Path,
    board: Board,
    *,
    device: Device,
    keep: Callable[[Board], None],
    report: Callable[[str], None] = lambda _: None,
) -> Board:
    """Measure all that a scoreboard lacks, entry by entry.

    Args:
        plan: what is compared.
        data: folder of the volumes; untouched where everything is measured already.
        board: what is measured already, as ``begun`` gives it.
        device: that maps.
        keep: given the scoreboard after each record.
        report: told what is being done.

    Raises:
        ConfigError, EngineError, ModelUnavailableError: a model that cannot be opened.
        DataError: a volume that cannot be read.
        OutputError: weights that cannot be exported.
    """
    with TemporaryDirectory() as exports:
        for entry, row in zip(plan.entries, board.entries, strict=True):
            pairs = zip(plan.volumes, board.volumes, strict=True)
            lacking = [scored for scored, told in pairs if board.of(row, told) is None]
            if not lacking:
                continue
            engine = _engine(entry, plan, device, Path(exports))
            for scored in lacking:
                report(f"{entry.label}: {scored.data.name} {scored.sections[0]}:{scored.sections[1]}")
                found = measure(engine, entry, scored, data)
                board = board.model_copy(update={"measured": (*board.measured, found)})
                keep(board)
    return board


def begun(plan: Scoreboard, file: str, stored: Board | None) -> Board:
    """A scoreboard with what was measured before, if it was by the protocol of today."""
    return Board(
        title=plan.title,
        file=file,
        reference=plan.reference,
        interest=plan.interest,
        used_for=plan.used_for,
        volumes=tuple(
            VolumeRecord(name=v.data.name, sections=v.sections, chosen_on=v.chosen_on, used_for=v.used_for)
            for v in plan.volumes
        ),
        entries=tuple(
            EntryRecord(label=e.label, model=e.model, sha256=e.sha256, passes=e.passes) for e in plan.entries
        ),
        measured=() if stored is None else tuple(m for m in stored.measured if m.protocol == PROTOCOL),
    )


def measure(engine: ModelEngine, entry: Entry, scored: Scored, data: Path) -> Measured:
    """Choose the thresholds of an entry on a volume's training sections, and score its map of the others.

    Raises:
        DataError: a volume that cannot be read.
    """
    tta = entry.passes == 8
    chosen = load_volume(data, scored.data, scored.chosen_on)
    thresholds = chosen_thresholds(chosen.target, segment(engine, chosen, tta=tta)[0])
    volume: LabelledVolume = load_volume(data, scored.data, scored.sections)
    probability, seconds = segment(engine, volume, tta=tta)
    pixels = boundary_scores(volume.target, probability)
    at, half = thinned(section_labels(volume.target), probability, (thresholds.boundary, 0.5)).rand
    segments = joined_scores(volume.target, probability, thresholds.joining)
    return Measured(
        sha256=entry.sha256,
        protocol=PROTOCOL,
        volume=scored.data.name,
        sections=scored.sections,
        chosen_on=scored.chosen_on,
        passes=entry.passes,
        parameters=engine.description.parameters,
        flops_per_pixel=engine.description.flops_per_pixel,
        boundary=thresholds.boundary,
        joining=thresholds.joining,
        roc_auc=pixels.roc_auc,
        average_precision=pixels.average_precision,
        v_rand=at.f,
        v_rand_at_half=half.f,
        voi_split=segments.voi_split,
        voi_merge=segments.voi_merge,
        adapted_rand=segments.adapted_rand,
        cremi=segments.score,
        seconds=seconds,
        environment=environment(engine.device),
    )


def _engine(entry: Entry, plan: Scoreboard, device: Device, exports: Path) -> ModelEngine:
    """The engine of an entry; weights alone are exported first, once for all entries that share them."""
    if not entry.located.endswith(WEIGHTS_SUFFIX):
        return OnnxEngine.open(find_model(entry.located), device)
    folder = exports / entry.sha256
    if not folder.exists():
        try:
            export_model(
                load_start(entry.located),
                folder,
                name="exported",
                version="1",
                summary=entry.label,
                voxel_sizes_nm=[volume.data.voxel_size_nm for volume in plan.volumes],
                training=[],
                validation=[],
                weights_licence="unpublished: exported to be scored",
            )
        except (ExportError, OSError) as error:
            raise OutputError(f"{entry.located} cannot be exported: {error}") from error
    return OnnxEngine.open(find_model(folder), device)
