"""Fixtures of the comparison's tests: made-up records of a study, for what is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from emboundary.model import scores
from emboundary.training.comparing.measuring import thin_curve
from emboundary.training.comparing.records import (
    PROTOCOL,
    Environment,
    Halves,
    LossCurve,
    MapScores,
    Passes,
    Results,
    RunRecord,
    RunScores,
    SeriesRecord,
    Timing,
    TimingRow,
)

HERE = Environment(versions={"python": "3.11.0", "torch": "2.13.0"}, processor="a processor", cores=2, device="cpu")
SHAS = {"d4": "d" * 64, "plain": "1" * 64, "paper": "a" * 64}


def map_record(
    volume: str, passes: Passes, value: float, *, v_rand: float | None = None, seed: int = 0, pixels: int = 400
) -> MapScores:
    """A map with these scores; its curves are those of noise on a random target."""
    rng = np.random.default_rng(seed)
    target = rng.random(pixels) < 0.3
    curve = scores.curve(target, np.clip(target * 0.5 + rng.random(pixels) * (1.6 - value), 0, 1))
    region = value if v_rand is None else v_rand
    halves = Halves(split=region, merge=region, f=region, threshold=0.3)
    return MapScores(
        volume=volume,
        sections=(4, 6),
        passes=passes,
        roc_auc=value,
        average_precision=value - 0.01,
        best_f1=value - 0.1,
        best_f1_threshold=0.4,
        cross_entropy=1 - value,
        v_rand=halves,
        v_info=halves,
        seconds=1.0,
        curve=thin_curve(curve),
    )


def run_record(series: str, model: str, seed: int, maps: Mapping[tuple[str, Passes], float]) -> RunRecord:
    """A run whose maps of (volume, passes) have these scores."""
    rng = np.random.default_rng([seed, len(model)])
    losses = 0.2 + 0.5 * np.exp(-np.arange(50) / 12) + rng.normal(0, 0.02, 50)
    return RunRecord(
        series=series,
        model=model,
        seed=seed,
        scores=RunScores(
            protocol=PROTOCOL,
            weights_sha256=SHAS[model],
            environment=HERE,
            maps=tuple(map_record(volume, passes, value, seed=seed) for (volume, passes), value in maps.items()),
        ),
        loss=LossCurve(steps=tuple(range(5, 255, 5)), losses=tuple(losses.tolist())),
    )


def series_record(key: str, models: tuple[str, ...], seeds: tuple[int, ...], **changes: object) -> SeriesRecord:
    """A series trained on a and b, and scored on both, unless it is changed."""
    return SeriesRecord.model_validate(
        {
            "key": key,
            "title": f"Series {key}",
            "models": models,
            "seeds": seeds,
            "steps": 250,
            "pixels": 1_500_000,
            "train": {"a": (0, 4), "b": (0, 4)},
            "score": {"a": (4, 6), "b": (4, 6)},
            "limited": False,
        }
        | changes
    )


def timing_record() -> Timing:
    """Three rounds in which d4 takes 1.02, paper 1.2 and eight passes 8 times the time of plain."""
    rows = [
        TimingRow(
            model=model,
            passes=passes,
            weights_sha256=SHAS[model],
            parameters=parameters,
            flops_per_pixel=136e3 * passes,
            seconds=tuple(factor * seconds for seconds in (1.0, 2.0, 0.5)),
            equivariance_error=error,
            training_pixels_per_second=(50e3, 52e3, 51e3) if passes == 1 else (),
        )
        for model, passes, parameters, factor, error in (
            ("d4", 1, 100_000, 1.02, 1e-6),
            ("plain", 1, 800_000, 1.0, 0.9),
            ("plain", 8, 800_000, 8.0, 2e-7),
            ("paper", 1, 800_000, 1.2, 0.8),
        )
    ]
    return Timing(
        protocol=PROTOCOL, environment=HERE, volume="a", shape=(1024, 1024), threads=1, rows=tuple(rows)
    )  # fmt: skip


def made_up() -> Results:
    """A whole study: d4 one thousandth above plain + 8x on a, and 0.002 below on b; paper between; one run missing."""
    runs = []
    for seed, noise in enumerate((0.0, 0.0004, -0.0004)):
        plain = {("a", 1): 0.980 + noise, ("b", 1): 0.960, ("a", 8): 0.985 + noise, ("b", 8): 0.970}
        runs += [
            run_record("all", "d4", seed, {("a", 1): 0.986 + 2 * noise, ("b", 1): 0.968}),
            run_record("all", "plain", seed, plain),  # type: ignore[arg-type]
        ]
        if seed < 2:
            runs.append(run_record("all", "paper", seed, {("a", 1): 0.984, ("b", 1): 0.967}))
    runs += [
        run_record("transfer", "d4", 0, {("b", 1): 0.93}),
        run_record("transfer", "plain", 0, {("b", 1): 0.90, ("b", 8): 0.92}),
    ]
    series = [
        series_record("all", ("d4", "plain", "paper"), (0, 1, 2)),
        series_record("transfer", ("d4", "plain"), (0,), train={"a": (0, 4)}, score={"b": (4, 6)}),
    ]
    for count, gain in ((1, 0.02), (4, 0.01)):
        key = f"sections-{count}"
        few = {"train": {"a": (0, count)}, "score": {"a": (4, 6)}, "limited": True}
        series.append(series_record(key, ("d4", "plain"), (0,), **few))
        runs += [
            run_record(key, "d4", 0, {("a", 1): 0.9 + gain}),
            run_record(key, "plain", 0, {("a", 1): 0.9, ("a", 8): 0.905}),
        ]
    return Results(
        question="Is one pass as good as eight?",
        study="small.toml",
        series=tuple(series),
        runs=tuple(runs),
        missing=("all/paper-2",),
        timing=timing_record(),
    )


@pytest.fixture(scope="session")
def results() -> Results:
    """A whole made-up study."""
    return made_up()


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunRecord]:
    """A function that makes up a run: ``make_run("all", "d4", 0, {("a", 1): 0.98})``."""
    return run_record


@pytest.fixture(scope="session")
def make_series() -> Callable[..., SeriesRecord]:
    """A function that makes up a series: ``make_series("all", ("d4", "plain"), (0, 1), limited=True)``."""
    return series_record
