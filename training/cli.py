"""``emboundary-train``: fit, evaluate, compare, export, experiment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from emboundary.model.export import ExportError
from emboundary.model.weights import WeightsError
from emboundary.service.errors import EmboundaryError
from emboundary.training import commands
from emboundary.training.checkpoint import CheckpointError
from emboundary.training.config import ConfigError
from emboundary.training.data import DataError

app = typer.Typer(
    name="emboundary-train",
    help="Train, score, compare and export the networks of emboundary.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path, typer.Option(help="Folder of the training data; the configuration's paths are relative to it.")]
Sections = Annotated[str, typer.Option(help="Held-out sections FIRST:STOP of the volume.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda; cuda never falls back.")]

_EXPECTED = (
    CheckpointError,
    ConfigError,
    DataError,
    EmboundaryError,
    ExportError,
    FloatingPointError,
    WeightsError,
)


def main() -> None:
    """Entry point: one clear line on stderr instead of a traceback, exit code 1, for everything expected."""
    try:
        app()
    except _EXPECTED as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"emboundary-train: {error}", markup=False)
        sys.exit(error.exit_code if isinstance(error, EmboundaryError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def fit(
    config: Annotated[Path, typer.Argument(help="TOML configuration, e.g. training/configs/d4.toml.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run there is resumed.")],
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores if not given.")] = None,
) -> None:
    """Train one network."""
    commands.fit(config, data, out, device=device, threads=threads)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[Path, typer.Option(help="Model repository; NAME/VERSION is made inside it.")],
    summary: Annotated[str, typer.Option(help="One sentence for people who choose a model.")],
    data: Data,
    sections: Sections,
    version: Annotated[int, typer.Option(min=1, help="Version of the model.")] = 1,
) -> None:
    """Turn a finished run into an ONNX model with its description, scored on held-out sections."""
    commands.export(run, to, summary=summary, data=data, sections=commands.parse_sections(sections), version=version)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Bundled model's name, or the path of a model.onnx.")],
    data: Data,
    sections: Sections,
    config: Annotated[Path, typer.Option(help="Configuration whose first volume is scored.")],
    tta: Annotated[bool, typer.Option(help="8x test-time augmentation.")] = False,
) -> None:
    """Score one model on held-out sections; one JSON object on stdout."""
    commands.evaluate(model, data, config, commands.parse_sections(sections), tta=tta)


@app.command()
def compare(
    data: Data,
    config: Annotated[Path, typer.Option(help="Configuration whose first volume is scored.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the pictures; made if missing.")],
    sections: Sections = "13:16",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of timing.")] = 5,
    device: Device = "auto",
) -> None:
    """Compare the bundled models and the baselines with 8x test-time augmentation in one run."""
    commands.compare(data, config, out, sections=commands.parse_sections(sections), rounds=rounds, device=device)


@app.command()
def experiment(
    file: Annotated[Path, typer.Argument(help="TOML file, e.g. training/experiments/stem.toml.")],
    data: Data,
    runs: Annotated[Path, typer.Option(help="Folder of the variants' runs; finished ones are not trained again.")],
    out: Annotated[Path, typer.Option(help="Folder for the Markdown and JSON tables.")],
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores if not given.")] = None,
) -> None:
    """Train and score the variants of an experiment, and write down what was measured."""
    commands.experiment(file, data, runs, out, device=device, threads=threads)
