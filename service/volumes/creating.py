"""Create the output that a path asks for by its suffix."""

from __future__ import annotations

from pathlib import Path

from emboundary.model.geometry import Triple
from emboundary.service.errors import OutputError, UsageError
from emboundary.service.probabilities import Dtype
from emboundary.service.volumes.output import MapSpec, Output
from emboundary.service.volumes.png_output import PngOutput
from emboundary.service.volumes.tiff_output import TiffOutput
from emboundary.service.volumes.zarr_output import ZarrOutput

_OUTPUTS: dict[str, type[Output]] = {".zarr": ZarrOutput, ".tif": TiffOutput, ".tiff": TiffOutput, ".png": PngOutput}


def check_output(path: Path, shape: Triple, dtype: Dtype, *, overwrite: bool = False) -> None:
    """Refuse early, before anything is computed, what ``create_output`` would refuse.

    Args:
        path: where the map shall stand; ``.zarr``, ``.tif``, ``.tiff`` or ``.png``.
        shape: of the map (z, y, x), in voxels.
        dtype: of the map.
        overwrite: whether a map that exists may be replaced.

    Raises:
        UsageError: an unknown suffix, or a PNG of more than one section or of floats.
        OutputError: a parent folder that does not exist, or an OUTPUT that does.
    """
    if path.suffix not in _OUTPUTS:
        raise UsageError(f"OUTPUT is {path}; its name must end in one of {', '.join(_OUTPUTS)}")
    if path.suffix == ".png" and (shape[0] != 1 or dtype != "uint8"):
        raise UsageError(
            f"OUTPUT is {path}, the map has {shape[0]} sections of {dtype}; a PNG holds one section of uint8: give "
            "a .zarr or .tif, or --roi with one section and --dtype uint8"
        )
    if not path.parent.is_dir():
        raise OutputError(f"folder {path.parent} of OUTPUT {path} does not exist; create it first")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise OutputError(
            f"OUTPUT {path} exists; move it away, or give --overwrite to replace it once the new map is whole"
        )


def create_output(path: Path, spec: MapSpec, *, overwrite: bool = False) -> Output:
    """Begin a map; nothing stands at ``path`` before its ``commit``.

    Use it as a context: without ``commit`` inside, everything written is removed again.

    Raises:
        UsageError: an unknown suffix, or a map that the format cannot hold.
        OutputError: a parent folder that does not exist, an OUTPUT that does, another run that writes the same
            OUTPUT, or a file system that refuses.
    """
    check_output(path, spec.shape, spec.dtype, overwrite=overwrite)
    return _OUTPUTS[path.suffix](path, spec, overwrite=overwrite)
