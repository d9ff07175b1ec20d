"""Write the page with its pictures, its records, and the table that other pages show."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial as bind
from pathlib import Path

import numpy as np

from emboundary.training.comparing import plots
from emboundary.training.comparing.kept_apart import KEPT_APART, kept_apart_table, read_kept_apart
from emboundary.training.comparing.page import FOLDER, render
from emboundary.training.comparing.records import RESULTS, Results
from emboundary.training.comparing.regions import Labelled, regions
from emboundary.training.comparing.scoring import map_file, wanted_of
from emboundary.training.comparing.statistics import Entry, is_transfer, joined
from emboundary.training.comparing.tables import mean_table
from emboundary.training.comparing.verdicts import D4, PLAIN, TURNED
from emboundary.training.crops.data import load_volume
from emboundary.training.storing import store_text, storing
from emboundary.training.study import Study

TABLE, KEPT_APART_TABLE, PAGE = "table.md", "kept_apart.md", "comparison.md"


def publish(results: Results, study: Study, data: Path, runs: Path, out: Path) -> None:
    """Write ``OUT/comparison.md`` and what it shows in ``OUT/comparison``.

    Raises:
        OutputError: a file that cannot be written.
        DataError: a volume that cannot be read.
    """
    drawn = {**_plots(joined(results)), **_regions(results, study, data, runs)}
    for name, draw in drawn.items():
        with storing(out / FOLDER / name) as partial:
            draw(partial)
    write_texts(results, drawn, out)


def write_texts(results: Results, pictures: Collection[str], out: Path) -> None:
    """Write the page, the records, and the tables that other pages show; ``pictures`` are in ``OUT/comparison``.

    Figures that others measured are taken from ``kept_apart.json`` there, if there is one.

    Raises:
        RecordError: that file cannot be read, or holds something else.
        OutputError: a file that cannot be written.
    """
    folder = out / FOLDER
    whole, kept = joined(results), read_kept_apart(folder / KEPT_APART)
    store_text(folder / RESULTS, results.model_dump_json(indent=1) + "\n")
    store_text(folder / TABLE, mean_table(whole, whole.series[0]))
    if kept is not None:
        store_text(folder / KEPT_APART_TABLE, kept_apart_table(kept))
    store_text(out / PAGE, render(results, pictures, kept))


Draw = Callable[[Path], None]


def _plots(results: Results) -> dict[str, Draw]:
    """Those for which there are records."""
    first = results.series[0]
    drawn: dict[str, Draw] = {}
    if any(run.series == first.key for run in results.runs):
        drawn["gains.png"] = bind(plots.gains, results=results, series=first)
        if results.timing is not None:
            drawn["curves.png"] = bind(plots.curves, results=results, series=first)
            drawn["costs.png"] = bind(plots.costs, results=results, series=first, timing=results.timing)
    for series in results.series:
        trained = {run.model for run in results.runs if run.series == series.key}
        if len(trained) > 1 and not series.limited and not is_transfer(series):
            drawn[f"losses-{series.key}.png"] = bind(plots.losses, results=results, series=series)
    limited = {series.key for series in results.series if series.limited}
    if any(run.series in limited for run in results.runs):
        drawn["sizes.png"] = bind(plots.sizes, results=results)
    return drawn


def _regions(results: Results, study: Study, data: Path, runs: Path) -> dict[str, Draw]:
    """One picture of each volume that may be shown, of the maps that were kept."""
    first = study.series[0]
    digests = {(r.series, r.model, r.seed): r.scores.weights_sha256 for r in results.runs}
    kept: dict[str, dict[Entry, Path]] = {}
    volumes = {}
    for run in study.of(first.key):
        digest = digests.get((run.series, run.model, run.seed))
        if digest is None or run.seed != first.seeds[0]:
            continue
        for want in wanted_of(run):
            path = map_file(runs / run.folder, digest, want)
            volumes[want.volume.name] = want.volume
            kept.setdefault(want.volume.name, {})[Entry(run.model, want.passes)] = path
    drawn: dict[str, Draw] = {}
    for name, files in kept.items():
        if study.show is not None and name not in study.show:
            continue
        shown = [entry for entry in (D4, PLAIN, TURNED) if entry in files]
        if shown and all(files[entry].exists() for entry in shown):
            volume = load_volume(data, volumes[name], volumes[name].validation)
            maps = [Labelled(entry.label, np.load(files[entry])) for entry in shown]
            section, _ = volumes[name].validation or (0, 0)
            drawn[f"regions-{name}.png"] = bind(regions, volume=volume, first=section, maps=maps)
    return drawn
