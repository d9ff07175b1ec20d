"""Begin, or go on with, the output that a path asks for by its suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emboundary.model.geometry import Triple
from emboundary.service.errors import EmboundaryError, OutputError, UsageError, first_line
from emboundary.service.probabilities import Dtype
from emboundary.service.volumes.hdf5_output import Hdf5Output
from emboundary.service.volumes.output import MapSpec, Output, damaged, sync_all
from emboundary.service.volumes.place import clear_published, final_path, storing
from emboundary.service.volumes.png_output import PngOutput
from emboundary.service.volumes.tiff_output import TiffOutput
from emboundary.service.volumes.zarr_output import ZarrOutput

_OUTPUTS: dict[str, Callable[..., Output]] = {
    ".zarr": ZarrOutput,
    ".tif": TiffOutput,
    ".tiff": TiffOutput,
    ".h5": Hdf5Output,
    ".hdf5": Hdf5Output,
    ".png": PngOutput,
}


def check_output(path: Path, shape: Triple, dtype: Dtype, *, overwrite: bool = False) -> None:
    """Refuse early, before anything is computed, what cannot be stored.

    What a run left that was killed after its map had its name is removed on the way.

    Args:
        path: where the map shall stand; ``.zarr``, ``.tif``, ``.tiff``, ``.h5``, ``.hdf5`` or ``.png``.
        shape: of the map (z, y, x), in voxels.
        dtype: of the map.
        overwrite: whether a map that exists may be replaced.

    Raises:
        UsageError: a URL, an unknown suffix, or a PNG of more than one section or of floats.
        OutputError: a parent folder that does not exist, or an OUTPUT that does.
    """
    if path.parts[:1] and path.parts[0].endswith(":"):  # what a path makes of a URL
        raise UsageError(
            f"OUTPUT is {path}; maps are written to a local disk: give a path there, and copy the map after"
        )
    if path.suffix not in _OUTPUTS:
        raise UsageError(f"OUTPUT is {path}; its name must end in one of {', '.join(_OUTPUTS)}")
    if path.suffix == ".png" and (shape[0] != 1 or dtype != "uint8"):
        raise UsageError(
            f"OUTPUT is {path}, the map has {shape[0]} sections of {dtype}; a PNG holds one section of uint8: give "
            "a .zarr or .tif, or --roi with one section and --dtype uint8"
        )
    if not path.parent.is_dir():
        raise OutputError(f"folder {path.parent} of OUTPUT {path} does not exist; create it first")
    clear_published(path)
    if not overwrite and (path.exists() or path.is_symlink()):
        raise OutputError(
            f"OUTPUT {path} exists; move it away, or give --overwrite to replace it once the new map is whole"
        )


def open_map(data: Path, spec: MapSpec, *, resume: bool) -> Output:
    """Create a map at a path, or go on with the one that a killed run left there.

    Args:
        data: where it stands while it is written; its suffix chooses the format.
        spec: of the map; when resuming, the one that it was begun with.
        resume: whether to go on; otherwise what is there is removed.

    Raises:
        OutputError: a file system that refuses, or nothing whole to go on with.
    """
    try:
        output = _OUTPUTS[data.suffix](data, spec, resume=resume)
    except (EmboundaryError, MemoryError):
        raise
    except Exception as error:  # damaged metadata show in as many ways as there are libraries
        if not resume:
            raise
        raise OutputError(damaged(final_path(data), data, first_line(error))) from error
    if not resume:
        with storing(final_path(data)):
            sync_all(data.parent)  # whoever then notes that there is a map is right, whatever happens
    return output
