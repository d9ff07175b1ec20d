"""Model repositories: folders of ``NAME/VERSION/model.onnx`` with ``description.json`` beside each.

The same network in other precisions may lie there as well, ``float16.onnx`` and ``int8.onnx``: the folder is the model.

The bundled repository is ``model/zoo``; ``--model`` also takes the path of any such file or folder.

A model may come in two sizes.  ``d4`` always means ``d4-small``: the two names are one model, which is stored and
listed under the short one, wherever a name is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from emboundary.model.description import ModelDescription, Precision

ZOO = Path(__file__).parent / "zoo"
DEFAULT_MODEL = "d4"
MODEL_FILE = "model.onnx"
DESCRIPTION_FILE = "description.json"
_ALIASES = {f"{name}-small": name for name in ("d4", "plain", "paper")}


class ModelError(ValueError):
    """A model that is missing, or a file that is not what its description says."""


@dataclass(frozen=True)
class ModelEntry:
    """One model file and its description; existence and hash have been checked."""

    path: Path
    description: ModelDescription

    def file(self, precision: Precision) -> Path:
        """The file that computes in a precision; that of a variant is checked now, before it is used.

        Raises:
            ModelError: the model is not offered in this precision, or the file is missing or not the one described.
        """
        if precision == "float32":
            return self.path
        variant = self.description.variants.get(precision)
        folder = self.path.parent
        if variant is None:
            offered = ", ".join(["float32", *sorted(self.description.variants)])
            raise ModelError(
                f"model {self.description.name} is not offered in {precision!r}, only in: {offered}; "
                f"`emboundary-train convert {folder} --precision float16|int8` adds one"
            )
        again = f"`emboundary-train convert {folder} --precision {precision} --overwrite` makes it again"
        path = folder / variant.file
        if not path.is_file():
            raise ModelError(
                f"{path} is missing, though {DESCRIPTION_FILE} names it: copy the whole folder, or {again}"
            )
        _check_hash(path, variant.sha256, f"copy the whole folder again, or {again}")
        return path


def canonical_name(name: str, known: Container[str]) -> str:
    """The name that a model is stored under: ``d4`` for ``d4-small``, where ``known`` holds no model of that name."""
    return name if name in known else _ALIASES.get(name, name)


def list_models(repository: Path = ZOO) -> tuple[str, ...]:
    """Names in a repository, the default first, then alphabetically."""
    names = {p.parent.parent.name for p in repository.glob(f"*/*/{MODEL_FILE}") if p.parent.name.isdecimal()}
    return tuple(sorted(names, key=lambda n: (n != DEFAULT_MODEL, n)))


def list_versions(name: str, repository: Path = ZOO) -> tuple[str, ...]:
    """Versions of a model in a repository, the newest first; empty where there is none."""
    models = list_models(repository)
    name = canonical_name(name, models)
    return tuple(folder.name for folder in _versions(repository / name)) if name in models else ()


def load_version(name: str, version: str, repository: Path = ZOO) -> ModelEntry:
    """Find one version of a model by name and check its hash.

    Raises:
        ModelError: no such model or version, an unreadable or inconsistent description, one that speaks of another
            model, or a file whose SHA-256 differs from the one its description states.
    """
    name = canonical_name(name, list_models(repository))
    known = list_versions(name, repository)
    if version not in known:
        raise ModelError(f"version {version!r} of model {name!r} not found; here: {', '.join(known) or 'none'}")
    entry = _load_folder(repository / name / version)
    described = entry.description
    if (described.name, described.version) != (name, version):
        raise ModelError(
            f"{entry.path.parent} describes itself as {described.name}/{described.version}; a model lies in "
            "NAME/VERSION as its description says: rename the folder, or export it again"
        )
    return entry


def load_model(name_or_path: str | Path = DEFAULT_MODEL, repository: Path = ZOO) -> ModelEntry:
    """Find a model by name (newest version), by file or by folder, and check its hash.

    Raises:
        ModelError: no such model, an unreadable or inconsistent description, or a file whose SHA-256 differs
            from the one its description states.
    """
    return _load_folder(_find_folder(name_or_path, repository))


def _find_folder(name_or_path: str | Path, repository: Path) -> Path:
    as_path = Path(name_or_path)
    if as_path.name == MODEL_FILE:
        return as_path.parent
    # A name is one word; anything with a separator, or an existing folder that holds a model, is a path.
    holds_model = (as_path / MODEL_FILE).exists()
    if as_path.is_dir() and (isinstance(name_or_path, Path) or len(as_path.parts) > 1 or holds_model):
        return as_path if holds_model else _newest_version(as_path)
    folder = repository / canonical_name(str(name_or_path), list_models(repository))
    if len(as_path.parts) == 1 and str(name_or_path) not in ("", ".", "..") and folder.is_dir():
        return _newest_version(folder)
    known = ", ".join(list_models(repository)) or "none"
    raise ModelError(
        f"model {str(name_or_path)!r} not found; give a name (here: {known}) or the path of a {MODEL_FILE} "
        f"that has a {DESCRIPTION_FILE} beside it"
    )


def _newest_version(folder: Path) -> Path:
    versions = _versions(folder)
    if not versions:
        raise ModelError(f"{folder} holds no VERSION/{MODEL_FILE}; a model is a folder NAME/VERSION/{MODEL_FILE}")
    return versions[0]


def _versions(folder: Path) -> list[Path]:
    versions = [p for p in folder.iterdir() if p.name.isdecimal() and (p / MODEL_FILE).exists()]
    return sorted(versions, key=lambda p: int(p.name), reverse=True)


def _load_folder(folder: Path) -> ModelEntry:
    model, card = folder / MODEL_FILE, folder / DESCRIPTION_FILE
    for path in (model, card):
        if not path.is_file():
            raise ModelError(f"{path} is missing; a model needs both {MODEL_FILE} and {DESCRIPTION_FILE}")
    try:
        description = ModelDescription.model_validate_json(card.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ModelError(f"{card} is not a valid description: {where}: {first['msg']}") from error
    _check_hash(model, description.sha256, "export or copy both again")
    return ModelEntry(model, description)


def _check_hash(path: Path, stated: str | None, remedy: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != stated:
        raise ModelError(
            f"{path} has SHA-256 {found[:12]}..., its description says {str(stated)[:12]}...; "
            f"the file was changed or damaged: {remedy}"
        )
