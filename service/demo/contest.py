"""Two ways to a boundary map of the bundled sample, side by side: one exact pass, and eight averaged ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emboundary.model.scores import average_precision, curve, roc_auc
from emboundary.service.client.http import BoundaryClient
from emboundary.service.client.streaming import RemoteModel
from emboundary.service.demo.picture import EMBER, TEAL, Panel, overlay, plain, sheet
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.progress import Reporter
from emboundary.service.run.prediction import make_map
from emboundary.service.run.request import MapRequest
from emboundary.service.volumes import open_volume

SAMPLE = Path(__file__).parents[1] / "sample"
RAW = SAMPLE / "raw.ome.tif"
MEMBRANES = SAMPLE / "membranes.ome.tif"


@dataclass(frozen=True)
class Entrant:
    """A model, whether its 8 orientations are averaged, and the name of its map."""

    model: str
    tta: bool
    target: str

    @property
    def passes(self) -> int:
        """How often the network sees each voxel."""
        return 8 if self.tta else 1

    @property
    def title(self) -> str:
        """For pictures."""
        return f"{self.model}, {self.passes} passes" if self.tta else f"{self.model}, 1 pass"


ENTRANTS = (Entrant("d4", False, "boundary.zarr"), Entrant("plain", True, "boundary_plain_8x.zarr"))


@dataclass(frozen=True)
class Result:
    """What one entrant achieved on the sample.

    Attributes:
        seconds: from opening the sample to the last byte stored, through service and client.
        target: where its map stands.
    """

    entrant: Entrant
    seconds: float
    voxels_per_second: float
    roc_auc: float
    average_precision: float
    target: Path


def run_entrant(client: BoundaryClient, entrant: Entrant, folder: Path, reporter: Reporter) -> Result:
    """Map the sample through a service, and score what has been stored against the human membranes.

    Raises:
        EmboundaryError: the service fails, or the folder cannot be written to.
    """
    remote = RemoteModel(client, client.model(entrant.model), tta=entrant.tta)
    # The service loads a model when it is first asked for it; that is no part of the race.
    client.predict(np.eye(2, dtype=np.uint8), model=entrant.model, intensity=Intensity(0.5, 0.5))
    reporter.say(f"{entrant.title}:")
    target = folder / entrant.target
    report = make_map(MapRequest(str(RAW), target, dtype="float32", overwrite=True), remote, reporter)
    counts = curve(_whole(MEMBRANES) > 0, _whole(target))
    return Result(entrant, report.seconds, report.voxels_per_second, roc_auc(counts), average_precision(counts), target)


def draw(results: Sequence[Result]) -> Image.Image:
    """The middle section of the sample: raw, as a person labelled it, and every map over it."""
    raw, membranes = _whole(RAW), _whole(MEMBRANES)
    middle = raw.shape[0] // 2
    grey = raw[middle]
    panels = [Panel("raw", plain(grey)), Panel("membranes, by hand", overlay(grey, membranes[middle] / 255, TEAL))]
    for result in results:
        panels.append(Panel(result.entrant.title, overlay(grey, _whole(result.target)[middle], EMBER)))
    return sheet(panels)


def _whole(path: Path) -> NDArray[Any]:
    everything = slice(None)
    with open_volume(path) as volume:
        return volume[everything, everything, everything]
