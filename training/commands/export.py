"""``emboundary-train export``."""

from __future__ import annotations

from pathlib import Path

from emboundary.model.description import ModelDescription, Storage
from emboundary.service.errors import InputError, first_line
from emboundary.training.commands.convert import precision_lines
from emboundary.training.commands.fit import figure_lines
from emboundary.training.commands.shared import console
from emboundary.training.learning.runs import load_run
from emboundary.training.publishing import Provenance, held_out, publish, read_results


def provenance(summary: str, licence: str, used_for: str, fails: Path | None, pictures: tuple[Path, ...]) -> Provenance:
    """What a person says of a model, with the text of a file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = "" if fails is None else fails.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--fails is {fails}, which cannot be read: {first_line(error)}; give a text file") from error
    return Provenance(summary, licence, used_for, text, pictures)


def export(
    folder: Path,
    repository: Path,
    *,
    data: Path,
    provenance: Provenance,
    sections: tuple[int, int] | None,
    volume: str | None,
    figures: Path | None,
    version: int,
    storage: Storage,
) -> None:
    """Publish a finished run as ``REPOSITORY/NAME/VERSION``, with its figures on held-out sections."""
    run = load_run(folder)
    chosen = held_out(run.config, sections, volume, origin=f"run {folder}")
    description = publish(
        run,
        repository / run.config.name / str(version),
        version=str(version),
        provenance=provenance,
        data=data,
        chosen=chosen,
        storage=storage,
        results=None if figures is None else read_results(figures),
        report=console.print,
    )
    console.print(_one_line(description))
    for line in (*figure_lines(description), *precision_lines(description)):
        console.print(line)


def _one_line(d: ModelDescription) -> str:
    return (
        f"{d.name} {d.version}: {d.parameters:,} parameters, {d.flops_per_pixel / 1e3:.1f} kFLOP per pixel, receptive "
        f"field radius {d.receptive_field_radius[2]}, halo {d.halo[2]}, stride {d.stride[2]}, "
        f"equivariance error {d.symmetry.error:.1e}"
    )
