"""Arguments and options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emboundary.model.description import Precision
from emboundary.service.engine import Device
from emboundary.service.progress import Style
from emboundary.service.run.request import OmeZarr
from emboundary.service.run.tiling import DEFAULT_TILE
from emboundary.service.volumes import Dtype

Source = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="OME-Zarr, Zarr, N5, precomputed, TIFF stack, HDF5 file.h5::/dataset, PNG, or a folder of sections; path "
        "or URL.",
    ),
]
Target = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Ends in .zarr (OME-Zarr), .tif, .h5 or .png.")]
DeviceChoice = Annotated[Device, typer.Option(help="auto takes a GPU if one works; cuda never falls back to the CPU.")]
PrecisionChoice = Annotated[
    Precision, typer.Option(help="Arithmetic: float16 is for GPUs, int8 for CPUs; what a model offers.")
]
GpuMemory = Annotated[
    int | None,
    typer.Option("--gpu-memory", metavar="MIB", min=1, help="Memory to take on each GPU.  [default: 90 % of the free]"),
]
TensorRt = Annotated[
    bool,
    typer.Option("--tensorrt", help="Let TensorRT run the model (float16 alone); building it takes minutes, once."),
]
Tta = Annotated[bool, typer.Option("--tta", help="Average the 8 rotations and flips.")]
Roi = Annotated[str | None, typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="Map only this box, in voxels.")]
Tile = Annotated[
    int | None,
    typer.Option(
        help=f"A tile and its halo hold as many pixels as this square.  [default: {DEFAULT_TILE}; a service's own]"
    ),
]
OutputDtype = Annotated[Dtype, typer.Option(help="Of OUTPUT; uint8 stores round(255 p).")]
MeanStd = Annotated[
    str | None, typer.Option(metavar="MEAN,STD", help="Normalise by these, not by the whole volume's statistics.")
]
Axes = Annotated[str | None, typer.Option(help="Names of INPUT's axes where it has none, e.g. zyx.")]
VoxelSize = Annotated[
    str | None, typer.Option(metavar="Z,Y,X", help="Voxel size of INPUT in nm, where it does not say it.")
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace OUTPUT, once the new map is whole; drop a run with other arguments."),
]
Chunk = Annotated[str | None, typer.Option(metavar="Z,Y,X", help="Chunks of OUTPUT.  [default: what suits viewers]")]
Shard = Annotated[str | None, typer.Option(metavar="Z,Y,X", help="Shards of OUTPUT, whole multiples of its chunks.")]
OmeZarrVersion = Annotated[OmeZarr, typer.Option("--ome-zarr", help="Version of OME-Zarr that is written.")]
Pyramid = Annotated[bool, typer.Option("--pyramid/--no-pyramid", help="Coarser levels of an OME-Zarr OUTPUT.")]
Mask = Annotated[str | None, typer.Option(help="Volume of INPUT's shape: where it is 0 nothing is computed.")]
Fill = Annotated[float | None, typer.Option(help="Probability outside the mask, and in constant parts of INPUT.")]
FillMissing = Annotated[
    float | None,
    typer.Option(help="Probability for blocks that cannot be read.  [default: the run stays unfinished, exit code 1]"),
]
EqualiseSections = Annotated[
    bool, typer.Option("--clahe", help="Equalise each section first (CLAHE); the map then no longer turns with INPUT.")
]
Rescale = Annotated[
    bool, typer.Option("--rescale", help="Resample for the network to the voxel size that it was trained on.")
]
ProgressStyle = Annotated[Style, typer.Option("--progress", help="How progress is shown on stderr.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
