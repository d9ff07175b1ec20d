"""What is measured, as it is stored; everything on the page is computed from these records alone.

``scores.json``
    in each run's folder: ``RunScores``
``timing.json``
    in the study's folder of runs: ``Timing``
``results.json``
    beside the page: ``Results``, all of it together
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from emboundary.service.errors import EmboundaryError
from emboundary.training.strict import Strict

SCORES, TIMING, RESULTS = "scores.json", "timing.json", "results.json"

# Raised whenever a figure is measured in another way, so that older records are measured again.  By the first protocol
# the threshold of V_rand and V_info was the best on the scored sections themselves.
PROTOCOL = 2

Passes = Literal[1, 8]


class RecordError(EmboundaryError):
    """A record that cannot be read."""


class Environment(Strict):
    """What it was measured with: versions of packages, the processor, and the device."""

    versions: dict[str, str]
    processor: str
    cores: int
    device: str


class Curve(Strict):
    """Points of a ROC and of a precision-recall curve at the same thresholds, few enough to be stored."""

    false_positive_rate: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]


class Halves(Strict):
    """A score of the thinned map at a threshold, with its two halves; see ``metrics.SplitMerge``."""

    split: float
    merge: float
    f: float
    threshold: float


class MapScores(Strict):
    """All scores of one map.

    Attributes:
        volume, sections: what was mapped, ``[first, stop)``.
        passes: 1, or 8 for the mean over the 8 rotations and flips.
        cross_entropy: mean over the pixels, in nats: the loss on held-out sections.
        v_rand, v_info: of the thinned map, at the threshold that was chosen on training sections.
        seconds: for the whole map, whatever else the machine did.
    """

    volume: str
    sections: tuple[int, int]
    passes: Passes
    roc_auc: float
    average_precision: float
    best_f1: float
    best_f1_threshold: float
    cross_entropy: float
    v_rand: Halves
    v_info: Halves
    seconds: float
    curve: Curve


class RunScores(Strict):
    """Scores of one run's maps, and the weights that they are of."""

    protocol: int
    weights_sha256: str
    environment: Environment
    maps: tuple[MapScores, ...]


class LossCurve(Strict):
    """The training loss, means over as many steps as lie between two entries of ``steps``."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]


class RunRecord(Strict):
    """One finished run of the study."""

    series: str
    model: str
    seed: int
    scores: RunScores
    loss: LossCurve


class SeriesRecord(Strict):
    """One series of the study, finished or not.

    Attributes:
        pixels: of the crops that each run learned from.
        train, score: volumes with their sections, ``[first, stop)``.
        limited: its training sections were limited, to see what scarce data do.
        joins: key of an earlier series that differs in models and seeds alone: both are one experiment.
    """

    key: str
    title: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    pixels: int
    train: dict[str, tuple[int, int]]
    score: dict[str, tuple[int, int]]
    limited: bool
    joins: str | None = None


class TimingRow(Strict):
    """One model with its passes.

    Attributes:
        seconds: for one section, one value a round.
        equivariance_error: largest ``|f(g x) - g f(x)|`` in probability over the 8 rotations and flips.
        training_pixels_per_second: of crops, one value a round; empty but at one pass.
    """

    model: str
    passes: Passes
    weights_sha256: str
    parameters: int
    flops_per_pixel: float
    seconds: tuple[float, ...]
    equivariance_error: float
    training_pixels_per_second: tuple[float, ...]


class Timing(Strict):
    """Seconds of the first seed's engines of the first series.

    Attributes:
        volume, shape: the section that was mapped, and its (y, x).
        threads: of torch, in training.
    """

    protocol: int
    environment: Environment
    volume: str
    shape: tuple[int, int]
    threads: int
    rows: tuple[TimingRow, ...]


class Results(Strict):
    """All records of a study.

    Attributes:
        study: its file's name.
        caveats: what the figures do not show, as the study's file says it.
        missing: folders of the runs that are not finished.
    """

    question: str
    study: str
    caveats: tuple[str, ...] = ()
    series: tuple[SeriesRecord, ...]
    runs: tuple[RunRecord, ...]
    missing: tuple[str, ...]
    timing: Timing | None


Record = TypeVar("Record", bound=BaseModel)


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """Read a record; None where there is none, or one of an older form, to be measured again.

    Raises:
        RecordError: a file that cannot be read.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}; remove it to have it measured again") from error


def environment(device: str) -> Environment:
    """What is measured with, here and now."""
    packages = ("emboundary", "numpy", "onnxruntime", "scikit-image", "scipy", "torch")
    versions = {"python": platform.python_version(), **{name: _version(name) for name in packages}}
    return Environment(versions=versions, processor=_processor(), cores=len(os.sched_getaffinity(0)), device=device)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # onnxruntime has another name where it is built for GPUs
        try:
            return f"{version(package + '-gpu')} (GPU)"
        except PackageNotFoundError:
            return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
