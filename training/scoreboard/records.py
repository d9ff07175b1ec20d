"""What a scoreboard measured, as it is stored; everything on its page is computed from these records alone."""

from __future__ import annotations

from typing import Literal

from emboundary.training.comparing.records import Environment, Passes
from emboundary.training.scoring.thresholds import Sections
from emboundary.training.strict import Strict

# Raised whenever a figure is measured in another way, so that older records are measured again.
PROTOCOL = 1

Score = Literal[
    "roc_auc",
    "average_precision",
    "v_rand",
    "v_rand_at_half",
    "voi_split",
    "voi_merge",
    "adapted_rand",
    "cremi",
]


class Measured(Strict):
    """One map of one volume.

    Attributes:
        sha256: of the model's file.
        volume, sections: what was scored.
        chosen_on: the training sections on which both thresholds were chosen.
        parameters, flops_per_pixel: of the model; operations are those of one pass.
        boundary, joining: the thresholds; see ``scoring.thresholds.Thresholds``.
        v_rand: of the thinned map at ``boundary``.
        v_rand_at_half: the same at 0.5, whatever was chosen.
        voi_split, voi_merge, adapted_rand, cremi: of the watershed's fragments joined at ``joining``; 0 is perfect.
        seconds: of the scored map, whatever else the machine did.
    """

    sha256: str
    protocol: int
    volume: str
    sections: Sections
    chosen_on: Sections
    passes: Passes
    parameters: int
    flops_per_pixel: float
    boundary: float
    joining: float
    roc_auc: float
    average_precision: float
    v_rand: float
    v_rand_at_half: float
    voi_split: float
    voi_merge: float
    adapted_rand: float
    cremi: float
    seconds: float
    environment: Environment


class EntryRecord(Strict):
    """A row: its label, its model as the file names it, and that model's file."""

    label: str
    model: str
    sha256: str
    passes: Passes


class VolumeRecord(Strict):
    """A scored volume; see ``plan.Scored``."""

    name: str
    sections: Sections
    chosen_on: Sections
    used_for: str


class Board(Strict):
    """A whole scoreboard.

    Attributes:
        file: its TOML file's name.
        measured: of all that was ever measured for this file, in the order of measuring; those of models that the file
            no longer names stay, and are on no page.
    """

    title: str
    file: str
    reference: str
    interest: tuple[str, ...]
    used_for: str
    volumes: tuple[VolumeRecord, ...]
    entries: tuple[EntryRecord, ...]
    measured: tuple[Measured, ...]

    def of(self, entry: EntryRecord, volume: VolumeRecord) -> Measured | None:
        """What was measured of an entry on a volume, if it was."""
        wanted = (entry.sha256, PROTOCOL, volume.name, volume.sections, volume.chosen_on, entry.passes)
        return next((m for m in self.measured if _key(m) == wanted), None)


def _key(found: Measured) -> tuple[str, int, str, Sections, Sections, Passes]:
    return found.sha256, found.protocol, found.volume, found.sections, found.chosen_on, found.passes
