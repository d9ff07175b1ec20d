"""``emboundary-train``: fit, evaluate, compare, export, convert, examine, experiment, campaign, teach, scoreboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from emboundary.model.description import Precision, Storage
from emboundary.service import console
from emboundary.service.engine import Device
from emboundary.service.errors import UsageError
from emboundary.training.commands import campaign as campaign_command
from emboundary.training.commands import compare as compare_command
from emboundary.training.commands import convert as convert_command
from emboundary.training.commands import evaluate as evaluate_command
from emboundary.training.commands import examine as examine_command
from emboundary.training.commands import experiment as experiment_command
from emboundary.training.commands import export as export_command
from emboundary.training.commands import fit as fit_command
from emboundary.training.commands import scoreboard as scoreboard_command
from emboundary.training.commands import teach as teach_command
from emboundary.training.commands.shared import parse_sections
from emboundary.training.origins import UNSTATED
from emboundary.training.own_data import NETWORKS
from emboundary.training.publishing import Provenance

NAME = "emboundary-train"
UNSUMMARISED = "Trained by emboundary-train fit."

Data = Annotated[Path, typer.Option(help="Folder of the training data; the configuration's paths are relative to it.")]
Sections = Annotated[str, typer.Option(help="Held-out sections FIRST:STOP of the volume.")]
HeldOutSections = Annotated[
    str | None, typer.Option(metavar="A:B", help="Held-out sections.  [default: each volume's validation sections]")
]
OneVolume = Annotated[str | None, typer.Option(help="Score only this volume of the configuration.")]
Licence = Annotated[str, typer.Option(help="Of the weights; that of the model that training began with is added.")]
DeviceChoice = Annotated[Device, typer.Option(help="auto takes a GPU if one works; cuda never falls back to the CPU.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores if not given.")]
ThreadsOfEach = Annotated[int | None, typer.Option(min=1, help="CPU threads of each; its share if not given.")]


def create_cli() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(
        help="Train, score, compare and export the networks of emboundary.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for command in (fit, evaluate, compare, export, convert, examine, experiment, campaign, teach, scoreboard):
        app.command()(command)
    return app


def main() -> None:
    """Entry point of the command ``emboundary-train``."""
    sys.exit(console.run(create_cli(), NAME, sys.argv[1:]))


def fit(
    config: Annotated[
        Path | None, typer.Argument(help="TOML configuration, e.g. training/configs/d4.toml; or give --raw.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that the configuration's paths are relative to; goes with CONFIG.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run there is resumed.")],
    raw: Annotated[
        list[str] | None, typer.Option(metavar="VOLUME", help="Your own volume of grey values; several: repeat it.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="VOLUME", help="Neuron ids of --raw; boundary is 0 and where two meet.")
    ] = None,
    membranes: Annotated[
        list[str] | None, typer.Option(metavar="VOLUME", help="Boundary map of --raw; above 0 is boundary.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH|none", help="Model whose weights training begins with.  [default: d4]"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|TOML", help=f"Network, where it is another: {', '.join(NETWORKS)}.")
    ] = None,
    sections: Annotated[
        list[str] | None, typer.Option(metavar="A:B", help="Trained on.  [default: all but --validation]")
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(metavar="A:B", help="Kept for scoring.  [default: the last fifth]")
    ] = None,
    voxel_size: Annotated[
        list[str] | None, typer.Option(metavar="Z,Y,X", help="In nm.  [default: what the file says]")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of training.  [default: as own.toml says]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Its peak.  [default: as own.toml says]")] = None,
    name: Annotated[str | None, typer.Option(help="Of the model.  [default: that of OUT]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the crops and their changes.  [default: 0]")] = None,
    citation: Annotated[list[str] | None, typer.Option(help="Whom to cite for the data.")] = None,
    licence: Licence = UNSTATED,
    summary: Annotated[str, typer.Option(help="One sentence for people who choose a model.")] = UNSUMMARISED,
    device: DeviceChoice = "auto",
    threads: Threads = None,
) -> None:
    """Train one network, by a configuration or on your own volumes; OUT/model is the model."""
    typed = fit_command.Typed(
        raw=tuple(raw or ()),
        labels=tuple(labels or ()),
        membranes=tuple(membranes or ()),
        sections=tuple(sections or ()),
        validation=tuple(validation or ()),
        voxel_size=tuple(voxel_size or ()),
        citation=tuple(citation or ()),
        start=start,
        model=model,
        steps=steps,
        learning_rate=learning_rate,
        name=name,
        seed=seed,
    )
    parsed, root = fit_command.configuration(config, data, out, typed)
    fit_command.fit(parsed, root, out, provenance=Provenance(summary, licence), device=device, threads=threads)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[Path, typer.Option(help="Model repository; NAME/VERSION is made inside it.")],
    summary: Annotated[str, typer.Option(help="One sentence for people who choose a model.")],
    data: Data,
    sections: HeldOutSections = None,
    volume: OneVolume = None,
    licence: Licence = UNSTATED,
    used_for: Annotated[
        str, typer.Option(metavar="TEXT", help="For the card: what else the scored sections served for.")
    ] = "",
    fails: Annotated[Path | None, typer.Option(help="Markdown file for the card: where the model fails.")] = None,
    picture: Annotated[
        list[Path] | None, typer.Option(help="Picture that the card links to; several: repeat it.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="results.json of compare: the spread over seeds is taken from it.")
    ] = None,
    storage: Annotated[
        Storage, typer.Option(help="How the file holds its weights; arithmetic stays float32.")
    ] = "float32",
    version: Annotated[int, typer.Option(min=1, help="Version of the model.")] = 1,
) -> None:
    """Turn a finished run into an ONNX model with its description and card, scored on held-out sections."""
    export_command.export(
        run,
        to,
        data=data,
        provenance=export_command.provenance(summary, licence, used_for, fails, tuple(picture or ())),
        sections=None if sections is None else parse_sections(sections),
        volume=volume,
        figures=figures,
        version=version,
        storage=storage,
    )


def convert(
    model: Annotated[str, typer.Argument(help="Bundled model's name, or the path of a model.onnx.")],
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="float16|int8", help="Several: repeat it.  [default: float16; int8 as well with --images]"
        ),
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(metavar="VOLUME", help="Like those it was trained on; several: repeat it.")
    ] = None,
    sections: Annotated[
        list[str] | None, typer.Option(metavar="A:B", help="Of --images, those it was trained on.  [default: all]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make precisions again that are there.")] = False,
) -> None:
    """Add float16 for GPUs and int8 for CPUs to an exported model, measured against float32."""
    convert_command.convert(model, precision or (), images or (), sections or (), overwrite=overwrite)


def examine(
    model: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A model's name, its path, or a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder for the page, its figures as JSON, and the pictures.")],
    images: Annotated[
        list[str] | None, typer.Option(metavar="VOLUME", help="Several: repeat it.  [default: synthetic membranes]")
    ] = None,
    sections: Annotated[list[str] | None, typer.Option(metavar="A:B", help="Of --images.  [default: all]")] = None,
) -> None:
    """Measure symmetry, Lipschitz constant, stability, and the worst rotation and translation."""
    examine_command.examine_model(model, out, images or (), sections or ())


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundled model's name, or the path of a model.onnx.")],
    data: Data,
    config: Annotated[Path, typer.Option(help="Configuration whose volumes are scored.")],
    sections: HeldOutSections = None,
    volume: OneVolume = None,
    tta: Annotated[bool, typer.Option(help="8x test-time augmentation.")] = False,
    precision: Annotated[Precision, typer.Option(help="One that the model offers.")] = "float32",
) -> None:
    """Score one model on held-out sections; one JSON object on stdout."""
    held_out = None if sections is None else parse_sections(sections)
    evaluate_command.evaluate(model, data, config, sections=held_out, volume=volume, tta=tta, precision=precision)


def compare(
    data: Data,
    runs: Annotated[Path, typer.Option(help="Folder of the study's runs; finished ones are not trained again.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.md and its pictures; made if missing.")],
    study: Annotated[Path | None, typer.Option(help="TOML file; training/studies/small.toml if not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in a process of its own.")] = 1,
    threads: ThreadsOfEach = None,
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
    name: Annotated[str, typer.Argument(help="Name of a bundled experiment, e.g. rotated-mnist, or a TOML file.")],
    data: Data,
    runs: Annotated[
        Path, typer.Option(help="Folder of the variants' runs; finished ones are not trained again.")
    ] = Path("runs"),
    out: Annotated[Path, typer.Option(help="Folder for the page, the JSON record and the pictures.")] = Path(
        "experiments"
    ),
    budget: Annotated[
        str | None,
        typer.Option(help="smoke (seconds), cpu (tens of minutes on 2 cores) or full (GPU), where the file has them."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Only this variant; several: repeat it.")
    ] = None,
    device: DeviceChoice = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Variants at a time, each in a process of its own.")] = 1,
    threads: ThreadsOfEach = None,
) -> None:
    """Train and score the variants of an experiment, and write down what was measured."""
    experiment_command.experiment(
        name, data, runs, out, budget=budget, only=only or [], device=device, jobs=jobs, threads=threads
    )


def campaign(
    file: Annotated[Path, typer.Argument(help="TOML file.  [default: the flagship's]", show_default=False)] = (
        campaign_command.FLAGSHIP
    ),
    data: Annotated[Path | None, typer.Option(help="Folder of the training data; needed to train.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the campaign's state, which goes on from what is there.")] = (
        Path("runs/flagship")
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Processes, each with cores of its own.")] = 1,
    threads: ThreadsOfEach = None,
    device: DeviceChoice = "auto",
    status: Annotated[bool, typer.Option("--status", help="Only say how far each model is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --status: as one JSON list.")] = False,
    anneal: Annotated[bool, typer.Option("--anneal", help="Only anneal every model from where it is.")] = False,
    keep_starts: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Only write weights for a start on another machine.")
    ] = None,
    starts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Weights to begin with where there is no state.  [default: those that FILE names]"
        ),
    ] = None,
) -> None:
    """Train several models in turns for as long as there is time; SIGTERM stops it in 10 s, to go on later."""
    if status:
        campaign_command.status(file, runs, as_json=as_json)
    elif anneal:
        campaign_command.anneal(file, runs)
    elif keep_starts is not None:
        campaign_command.keep_starts(file, runs, keep_starts)
    elif data is None:
        raise UsageError("--data is missing; training needs the folder of the volumes")
    else:
        campaign_command.campaign(file, runs, data, starts=starts, device=device, jobs=jobs, threads=threads)


def teach(
    config: Annotated[Path, typer.Argument(help="Configuration; volumes with `soft` are mapped, labelled or not.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the maps, and for the configuration that learns from them.")],
    teacher: Annotated[
        list[str], typer.Option(metavar="NAME|PATH", help="Model, finished run, or .safetensors; several: repeat it.")
    ],
) -> None:
    """Map volumes with trained networks, 8 passes where one is not exact, for another to learn from their mean."""
    teach_command.teach(config, data, out, teacher)


def scoreboard(
    file: Annotated[Path, typer.Argument(help="TOML file, e.g. training/scoreboards/bundled.toml.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for NAME.json and NAME.md; what is measured there is kept.")],
    device: DeviceChoice = "auto",
) -> None:
    """Score models with 1 pass or 8 by one rule, thresholds from training sections; nothing is measured twice."""
    scoreboard_command.scoreboard(file, data, out, device=device)
