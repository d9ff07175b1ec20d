"""What the commands do, once their arguments are parsed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
import typer
from rich.console import Console

from emboundary.model.description import ModelDescription, TrainingData, Validation
from emboundary.model.export import ExportError, build_onnx, export_model
from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel, receptive_field
from emboundary.model.geometry import Footprint
from emboundary.model.inception import STRIDE, Segmenter, SegmenterSpec
from emboundary.service.engine import Device, OnnxEngine, find_model
from emboundary.service.errors import DeviceError, OutputError, UsageError
from emboundary.training.compare import Contestant, as_markdown, as_records
from emboundary.training.compare import compare as run_comparison
from emboundary.training.config import load_config, refuse_seen
from emboundary.training.data import LabelledVolume, load_volume
from emboundary.training.evaluate import Scores, TorchEngine, score, segment
from emboundary.training.experiment import Experiment, Variant, load_experiment
from emboundary.training.figures import maps, score_curves
from emboundary.training.progress import training_progress
from emboundary.training.runs import fit as fit_run
from emboundary.training.runs import load_run
from emboundary.training.storing import storing

# The un-augmented baseline is no model to use, so it is kept beside the comparison and not in the zoo.
BASELINES = Path(__file__).parent / "baselines"
WEIGHTS_LICENCE = "CC BY-NC-SA 3.0 (non-commercial, attribution, share alike), as the training data ask"

_console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def parse_sections(text: str) -> tuple[int, int]:
    """Read ``FIRST:STOP``.

    Raises:
        UsageError: anything else, or an empty range.
    """
    try:
        first, stop = (int(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"sections is {text!r}; it must be FIRST:STOP, e.g. 13:16") from None
    if not 0 <= first < stop:
        raise UsageError(f"sections is {text!r}; it needs 0 <= FIRST < STOP")
    return first, stop


def torch_device(name: Device, threads: int | None = None) -> torch.device:
    """The device that was asked for; ``auto`` takes a GPU if torch sees one, and says so.

    Raises:
        DeviceError: cuda where torch sees no GPU.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("device is cuda, but torch sees no GPU here; give --device cpu, or install a CUDA build")
    chosen = "cuda" if available and name != "cpu" else "cpu"
    _console.print(f"device: {chosen} ({'asked for' if name != 'auto' else 'the best that works here'})")
    return torch.device(chosen)


def fit(config: Path, data: Path, out: Path, *, device: Device, threads: int | None) -> None:
    """Train one configuration; see ``runs.fit`` for what it leaves."""
    parsed = load_config(config)
    where = torch_device(device, threads)
    with training_progress(parsed.name, _console) as report:
        run = fit_run(parsed, data, out, device=where, report=report)
    _console.print(f"{parsed.name}: {count_parameters(run.network):,} parameters, weights in {out}")


def export(run: Path, repository: Path, *, summary: str, data: Path, sections: tuple[int, int], version: int) -> None:
    """Publish a finished run as ``REPOSITORY/NAME/VERSION``, with its score on held-out sections."""
    finished = load_run(run)
    config = finished.config
    refuse_seen(config, sections, origin=f"run {run}")
    volume = load_volume(data, config.data[0], sections)
    measured = _score_network(finished.network, volume, tta=False)
    protocol = (
        f"{volume.name} sections {sections[0]}:{sections[1]}, never trained on; every pixel of the whole sections; "
        f"one pass; {config.optimiser.steps} training steps, seed {config.seed}"
    )
    try:
        description = export_model(
            finished.network,
            repository / config.name / str(version),
            name=config.name,
            version=str(version),
            summary=summary,
            voxel_sizes_nm=[d.voxel_size_nm for d in config.data],
            training=[
                TrainingData(name=d.name, sections=f"{d.sections[0]}:{d.sections[1]}", citation=d.citation)
                for d in config.data
            ],
            validation=[
                Validation(protocol=protocol, roc_auc=measured.roc_auc, average_precision=measured.average_precision)
            ],
            weights_licence=WEIGHTS_LICENCE,
        )
    except (ExportError, OSError) as error:
        raise OutputError(f"run {run} cannot be exported: {error}") from error
    _console.print(_one_line(description))


def _one_line(d: ModelDescription) -> str:
    return (
        f"{d.name} {d.version}: {d.parameters:,} parameters, {d.flops_per_pixel / 1e3:.1f} kFLOP per pixel, receptive "
        f"field radius {d.receptive_field_radius[2]}, halo {d.halo[2]}, stride {d.stride[2]}, "
        f"equivariance error {d.symmetry.error:.1e}"
    )


def evaluate(model: str, data: Path, config: Path, sections: tuple[int, int], *, tta: bool) -> None:
    """Score one exported model and print one JSON object."""
    engine = OnnxEngine.open(find_model(model), "auto")
    volume = load_volume(data, load_config(config).data[0], sections)
    probability, seconds = segment(engine, volume, tta=tta)
    result = {
        "model": engine.description.name,
        "version": engine.description.version,
        "volume": volume.name,
        "sections": list(sections),
        "tta": tta,
        **asdict(score(volume.target, probability)),
        "seconds": seconds,
        "device": engine.device,
    }
    typer.echo(json.dumps(result))


def compare(data: Path, config: Path, out: Path, *, sections: tuple[int, int], rounds: int, device: Device) -> None:
    """Run the comparison and write ``table.md``, ``table.json``, ``curves.png`` and ``maps.png``."""
    volume = load_volume(data, load_config(config).data[0], sections)
    plain, bare, paper, d4 = (
        OnnxEngine.open(find_model(name), device) for name in ("plain", BASELINES / "plain-noaug", "paper", "d4")
    )
    contestants = (
        Contestant("plain", plain),
        Contestant("plain, trained without augmentation", bare),
        Contestant("plain + 8x augmentation, mean", plain, "mean"),
        Contestant("plain + 8x augmentation, majority vote", plain, "vote"),
        Contestant("paper", paper),
        Contestant("d4", d4),
    )
    result = run_comparison(contestants, volume, rounds=rounds, report=_console.print)
    table = as_markdown(result.rows)
    record = {
        "volume": volume.name,
        "sections": list(sections),
        "rounds": rounds,
        "device": d4.device,
        "models": {e.description.name: e.description.sha256 for e in (plain, bare, paper, d4)},
        "rows": as_records(result.rows),
    }
    _write(out / "table.md", table)
    _write(out / "table.json", json.dumps(record, indent=2) + "\n")
    with storing(out / "curves.png") as partial:
        score_curves(partial, result, title=f"{volume.name}, sections {sections[0]}:{sections[1]}")
    with storing(out / "maps.png") as partial:
        maps(partial, result, volume)
    typer.echo(table, nl=False)


def _write(path: Path, text: str) -> None:
    with storing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class _Outcome:
    variant: str
    parameters: int
    flops_per_pixel: float
    final_loss: float
    one_pass: Scores
    eight_passes: Scores | None


def experiment(file: Path, data: Path, runs: Path, out: Path, *, device: Device, threads: int | None) -> None:
    """Train every variant that is not finished, score all, and write ``NAME.md`` and ``NAME.json``."""
    loaded = load_experiment(file)
    where = torch_device(device, threads)
    outcomes = [_run_variant(v, loaded, data, runs / file.stem, where) for v in loaded.variants]
    record = {
        "question": loaded.question,
        "sections": list(loaded.sections),
        "outcomes": [asdict(o) for o in outcomes],
        "configs": {v.label: v.config.model_dump(mode="json") for v in loaded.variants},
    }
    _write(out / f"{file.stem}.json", json.dumps(record, indent=2) + "\n")
    _write(out / f"{file.stem}.md", _experiment_markdown(loaded, outcomes))


def _run_variant(variant: Variant, loaded: Experiment, data: Path, runs: Path, device: torch.device) -> _Outcome:
    with training_progress(variant.label, _console) as report:
        run = fit_run(variant.config, data, runs / variant.folder, device=device, report=report)
    volume = load_volume(data, variant.config.data[0], loaded.sections)
    exact = variant.config.model.symmetry == "d4"
    return _Outcome(
        variant=variant.label,
        parameters=count_parameters(run.network),
        flops_per_pixel=flops_per_pixel(expand_and_fold(run.network), STRIDE),
        final_loss=run.final_loss,
        one_pass=_score_network(run.network, volume, tta=False),
        eight_passes=None if exact else _score_network(run.network, volume, tta=True),
    )


def _score_network(network: Segmenter, volume: LabelledVolume, *, tta: bool) -> Scores:
    engine = TorchEngine(expand_and_fold(network), _footprint(network.spec))
    probability, _ = segment(engine, volume, tta=tta)
    return score(volume.target, probability)


@cache
def _footprint(spec: SegmenterSpec) -> Footprint:
    """Halo and stride of a network, whatever its weights; kept, because building its graph takes seconds."""
    with torch.random.fork_rng(devices=[]):
        return receptive_field(build_onnx(Segmenter(spec).eval())).footprint


def _experiment_markdown(loaded: Experiment, outcomes: list[_Outcome]) -> str:
    first = loaded.variants[0].config
    lines = [
        f"# {loaded.question}",
        "",
        f"{first.data[0].name}: trained on sections {first.data[0].sections[0]}:{first.data[0].sections[1]}, scored on "
        f"sections {loaded.sections[0]}:{loaded.sections[1]}; {first.optimiser.steps} steps, one seed each. "
        "The JSON beside this page holds every configuration.",
        "",
        "| variant | parameters | kFLOP/px | final loss "
        "| AUC, one pass | AP, one pass | AUC, 8 passes | AP, 8 passes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        eight = ("exact: the same",) * 2
        if o.eight_passes is not None:
            eight = (f"{o.eight_passes.roc_auc:.5f}", f"{o.eight_passes.average_precision:.4f}")
        lines.append(
            f"| {o.variant} | {o.parameters:,} | {o.flops_per_pixel / 1e3:.1f} | {o.final_loss:.4f} "
            f"| {o.one_pass.roc_auc:.5f} | {o.one_pass.average_precision:.4f} | {eight[0]} | {eight[1]} |"
        )
    return "\n".join(lines) + "\n"
