"""``emboundary-train campaign``."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from emboundary.model.weights import save_segmenter
from emboundary.service.engine import Device
from emboundary.training.campaign.plan import ANNEALED, CAMPAIGNS, Campaign, Contestant, load_campaign
from emboundary.training.campaign.running import run_campaign
from emboundary.training.campaign.working import STEP_KEY
from emboundary.training.commands.shared import console, torch_device
from emboundary.training.learning.checkpoint import averaged_segmenter, branch_off
from emboundary.training.learning.loop import CHECKPOINT
from emboundary.training.learning.runs import WEIGHTS
from emboundary.training.storing import storing

FLAGSHIP = CAMPAIGNS / "flagship.toml"


def campaign(
    path: Path, folder: Path, data: Path, *, starts: Path | None, device: Device, jobs: int, threads: int | None
) -> None:
    """Train all models in turns; ``starts`` take the place of those that the file names."""
    where = torch_device(device)
    loaded = load_campaign(path, folder)
    for line in lines(loaded):
        console.print(line)
    run_campaign(
        path, folder, data, console, starts=starts or loaded.starts, device=where.type, jobs=jobs, threads=threads
    )


def anneal(path: Path, folder: Path) -> None:
    """Let a branch leave every trunk where it is; the campaign, which may be running, takes it up."""
    for contestant in load_campaign(path, folder).contestants:
        done = contestant.steps_done()
        if not done:
            continue
        branch = contestant.branch_at(round(done / (1 - contestant.config.optimiser.decay)))
        made = contestant.folder_of(branch)
        if not (made / CHECKPOINT).exists():
            branch_off(contestant.trunk / CHECKPOINT, made / CHECKPOINT, contestant.config_of(branch))
        console.print(f"{contestant.name}: to be annealed from step {done:,} to {branch.steps:,}, in {made}")


def keep_starts(path: Path, folder: Path, to: Path) -> None:
    """Write every trunk's averaged weights at half precision, as a start on another machine."""
    for contestant in load_campaign(path, folder).contestants:
        if not contestant.steps_done():
            continue
        network, step = averaged_segmenter(contestant.trunk / CHECKPOINT, contestant.config.model.spec())
        kept = to / f"{contestant.name}.safetensors"
        with storing(kept) as partial:
            save_segmenter(network, partial, half=True, notes={STEP_KEY: str(step)})
        console.print(f"{contestant.name}: step {step:,}, {kept.stat().st_size:,} bytes in {kept}")


def status(path: Path, folder: Path, *, as_json: bool) -> None:
    """How far every model is, on stdout."""
    loaded = load_campaign(path, folder)
    if as_json:
        typer.echo(json.dumps([how_far(contestant) for contestant in loaded.contestants]))
        return
    for line in lines(loaded):
        typer.echo(line)


def how_far(contestant: Contestant) -> dict[str, str | int]:
    """How far one model is."""
    done = contestant.steps_done()
    steps = contestant.config.optimiser.steps
    return {"model": contestant.name, "steps": done, "of": steps, "pixels": done * contestant.pixels_per_step}


def lines(loaded: Campaign) -> list[str]:
    """How far every model is, one line each."""
    made = []
    for contestant in loaded.contestants:
        done = contestant.steps_done()
        finished = sorted(
            int(f.parent.name.removeprefix(ANNEALED)) for f in contestant.folder.glob(f"{ANNEALED}*/{WEIGHTS}")
        )
        annealed = ", ".join(f"{steps * contestant.pixels_per_step / 1e6:,.0f}" for steps in finished) or "nowhere yet"
        made.append(
            f"{contestant.name}: step {done:,} of {contestant.config.optimiser.steps:,}, "
            f"{done * contestant.pixels_per_step / 1e6:,.0f} million pixels; annealed at {annealed}"
        )
    return made
