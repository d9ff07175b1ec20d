"""``emboundary models``: the bundled models, with what they promise."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emboundary.model.description import ModelDescription
from emboundary.model.repository import ZOO, ModelError, list_models, load_model
from emboundary.service.commands import options
from emboundary.service.errors import ModelUnavailableError


def models(as_json: options.AsJson = False) -> None:
    """List the bundled models, the default first."""
    try:
        found = [load_model(name, ZOO).description for name in list_models(ZOO)]
    except (ModelError, OSError) as error:
        raise ModelUnavailableError(str(error)) from error
    if as_json:
        typer.echo(json.dumps({"models": [description.model_dump(mode="json") for description in found]}))
    else:
        console = Console()
        console.print(_table(found))
        for description in found:
            weights = f"{description.summary} (weights: {description.weights_licence})"
            console.print(f"[bold]{description.name}[/]  {escape(weights)}", soft_wrap=True)
            console.print(escape(_precisions(description)), soft_wrap=True)


def _precisions(model: ModelDescription) -> str:
    """What ``--precision`` takes, with the most that a probability differs."""
    offered = (f"{name} (within {tolerance:g})" for name, tolerance in model.precisions.items())
    return f"  precisions: {', '.join(offered)}"


def _table(models: list[ModelDescription]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for title in ("model", "version", "symmetry", "error", "parameters", "kFLOP/px", "halo", "AUC", "AP"):
        table.add_column(title, no_wrap=True)
    for model in models:
        table.add_row(
            model.name,
            model.version,
            model.symmetry.group,
            f"{model.symmetry.error:.1e}",
            f"{model.parameters:,}",
            f"{model.flops_per_pixel / 1000:.1f}",
            "x".join(str(n) for n in model.halo),
            "\n".join(f"{v.roc_auc:.5f}" for v in model.validation),
            "\n".join(f"{v.average_precision:.4f}" for v in model.validation),
        )
    return table
