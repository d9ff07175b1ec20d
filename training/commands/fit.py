"""``emboundary-train fit``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from emboundary.model.description import ModelDescription
from emboundary.model.footprint import count_parameters
from emboundary.service.engine import Device
from emboundary.service.errors import UsageError
from emboundary.service.run.request import parse_voxel_size
from emboundary.training.commands.convert import precision_lines
from emboundary.training.commands.shared import console, parse_sections, torch_device
from emboundary.training.config import TrainConfig, load_config
from emboundary.training.learning.arithmetic import slow_precision
from emboundary.training.learning.progress import training_progress
from emboundary.training.learning.runs import fit as fit_run
from emboundary.training.own_data import Told, own_config
from emboundary.training.publishing import Provenance, held_out, publish

MODEL = "model"
VERSION = "1"
_HERE = Path()


@dataclass(frozen=True)
class Typed:
    """Options of ``fit`` that take the place of a configuration, as they were typed; see ``own_data.Told``."""

    raw: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    membranes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    voxel_size: tuple[str, ...] = ()
    citation: tuple[str, ...] = ()
    start: str | None = None
    model: str | None = None
    steps: int | None = None
    learning_rate: float | None = None
    name: str | None = None
    seed: int | None = None

    def told(self) -> Told:
        """The same, read.

        Raises:
            UsageError: names the option that cannot be read.
        """
        sizes = (parse_voxel_size(size) for size in self.voxel_size)
        return Told(
            raw=self.raw,
            labels=self.labels,
            membranes=self.membranes,
            sections=tuple(parse_sections(text) for text in self.sections),
            validation=tuple(parse_sections(text, "validation") for text in self.validation),
            voxel_sizes_nm=tuple(size for size in sizes if size is not None),
            citations=self.citation,
            start=self.start,
            model=self.model,
            steps=self.steps,
            learning_rate=self.learning_rate,
        )


def configuration(config: Path | None, data: Path | None, out: Path, typed: Typed) -> tuple[TrainConfig, Path]:
    """The configuration, from a file or from volumes that were named, and the folder that its paths are relative to.

    Raises:
        UsageError: both ways at once, or neither.
        ConfigError, DataError: see ``load_config`` and ``own_config``.
    """
    if config is None:
        if not typed.raw:
            raise UsageError(
                "neither CONFIG nor --raw is given; give CONFIG with --data DIR, or --raw VOLUME with --labels or "
                "--membranes VOLUME"
            )
        if data is not None:
            raise UsageError("--data goes with CONFIG; --raw names its volume by itself: leave --data out")
        return own_config(typed.told(), name=typed.name or out.absolute().name, seed=typed.seed or 0), _HERE
    other = [f.name for f in fields(typed) if getattr(typed, f.name) != f.default]
    if other:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in other)
        raise UsageError(f"{options} and CONFIG exclude each other; write it into {config}, or leave CONFIG out")
    if data is None:
        raise UsageError("--data is missing; CONFIG needs the folder that its paths are relative to")
    return load_config(config), data


def fit(
    config: TrainConfig, data: Path, out: Path, *, provenance: Provenance, device: Device, threads: int | None
) -> None:
    """Train one configuration, score it on its validation sections, and leave ``OUT/model`` beside the run's files."""
    where = torch_device(device, threads)
    slow = slow_precision(config, where)
    if slow is not None:
        console.print(slow)
    with training_progress(config.name, console) as report:
        run = fit_run(config, data, out, device=where, report=report)
    console.print(f"{config.name}: {count_parameters(run.network):,} parameters, weights in {out}")
    model = out / MODEL
    if not model.exists():
        kept = any(volume.validation is not None for volume in config.data)
        chosen = held_out(config, None, None, origin=f"run {out}") if kept else ()
        described = publish(
            run, model, version=VERSION, provenance=provenance, data=data, chosen=chosen, report=console.print
        )
        for line in (*figure_lines(described), *precision_lines(described)):
            console.print(line)
    console.print(f"model in {model}: emboundary predict INPUT OUTPUT --model {model}")


def figure_lines(description: ModelDescription) -> list[str]:
    """The figures of a model, one line for each volume; what to do where there are none."""
    if not description.validation:
        return ["not scored: no sections were kept for validation"]
    return [
        f"{v.protocol.partition(',')[0]}: AUC {v.roc_auc:.5f}, average precision {v.average_precision:.4f}, "
        f"V_rand {v.v_rand:.4f}"
        for v in description.validation
    ]
