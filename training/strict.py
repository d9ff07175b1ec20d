"""Configuration files: read strictly, checked whole, refused with the name of the key.

An unknown key, a wrong type or a value out of range is refused with its name; nothing has a silent meaning.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emboundary.service.errors import EmboundaryError


class ConfigError(EmboundaryError):
    """A configuration file that cannot be read or breaks a rule."""


class Strict(BaseModel):
    """Nothing unknown, nothing converted, nothing infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Value = bool | int | float | str | list[int] | list[float]
PositiveInt = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def joined(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Two tables, key by key; where both have one that is no table in both, that of ``over``."""
    whole = dict(under)
    for key, value in over.items():
        inner = whole.get(key)
        whole[key] = joined(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return whole


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a JSON one by its suffix, as it is.

    Raises:
        ConfigError: a missing file, or text that does not parse.
    """
    is_json = path.suffix == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        table: dict[str, Any] = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}; give the path of a TOML file") from error
    except ValueError as error:  # of either parser, or of the decoder of UTF-8
        raise ConfigError(f"config {path} is not {'JSON' if is_json else 'TOML'}: {error}") from error
    return table


def read_stacked(
    path: Path,
    key: str,
    *,
    kind: str,
    read: Callable[[Path], dict[str, Any]] = read_table,
    join: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = joined,
) -> dict[str, Any]:
    """Read a file on top of the one that a key of it names, relative to it, that one on top of its own, and so on.

    Args:
        path: of the file.
        key: that names the file below; it is no part of the result.
        kind: of the file, for errors.
        read: of one file.
        join: of what is below and what is above.

    Raises:
        ConfigError: what ``read`` raises, a key that holds no path, or a file that stands on itself.
    """
    tables: list[dict[str, Any]] = []
    seen: set[Path] = set()
    other: Any = path.name
    while other is not None:
        if not isinstance(other, str):
            raise ConfigError(f"{kind} {path}: {key} is {other!r}; it must be the path of a file, relative to this one")
        path = path.parent / other
        if path.resolve() in seen:
            raise ConfigError(f"{kind} {path}: {key} leads back to the file itself; remove one of the two")
        seen.add(path.resolve())
        tables.append(read(path))
        other = tables[-1].pop(key, None)
    return reduce(join, reversed(tables))


def read_based(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a JSON one by its suffix, on top of the one that its key ``base`` names, if it has one.

    Tables are joined key by key; any other value takes the place of the base's.

    Raises:
        ConfigError: a missing file, text that does not parse, or a file that is its own base.
    """
    return read_stacked(path, "base", kind="config")


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], table: dict[str, Any], *, origin: str) -> Model:
    """Check a table against a pydantic model.

    Raises:
        ConfigError: names the first key that breaks a rule, and what it holds.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ConfigError(f"{origin}: {where} is missing; it has no default") from error
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{origin}: {where} is not a key that is known here; remove it, or correct it") from error
        rule = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{origin}: {where} is {first['input']!r}: {rule}") from error


def varied(base: dict[str, Any], changes: dict[str, Value], *, origin: str) -> dict[str, Any]:
    """A copy of a table with some of its dotted keys set; numbers among them count the items of a list.

    The last table on the way may be missing: a table whose keys all have defaults need not be written down.

    Raises:
        ConfigError: a way through something that is no table, or an item that a list does not have.
    """
    table = copy.deepcopy(base)
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        inner: Any = table
        try:
            for parent in parents:
                inner = inner[int(parent)] if isinstance(inner, list) else inner.setdefault(parent, {})
            inner[key] = value
        except (AttributeError, IndexError, TypeError, ValueError):
            raise ConfigError(
                f"{origin}: {dotted} leads nowhere in the base configuration; give a key of one of its tables"
            ) from None
    return table
