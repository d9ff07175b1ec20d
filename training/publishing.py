"""From a finished run to a model folder: figures on held-out sections, provenance, and a card that reproduces both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path
from tempfile import TemporaryDirectory

from emboundary.model.card import Making, Picture, render_card
from emboundary.model.description import ModelDescription, Spread, Storage, Validation
from emboundary.model.export import CARD_FILE, ExportError, export_model
from emboundary.model.variants import VARIANTS, Samples, VariantError, add_variants
from emboundary.service.engine import Engine, OnnxEngine, find_model
from emboundary.service.errors import InputError, OutputError
from emboundary.service.volumes.hdf5_input import split_name
from emboundary.training.comparing.records import Results, read_record
from emboundary.training.comparing.statistics import AP, AUC, V_RAND, Entry, Summary
from emboundary.training.comparing.statistics import score as score_of
from emboundary.training.config import DataConfig, TrainConfig, refuse_seen
from emboundary.training.crops.data import load_volume
from emboundary.training.learning.runs import Run
from emboundary.training.metrics import BoundaryScores, boundary_scores, thinned
from emboundary.training.origins import learned_from, origin_of
from emboundary.training.samples import read_samples, training_sources
from emboundary.training.scoring.evaluate import segment
from emboundary.training.scoring.segmentation import section_labels
from emboundary.training.scoring.thresholds import boundary_threshold, choosing_sections
from emboundary.training.strict import ConfigError

Range = tuple[int, int]
HeldOut = tuple[DataConfig, Range]


@dataclass(frozen=True)
class Provenance:
    """What only a person can say of a model.

    Attributes:
        summary: one sentence for people who choose a model.
        licence: of the weights; that of the model that training began with is added to it.
        used_for: what else the sections served for that the figures are of: "they also chose the recipe."
        fails: Markdown: where the model fails.
        pictures: files that the card links to.
    """

    summary: str
    licence: str
    used_for: str = ""
    fails: str = ""
    pictures: tuple[Path, ...] = ()


def held_out(config: TrainConfig, sections: Range | None, volume: str | None, *, origin: str) -> tuple[HeldOut, ...]:
    """What is scored: the validation sections of all volumes that have some; or sections, or a volume, that are told.

    Raises:
        ConfigError: a volume that the configuration does not have, sections of nobody knows which, or none at all.
    """
    volumes = [v for v in config.data if volume in (None, v.name)]
    if not volumes:
        known = ", ".join(v.name for v in config.data)
        raise ConfigError(f"{origin}: --volume is {volume}; the volumes are {known}: give one of them")
    if sections is not None:
        if len(volumes) > 1:
            known = ", ".join(v.name for v in volumes)
            raise ConfigError(f"{origin}: --sections is of one volume, here are {known}; name one with --volume")
        return ((volumes[0], sections),)
    chosen = tuple((v, v.validation) for v in volumes if v.validation is not None)
    if not chosen:
        raise ConfigError(f"{origin}: no volume has validation sections; give --sections FIRST:STOP")
    return chosen


@dataclass(frozen=True)
class MapFigures:
    """Figures of one map.

    Attributes:
        v_rand: of the thinned map at ``threshold``, against the regions that the target encloses, section by section.
        chosen_on: the training sections on which the threshold was chosen, ``[first, stop)``.
        seconds: of the scored map.
    """

    pixels: BoundaryScores
    v_rand: float
    threshold: float
    chosen_on: Range
    seconds: float


def map_figures(engine: Engine, data: Path, volume: DataConfig, sections: Range, *, tta: bool = False) -> MapFigures:
    """Score a map of held-out sections; see ``scoring.thresholds`` for where its threshold comes from.

    Raises:
        DataError: a volume that cannot be read.
    """
    chosen_on = choosing_sections(volume.sections)
    chosen = load_volume(data, volume, chosen_on)
    threshold = boundary_threshold(chosen.target, segment(engine, chosen, tta=tta)[0])
    scored = load_volume(data, volume, sections)
    probability, seconds = segment(engine, scored, tta=tta)
    regions = thinned(section_labels(scored.target), probability, (threshold,))
    return MapFigures(boundary_scores(scored.target, probability), regions.v_rand.f, threshold, chosen_on, seconds)


def measured(engine: Engine, config: TrainConfig, data: Path, chosen: Sequence[HeldOut]) -> tuple[Validation, ...]:
    """Figures of a model that was trained by ``config`` on held-out sections, mapped in one pass.

    Raises:
        DataError: a volume that cannot be read.
    """
    figures = []
    for volume, (first, stop) in chosen:
        found = map_figures(engine, data, volume, (first, stop))
        figures.append(
            Validation(
                protocol=f"{volume.name} sections {first}:{stop}, never trained on; every pixel of the whole sections; "
                f"one pass; {config.optimiser.steps} training steps, seed {config.seed}; threshold of V_rand chosen on "
                f"sections {found.chosen_on[0]}:{found.chosen_on[1]}",
                roc_auc=found.pixels.roc_auc,
                average_precision=found.pixels.average_precision,
                v_rand=found.v_rand,
                v_rand_threshold=found.threshold,
            )
        )
    return tuple(figures)


def with_figures(validation: Sequence[Validation], results: Results | None, model: str) -> tuple[Validation, ...]:
    """Add the spread over seeds to figures, from the first series of a study that trained the model with several.

    Args:
        validation: figures whose protocol begins with the volume's name and its sections, as ``measured`` gives them.
        results: records of the study; None: the figures stay as they are.
        model: its name in the study.
    """
    if results is None:
        return tuple(validation)
    one_pass = Entry(model, 1)
    spreads: dict[str, Spread] = {}
    for series in (s for s in results.series if model in s.models):
        for volume, (first, stop) in series.score.items():
            auc, precision, v_rand = (score_of(results, series.key, one_pass, m, volume) for m in (AUC, AP, V_RAND))
            if auc is None or precision is None or v_rand is None or auc.seeds < 2:
                continue
            spread = Spread(
                seeds=auc.seeds, roc_auc=_both(auc), average_precision=_both(precision), v_rand=_both(v_rand)
            )
            spreads.setdefault(f"{volume} sections {first}:{stop}", spread)
    return tuple(v.model_copy(update={"spread": spreads.get(v.protocol.partition(",")[0])}) for v in validation)


def _both(summary: Summary) -> tuple[float, float]:
    return summary.mean, summary.deviation or 0.0


def read_results(path: Path) -> Results:
    """Read the records that ``emboundary-train compare`` wrote.

    Raises:
        InputError: a file that is missing, or none of them.
        RecordError: a file that cannot be read.
    """
    results = read_record(path, Results)
    if results is None:
        raise InputError(f"--figures is {path}, which holds no records of compare; give its results.json")
    return results


def publish(
    run: Run,
    folder: Path,
    *,
    version: str,
    provenance: Provenance,
    data: Path,
    chosen: Sequence[HeldOut],
    storage: Storage = "float32",
    results: Results | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> ModelDescription:
    """Score a run on held-out sections and write it as a model folder; that appears whole or not at all.

    What is scored is the map of the file, in ONNX Runtime on the CPU: a draft without figures is written for it.
    float16 and int8 lie beside it, calibrated and measured on the training sections; a precision that does not suit
    the network is left out, and ``report`` is told why.

    Raises:
        ConfigError: sections that the run was trained on.
        DataError, InputError: a volume that cannot be read.
        OutputError: the folder exists or cannot be written, or the network may not be published.
        EmboundaryError: the model that training began with cannot be read any more.
    """
    config = run.config
    origin = origin_of(config.start)
    learned = (*(() if origin is None else origin.training), *learned_from(config))
    making = Making(
        config=portable(config).model_dump_json(indent=2),
        used_for=provenance.used_for,
        fails=provenance.fails,
        pictures=tuple(_picture(path, folder) for path in provenance.pictures),
    )
    for volume, sections in chosen:
        refuse_seen(config, volume, sections, origin=f"run {run.folder}")
    export = bind(
        export_model,
        run.network,
        name=config.name,
        version=version,
        summary=provenance.summary,
        voxel_sizes_nm=[d.voxel_size_nm for d in config.data],
        training=tuple(dict.fromkeys(learned)),
        weights_licence=provenance.licence if origin is None else origin.joined_to(provenance.licence),
        storage=storage,
    )
    try:
        with _appearing_whole(folder) as partial:
            validation: tuple[Validation, ...] = ()
            if chosen:
                with TemporaryDirectory() as scratch:
                    export(Path(scratch) / "draft", validation=())
                    engine = OnnxEngine.open(find_model(Path(scratch) / "draft"), "cpu")
                    validation = measured(engine, config, data, chosen)
            description = export(partial, validation=with_figures(validation, results, config.name))
            samples = read_samples(training_sources(data, config), config.model.context)
            description = _offer(partial, description, samples, report)
            (partial / CARD_FILE).write_text(render_card(description, making), encoding="utf-8")
    except (ExportError, OSError) as error:
        raise OutputError(f"run {run.folder} cannot be exported: {error}") from error
    return description


def _offer(
    folder: Path, description: ModelDescription, samples: Samples, report: Callable[[str], None]
) -> ModelDescription:
    """Add all variants that suit the network."""
    try:
        return add_variants(folder, VARIANTS, samples)
    except VariantError:
        pass  # which one, and why, is found out one by one
    for precision in VARIANTS:
        try:
            description = add_variants(folder, [precision], samples)
        except VariantError as error:
            report(f"not offered in {precision}: {error}")
    return description


def portable(config: TrainConfig) -> TrainConfig:
    """The configuration with paths that hold elsewhere: relative to the folder that all absolute ones have in common.

    Relative paths stay as they are, so that a configuration without absolute ones comes back unchanged.
    """
    files = {path: _file(path) for d in config.data for path in (d.raw, d.target) if Path(_file(path)).is_absolute()}
    common = os.path.commonpath([os.path.dirname(file) for file in files.values()]) if files else ""  # noqa: PTH120
    moved = {path: os.path.relpath(file, common) + path[len(file) :] for path, file in files.items()}
    start = config.start
    if start is not None and Path(start).is_absolute():
        start = Path(start).name
    return config.model_copy(update={"start": start, "data": tuple(_moved(d, moved) for d in config.data)})


def _moved(data: DataConfig, moved: Mapping[str, str]) -> DataConfig:
    paths = {key: getattr(data, key) for key in ("raw", "membranes", "labels")}
    return data.model_copy(update={key: moved.get(path, path) for key, path in paths.items() if path is not None})


def _file(path: str) -> str:
    named = split_name(path)
    return path if named is None else named[0]


def _picture(path: Path, folder: Path) -> Picture:
    if not path.is_file():
        raise OutputError(f"--picture is {path}, which is no file; give a picture that the card can link to")
    return Picture(path.stem.replace("-", " ").replace("_", " "), os.path.relpath(path.absolute(), folder.absolute()))


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """Give the path of a folder to make, which gets its name only if the block ends without an error."""
    if folder.exists():
        raise ExportError(f"{folder} exists; published models do not change: give another version or remove it")
    partial = folder.with_name(folder.name + ".new")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
