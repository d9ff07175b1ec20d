from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from emboundary.training.comparing import plots
from emboundary.training.comparing.records import Results, RunRecord, SeriesRecord
from emboundary.training.comparing.statistics import Entry

Draw = Callable[[Path, Results], None]


def drawn_costs(path: Path, results: Results) -> None:
    assert results.timing is not None
    plots.costs(path, results, results.series[0], results.timing)


DRAWN: dict[str, Draw] = {
    "gains": lambda path, results: plots.gains(path, results, results.series[0]),
    "curves": lambda path, results: plots.curves(path, results, results.series[0]),
    "losses": lambda path, results: plots.losses(path, results, results.series[0]),
    "costs": drawn_costs,
    "sizes": plots.sizes,
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_records_give_the_same_picture_and_others_another(
    tmp_path: Path, results: Results, make_run: Callable[..., RunRecord], name: str
) -> None:
    keys = {series.key: series for series in results.series}
    worse = [
        make_run(run.series, "plain", run.seed, {(v, p): 0.7 for v in keys[run.series].score for p in (1, 8)})
        if run.model == "plain"
        else run
        for run in results.runs
    ]
    other = results.model_copy(update={"runs": tuple(worse)})
    for file, records in (("one", results), ("again", results), ("other", other)):
        DRAWN[name](tmp_path / file, records)
    with Image.open(tmp_path / "one") as image:
        image.load()
        assert image.format == "PNG"
        assert image.size[0] == 1210, "the width of a page"
    one, again, another = ((tmp_path / file).read_bytes() for file in ("one", "again", "other"))
    assert one == again
    assert one != another


@pytest.mark.parametrize("name", ["gains", "curves", "losses", "sizes"])
def test_pictures_of_unfinished_studies_can_be_drawn(tmp_path: Path, results: Results, name: str) -> None:
    only = results.model_copy(update={"runs": tuple(run for run in results.runs if run.model == "d4")})
    DRAWN[name](tmp_path / "picture", only)
    assert (tmp_path / "picture").exists()


def test_entries_differ_in_colour_and_in_line() -> None:
    looks = [plots.look_of(Entry(*e)) for e in (("d4", 1), ("plain", 1), ("plain", 8), ("paper", 1))]  # type: ignore[arg-type]
    for attribute in ("colour", "marker", "line"):
        assert len({getattr(look, attribute) for look in looks}) == 4, attribute
    assert plots.look_of(Entry("other", 1)).colour not in {look.colour for look in looks}


def test_losses_of_one_point_can_be_drawn(
    tmp_path: Path, results: Results, make_series: Callable[..., SeriesRecord]
) -> None:
    run = results.runs[0]
    short = run.model_copy(update={"loss": run.loss.model_copy(update={"steps": (3,), "losses": (0.5,)})})
    plots.losses(tmp_path / "p", results.model_copy(update={"runs": (short,)}), make_series("all", ("d4",), (0,)))
    assert (tmp_path / "p").exists()
