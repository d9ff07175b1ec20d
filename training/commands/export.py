"""``emboundary-train export``."""

from __future__ import annotations

from pathlib import Path

from emboundary.model.description import ModelDescription, TrainingData, Validation
from emboundary.model.export import ExportError, export_model
from emboundary.service.errors import OutputError
from emboundary.training.commands.shared import console
from emboundary.training.config import refuse_seen
from emboundary.training.data import load_volume
from emboundary.training.evaluate import score_network
from emboundary.training.runs import load_run

WEIGHTS_LICENCE = "CC BY-NC-SA 3.0 (non-commercial, attribution, share alike), as the training data ask"


def export(run: Path, repository: Path, *, summary: str, data: Path, sections: tuple[int, int], version: int) -> None:
    """Publish a finished run as ``REPOSITORY/NAME/VERSION``, with its score on held-out sections."""
    finished = load_run(run)
    config = finished.config
    refuse_seen(config, config.data[0], sections, origin=f"run {run}")
    volume = load_volume(data, config.data[0], sections)
    measured = score_network(finished.network, volume, tta=False)
    protocol = (
        f"{volume.name} sections {sections[0]}:{sections[1]}, never trained on; every pixel of the whole sections; "
        f"one pass; {config.optimiser.steps} training steps, seed {config.seed}"
    )
    try:
        description = export_model(
            finished.network,
            repository / config.name / str(version),
            name=config.name,
            version=str(version),
            summary=summary,
            voxel_sizes_nm=[d.voxel_size_nm for d in config.data],
            training=[
                TrainingData(name=d.name, sections=f"{d.sections[0]}:{d.sections[1]}", citation=d.citation)
                for d in config.data
            ],
            validation=[
                Validation(protocol=protocol, roc_auc=measured.roc_auc, average_precision=measured.average_precision)
            ],
            weights_licence=WEIGHTS_LICENCE,
        )
    except (ExportError, OSError) as error:
        raise OutputError(f"run {run} cannot be exported: {error}") from error
    console.print(_one_line(description))


def _one_line(d: ModelDescription) -> str:
    return (
        f"{d.name} {d.version}: {d.parameters:,} parameters, {d.flops_per_pixel / 1e3:.1f} kFLOP per pixel, receptive "
        f"field radius {d.receptive_field_radius[2]}, halo {d.halo[2]}, stride {d.stride[2]}, "
        f"equivariance error {d.symmetry.error:.1e}"
    )
