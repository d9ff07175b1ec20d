"""What the weights that training began with bring along: what they have seen already, and their licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emboundary.model.description import TrainingData
from emboundary.model.repository import DESCRIPTION_FILE
from emboundary.service.engine import find_model
from emboundary.training.config import DataConfig, TrainConfig, load_config
from emboundary.training.learning.runs import CONFIG
from emboundary.training.strict import ConfigError

UNSTATED = "not stated: ask whoever gave you the weights"

_PACKAGE = Path(__file__).parent
# As training/starts/README.md says.
_STARTS_LICENCE = "CC BY-NC-SA 3.0 (non-commercial, attribution, share alike), as the training data ask"


@dataclass(frozen=True)
class Origin:
    """Of the weights that a training begins with.

    Attributes:
        training: what they learned from.
        name: of the weights or of their model.
        licence: theirs.
    """

    training: tuple[TrainingData, ...]
    name: str
    licence: str

    def joined_to(self, licence: str) -> str:
        """The licence of a model that began with these weights, where its makers give it one."""
        return licence if licence == self.licence else f"{licence}; training began with {self.name}: {self.licence}"


def learned_from(config: TrainConfig) -> tuple[TrainingData, ...]:
    """The volumes and sections that a configuration trains on."""
    return tuple(
        TrainingData(name=d.name, sections=f"{d.sections[0]}:{d.sections[1]}", citation=d.citation) for d in config.data
    )


def origin_of(start: str | None) -> Origin | None:
    """Find out about the weights that ``TrainConfig.start`` names; None where they are random.

    A model's description tells it, or the configuration of the run that weights lie in; of weights by themselves
    nothing is known.

    Raises:
        ModelUnavailableError: a model that is not there any more, or is damaged.
        ConfigError: a run's configuration that cannot be read.
    """
    if start is None:
        return None
    weights = Path(start)
    if weights.suffix != ".safetensors":
        return _of_model(start)
    if _is_packaged(weights):
        first_stage = load_config(_PACKAGE / "configs" / f"vnc-{weights.stem}.toml")
        return Origin(learned_from(first_stage), start, _STARTS_LICENCE)
    if weights.with_name(DESCRIPTION_FILE).exists():
        return _of_model(weights.parent)
    if weights.with_name(CONFIG).exists():
        before = load_config(weights.with_name(CONFIG))
        first = origin_of(before.start)
        if first is None:
            return Origin(learned_from(before), before.name, UNSTATED)
        return Origin((*first.training, *learned_from(before)), before.name, first.joined_to(UNSTATED))
    unknown = TrainingData(
        name=weights.name, sections="unknown", citation="training began with these weights; what they saw is not known"
    )
    return Origin((unknown,), weights.name, UNSTATED)


def _is_packaged(weights: Path) -> bool:
    packaged = _PACKAGE / "starts" / weights.name
    if weights.exists():
        return packaged.exists() and weights.samefile(packaged)
    return weights == packaged.relative_to(_PACKAGE)


def _of_model(model: str | Path) -> Origin:
    began = find_model(model).description
    return Origin(began.training, f"{began.name}, version {began.version}", began.weights_licence)


def refuse_learned(
    model: str, training: Sequence[TrainingData], chosen: Sequence[tuple[DataConfig, tuple[int, int]]]
) -> None:
    """Refuse to score a model on sections that it is said to have been trained on; volumes are told by name.

    Args:
        model: what to call it in errors.
        training: what it was trained on.
        chosen: volumes and the sections ``[first, stop)`` that are to be scored.

    Raises:
        ConfigError: names the model, the volume, and the sections.
    """
    for volume, (first, stop) in chosen:
        for seen in training:
            known = seen.sections.split(":")
            if seen.name != volume.name or not all(part.isdecimal() for part in known) or len(known) != 2:
                continue
            if first < int(known[1]) and int(known[0]) < stop:
                raise ConfigError(
                    f"{model} was trained on sections {seen.sections} of {seen.name}, and is to be scored on "
                    f"{first}:{stop}; give sections that it has never seen"
                )
