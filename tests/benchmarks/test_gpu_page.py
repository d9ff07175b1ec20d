"""The page of speeds says what the records beside it say, and judges them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from emboundary.service.benchmark.records import (
    Agreement,
    Cost,
    Gpu,
    Limits,
    Machine,
    Ratio,
    Report,
    Round,
    Row,
    Spread,
)

HERE = Path(__file__).parent
MACHINE = Machine(
    cpu="a CPU",
    cores=4,
    memory_gib=8,
    system="s",
    python="3",
    load=0,
    packages={"numpy": "2"},
    driver="580.1",
    gpus=(Gpu(name="a GPU", memory_bytes=1 << 30, compute_capability="9.0"),),
)
LIMITS = Limits(matrix={"float16": 1e15}, memory=1e12)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The scripts, which find each other beside themselves."""
    monkeypatch.syspath_prepend(str(HERE))
    return import_module("gpu_verdicts"), import_module("gpu_page")


def report(
    device: str = "cuda", *, rate: float = 120e6, bare: float = 0.95, busy: float = 0.92, **other: Any
) -> Report:
    """A run of ``d4-base`` in float16 for one second."""
    one = Round(seconds=1.0, pixels=round(rate), limits=LIMITS, bare_seconds=bare, bare_rate=1.3 * rate, device=busy)
    row = Row(
        what="predict",
        model="d4-base",
        version="1",
        precision="float16",
        passes=1,
        shape=(8, 100, 100),
        cost=Cost(operations=1e6, least_bytes=8, layer_bytes=2000),
        rounds=(one,),
    )
    return Report(measured="2026-01-01", machine=MACHINE, device=device, reason="asked", rows=(row,), **other)


def ratio(name: str, times: float, precision: str = "float16") -> Ratio:
    found = Spread(median=times, low=times, high=times)
    return Ratio(what="predict", precision=precision, tile=None, name=name, times=found)


def outcomes(modules: tuple[ModuleType, ModuleType], *reports: Report) -> list[str]:
    return [verdict.outcome for verdict in modules[0].verdicts(reports)]


def test_the_page_is_written_from_the_records() -> None:
    script = HERE / "gpu_page.py"
    ended = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"docs/gpu.md is out of date: run python {script.name}\n{ended.stderr}"


def test_without_a_gpu_nothing_is_judged(modules: tuple[ModuleType, ModuleType]) -> None:
    for reports in ((), (report("cpu"),)):
        found = modules[0].verdicts(reports)
        assert len(found) == 8
        assert {(verdict.outcome, verdict.measured) for verdict in found} == {("not measured", "no GPU")}


def test_every_claim_is_judged_by_its_bound(modules: tuple[ModuleType, ModuleType]) -> None:
    def everything(over_plain: float, eight: float, largest: float) -> dict[str, Any]:
        return {
            "ratios": (
                ratio("d4-base / plain-base", over_plain),
                ratio("d4-base / plain-base", over_plain, "float32"),
                ratio("plain-base + 8x / d4-base", eight),
            ),
            "agreements": tuple(
                Agreement(model="d4", precision=p, voxels=1, largest=factor * largest, mean=0, promised=None)
                for p, factor in (("float32", 1e-4), ("float16", 5e-3))
            ),
        }

    assert outcomes(modules, report(**everything(1.09, 7.1, 0.9))) == ["holds"] * 8
    bad = report(rate=99e6, bare=0.89, busy=0.89, **everything(1.11, 6.9, 1.1))
    assert outcomes(modules, bad) == ["does not hold"] * 8
    # what one report lacks another may have; what none has was not measured
    speed, rest = report(), report("cuda", **everything(1.0, 8.0, 0.5)).model_copy(update={"rows": ()})
    assert outcomes(modules, speed) == ["holds", "holds", *["not measured"] * 3, "holds", *["not measured"] * 2]
    assert outcomes(modules, rest, speed) == ["holds"] * 8


def test_the_page_tells_what_is_unproven_until_a_gpu_was_measured(
    modules: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    folder = tmp_path / "gpu"
    folder.mkdir()
    assert "## What is unproven" in modules[1].page(folder)
    (folder / "cpu.json").write_text(report("cpu").model_dump_json())
    assert "## cpu: a CPU, 4 cores" in modules[1].page(folder)
    assert "## What is unproven" in modules[1].page(folder)
    (folder / "cuda.json").write_text(report(agreements=(), ratios=()).model_dump_json())
    text = modules[1].page(folder)
    assert "## cuda: a GPU (compute capability 9.0), driver 580.1" in text
    assert "## What is unproven" not in text
    assert "| predict: `d4-base`, float16 | 8 x 100 x 100 | 120 (120 to 120) | 0.950 (0.950 to 0.950) | 12.0% |" in text
