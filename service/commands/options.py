"""Arguments and options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emboundary.service.engine import Device
from emboundary.service.volumes import Dtype

Source = Annotated[
    str,
    typer.Argument(metavar="INPUT", help="OME-Zarr or Zarr (path or URL), TIFF stack, HDF5 file.h5::/dataset, or PNG."),
]
Target = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Ends in .zarr (OME-Zarr), .tif or .png.")]
DeviceChoice = Annotated[Device, typer.Option(help="auto takes a GPU if one works; cuda never falls back to the CPU.")]
Tta = Annotated[bool, typer.Option("--tta", help="Average the 8 rotations and flips.")]
Roi = Annotated[str | None, typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="Map only this box, in voxels.")]
OutputDtype = Annotated[Dtype, typer.Option(help="Of OUTPUT; uint8 stores round(255 p).")]
MeanStd = Annotated[
    str | None, typer.Option(metavar="MEAN,STD", help="Normalise by these, not by the whole volume's statistics.")
]
Axes = Annotated[str | None, typer.Option(help="Names of INPUT's axes where it has none, e.g. zyx.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT, once the new map is whole.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
