"""What a scoreboard compares.

    title = "The bundled models"
    config = "../configs/flagship.toml"  # its volumes: thresholds from training sections, scores on validation ones;
                                         # whatever else it says does not matter
    volumes = ["vnc", "fib25"]           # only these; all that have validation sections if not given
    reference = "plain + 8x"             # label of the entry that the others are held against
    interest = ["d4"]                    # labels whose shortfalls are in bold; all but the reference if not given
    used_for = "they also chose the recipe"  # what else the scored sections served for; or a table by volume:
    # [used_for]
    # vnc = "..."

    [[entries]]
    label = "d4"
    model = "d4"                         # a bundled model's name; or, relative to this file, the path of a model folder
                                         # or of a .safetensors file: anything with a "/" in it is a path
    [[entries]]
    label = "plain + 8x"
    model = "../../runs/plain/weights.safetensors"
    passes = 8                           # the mean over the 8 rotations and flips; 1 if not given

Every entry is measured on every volume; see ``page`` for how.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from emboundary.service.engine import find_model
from emboundary.training.comparing.records import Passes
from emboundary.training.config import DataConfig
from emboundary.training.origins import origin_of, refuse_learned
from emboundary.training.scoring.thresholds import Sections, choosing_sections
from emboundary.training.strict import ConfigError, Strict, read_based, read_table, validated

WEIGHTS_SUFFIX = ".safetensors"

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class EntryConfig(Strict):
    """A model and its passes; see the module."""

    label: str
    model: str
    passes: Passes = 1


class VolumesConfig(Strict):
    """The volumes of a training configuration, or of one that others stand on."""

    model_config = ConfigDict(extra="ignore")

    data: Annotated[tuple[DataConfig, ...], Field(strict=False, min_length=1)]


class ScoreboardConfig(Strict):
    """A scoreboard's file; see the module."""

    title: str
    config: str
    volumes: Names | None = None
    reference: str
    interest: Names | None = None
    used_for: str | dict[str, str]
    entries: Annotated[tuple[EntryConfig, ...], Field(strict=False, min_length=1)]


@dataclass(frozen=True)
class Entry:
    """A row of the scoreboard.

    Attributes:
        model: as the file names it.
        located: a bundled model's name, or the path of a model folder or of a ``.safetensors`` file.
        sha256: of ``model.onnx``, or of that file.
    """

    label: str
    model: str
    located: str
    sha256: str
    passes: Passes


@dataclass(frozen=True)
class Scored:
    """A volume.

    Attributes:
        sections: that are scored, ``[first, stop)``.
        chosen_on: the training sections on which thresholds are chosen.
        used_for: what else ``sections`` served for; empty where the scoreboard says one thing of all volumes.
    """

    data: DataConfig
    sections: Sections
    chosen_on: Sections
    used_for: str


@dataclass(frozen=True)
class Scoreboard:
    """A scoreboard's file, with everything that it names found and checked.

    Attributes:
        used_for: what else the scored sections of all volumes served for; empty where each has its own word.
    """

    title: str
    reference: str
    interest: tuple[str, ...]
    used_for: str
    volumes: tuple[Scored, ...]
    entries: tuple[Entry, ...]


def load_scoreboard(path: Path) -> Scoreboard:
    """Read a scoreboard's file.

    Raises:
        ConfigError: an unreadable file; a key, label or volume that does not exist; two entries of one label; a volume
            without validation sections or of which nothing is said in ``used_for``; sections that a model was trained
            on, as far as its description, or the run that it lies in, tells.
        ModelUnavailableError: a model that is not there, or is damaged.
    """
    origin = f"scoreboard {path}"
    read = validated(ScoreboardConfig, read_table(path), origin=origin)
    labels = [entry.label for entry in read.entries]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"{origin}: labels are {', '.join(labels)}; they must differ")
    for label in (read.reference, *(read.interest or ())):
        if label not in labels:
            raise ConfigError(f"{origin}: the entries are {', '.join(labels)}; {label} is none of them")
    config = path.parent / read.config
    volumes = _volumes(read, validated(VolumesConfig, read_based(config), origin=f"config {config}"), origin)
    entries = tuple(_entry(entry, path.parent) for entry in read.entries)
    for entry in entries:
        learned = origin_of(entry.located)
        assert learned is not None
        refuse_learned(learned.name, learned.training, [(volume.data, volume.sections) for volume in volumes])
    return Scoreboard(
        title=read.title,
        reference=read.reference,
        interest=read.interest or tuple(label for label in labels if label != read.reference),
        used_for=read.used_for if isinstance(read.used_for, str) else "",
        volumes=volumes,
        entries=entries,
    )


def _volumes(read: ScoreboardConfig, config: VolumesConfig, origin: str) -> tuple[Scored, ...]:
    known = {volume.name: volume for volume in config.data}
    names = read.volumes or tuple(name for name, volume in known.items() if volume.validation is not None)
    if not names:
        raise ConfigError(f"{origin}: no volume of {read.config} has validation sections; give them to one at least")
    if isinstance(read.used_for, dict) and set(read.used_for) != set(names):
        raise ConfigError(
            f"{origin}: used_for speaks of {', '.join(read.used_for) or 'nothing'}, scored are {', '.join(names)}; "
            "say of each volume what else its scored sections served for, or one thing of all"
        )
    return tuple(_scored(name, known, read, origin) for name in names)


def _scored(name: str, known: dict[str, DataConfig], read: ScoreboardConfig, origin: str) -> Scored:
    volume = known.get(name)
    if volume is None:
        raise ConfigError(f"{origin}: the volumes of {read.config} are {', '.join(known)}; {name} is none of them")
    if volume.validation is None:
        raise ConfigError(f"{origin}: {name} has no validation sections in {read.config}; give it some")
    used = read.used_for[name] if isinstance(read.used_for, dict) else ""
    return Scored(volume, volume.validation, choosing_sections(volume.sections), used)


def _entry(read: EntryConfig, folder: Path) -> Entry:
    located = str(folder / read.model) if "/" in read.model or read.model.endswith(WEIGHTS_SUFFIX) else read.model
    return Entry(read.label, read.model, located, _sha256(located), read.passes)


def _sha256(located: str) -> str:
    if located.endswith(WEIGHTS_SUFFIX):
        try:
            return hashlib.sha256(Path(located).read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"{located} cannot be read: {error.strerror}; give the path of weights") from error
    digest = find_model(located).description.sha256
    assert digest is not None
    return digest
