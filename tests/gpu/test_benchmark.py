"""``emboundary benchmark`` on a GPU, in its shortest form."""

from __future__ import annotations

import pytest

from emboundary.service.benchmark.request import BenchmarkRequest
from emboundary.service.benchmark.run import run_benchmark

MOST_DIFFERENCE = {"float32": 1e-4, "float16": 5e-3}


@pytest.mark.usefixtures("gpu")
def test_both_precisions_are_measured_and_agree_with_the_cpu() -> None:
    report = run_benchmark(BenchmarkRequest(device="cuda", quick=True, rounds=1, tta=True))
    assert (report.device, report.refused) == ("cuda", ())
    assert report.machine.driver
    assert len(report.machine.gpus) >= 1
    assert {row.precision for row in report.rows} == set(MOST_DIFFERENCE)
    for row in report.rows:
        assert row.of_matrix is not None
        assert row.what == "session" or row.of_bare is not None
    assert len(report.agreements) == 4
    for agreement in report.agreements:
        assert agreement.largest <= MOST_DIFFERENCE[agreement.precision]
    assert {profile.clock for profile in report.profiles} <= {"waiting calls", "kernels"}
