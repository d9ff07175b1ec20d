"""``emboundary-train``: fit, evaluate, compare, export, experiment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from emboundary.service import console
from emboundary.service.engine import Device
from emboundary.training.commands import compare as compare_command
from emboundary.training.commands import evaluate as evaluate_command
from emboundary.training.commands import experiment as experiment_command
from emboundary.training.commands import export as export_command
from emboundary.training.commands import fit as fit_command
from emboundary.training.commands.shared import parse_sections

NAME = "emboundary-train"

Data = Annotated[Path, typer.Option(help="Folder of the training data; the configuration's paths are relative to it.")]
Sections = Annotated[str, typer.Option(help="Held-out sections FIRST:STOP of the volume.")]
DeviceChoice = Annotated[Device, typer.Option(help="auto takes a GPU if one works; cuda never falls back to the CPU.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores if not given.")]


def create_cli() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(
        help="Train, score, compare and export the networks of emboundary.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for command in (fit, evaluate, compare, export, experiment):
        app.command()(command)
    return app


def main() -> None:
    """Entry point of the command ``emboundary-train``."""
    sys.exit(console.run(create_cli(), NAME, sys.argv[1:]))


def fit(
    config: Annotated[Path, typer.Argument(help="TOML configuration, e.g. training/configs/d4.toml.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run there is resumed.")],
    device: DeviceChoice = "auto",
    threads: Threads = None,
) -> None:
    """Train one network."""
    fit_command.fit(config, data, out, device=device, threads=threads)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[Path, typer.Option(help="Model repository; NAME/VERSION is made inside it.")],
    summary: Annotated[str, typer.Option(help="One sentence for people who choose a model.")],
    data: Data,
    sections: Sections,
    version: Annotated[int, typer.Option(min=1, help="Version of the model.")] = 1,
) -> None:
    """Turn a finished run into an ONNX model with its description, scored on held-out sections."""
    export_command.export(run, to, summary=summary, data=data, sections=parse_sections(sections), version=version)


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundled model's name, or the path of a model.onnx.")],
    data: Data,
    sections: Sections,
    config: Annotated[Path, typer.Option(help="Configuration whose first volume is scored.")],
    tta: Annotated[bool, typer.Option(help="8x test-time augmentation.")] = False,
) -> None:
    """Score one model on held-out sections; one JSON object on stdout."""
    evaluate_command.evaluate(model, data, config, parse_sections(sections), tta=tta)


def compare(
    data: Data,
    runs: Annotated[Path, typer.Option(help="Folder of the study's runs; finished ones are not trained again.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.md and its pictures; made if missing.")],
    study: Annotated[Path | None, typer.Option(help="TOML file; training/studies/small.toml if not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in a process of its own.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each; its share if not given.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of timing.")] = 5,
    device: DeviceChoice = "auto",
    finished_only: Annotated[
        bool, typer.Option("--finished-only", help="Train nothing; list what is missing.")
    ] = False,
) -> None:
    """Train, score and time the runs of a study, and write down what was measured."""
    compare_command.compare(
        data,
        runs,
        out,
        study=study,
        jobs=jobs,
        threads=threads,
        rounds=rounds,
        device=device,
        finished_only=finished_only,
    )


def experiment(
    file: Annotated[Path, typer.Argument(help="TOML file, e.g. training/experiments/stem.toml.")],
    data: Data,
    runs: Annotated[Path, typer.Option(help="Folder of the variants' runs; finished ones are not trained again.")],
    out: Annotated[Path, typer.Option(help="Folder for the Markdown and JSON tables.")],
    device: DeviceChoice = "auto",
    threads: Threads = None,
) -> None:
    """Train and score the variants of an experiment, and write down what was measured."""
    experiment_command.experiment(file, data, runs, out, device=device, threads=threads)
