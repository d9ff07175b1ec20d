"""The options of a map, written down once for the commands that make one: here, through a service, or as a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError

from emboundary.service.commands import options
from emboundary.service.errors import UsageError
from emboundary.service.jobs.schemas import JobSubmission
from emboundary.service.run.request import MapRequest, TypedRequest


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What a user asks for, as typed: one field for each option, by its name and with its default.

    Attributes:
        source: INPUT.
        target: OUTPUT.
    """

    source: options.Source
    target: options.Target
    tta: options.Tta = False
    roi: options.Roi = None
    tile: options.Tile = None
    dtype: options.OutputDtype = "uint8"
    intensity: options.MeanStd = None
    axes: options.Axes = None
    voxel_size: options.VoxelSize = None
    chunk: options.Chunk = None
    shard: options.Shard = None
    ome_zarr: options.OmeZarrVersion = "0.5"
    pyramid: options.Pyramid = True
    mask: options.Mask = None
    fill: options.Fill = None
    fill_missing: options.FillMissing = None
    clahe: options.EqualiseSections = False
    rescale: options.Rescale = False
    overwrite: options.Overwrite = False

    def request(self) -> MapRequest:
        """The request that the options make.

        Raises:
            UsageError: an option that is malformed or out of range.
        """
        typed = {field.name: getattr(self, field.name) for field in fields(TypedRequest)}
        return TypedRequest(**typed).read()

    def submission(self, model: str | None, version: str | None) -> JobSubmission:
        """The same as a job, with INPUT and OUTPUT as they are called on the server.

        Raises:
            UsageError: an option that is malformed or out of range.
        """
        settled = {field.name: getattr(self, field.name) for field in fields(self)}
        places = {"input": settled.pop("source"), "output": str(settled.pop("target"))}
        try:
            return JobSubmission(**places, model=model, version=version, **settled)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).replace("_", "-")
            raise UsageError(f"{name} is {first['input']!r}: {first['msg']}; `--help` shows the options") from error


def with_map_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of a map in place of its one parameter of type ``MapOptions``."""
    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(MapOptions, eval_str=True).parameters
    name = next(name for name, parameter in own.items() if parameter.annotation is MapOptions)

    def run(**values: Any) -> None:
        chosen = MapOptions(**{field.name: values.pop(field.name) for field in fields(MapOptions)})
        command(**{name: chosen}, **values)

    spliced = [p for key in own for p in (shared.values() if key == name else [own[key]])]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in spliced]
    )
    run.__annotations__ = {p.name: p.annotation for p in spliced}
    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    return run
