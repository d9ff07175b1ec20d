from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from emboundary.service import metrics as module
from emboundary.service.metrics import WINDOW_S, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_request_is_counted_by_method_template_and_status() -> None:
    metrics = Metrics()
    with metrics.in_progress():
        assert value(metrics, "emboundary_requests_in_progress") == 1
        metrics.answered("GET", "/v1/models/{name}", 404, 0.02)
    metrics.answered("GET", "/v1/models/{name}", 404, 0.03)
    labels = {"method": "GET", "route": "/v1/models/{name}", "status": "404"}
    assert value(metrics, "emboundary_requests_total", **labels) == 2
    assert value(metrics, "emboundary_request_seconds_count", route="/v1/models/{name}") == 2
    assert value(metrics, "emboundary_requests_in_progress") == 0


def test_methods_that_a_client_makes_up_share_one_series() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.answered(f"METHOD{number}", "none", 405, 0.0)
    assert value(metrics, "emboundary_requests_total", method="other", route="none", status="405") == 100


def test_runs_of_jobs_and_of_requests_are_told_apart() -> None:
    metrics = Metrics()
    metrics.ran("d4", tiles=8, voxels=1000, seconds=0.5, busy=0.5, job=False)
    metrics.ran("d4", tiles=2, voxels=10, seconds=0.25, busy=0.25, job=True)
    metrics.waited(0.004, job=False)
    assert value(metrics, "emboundary_voxels_total", model="d4", kind="online") == 1000
    assert value(metrics, "emboundary_voxels_total", model="d4", kind="job") == 10
    assert value(metrics, "emboundary_batch_tiles_sum", model="d4", kind="online") == 8
    assert value(metrics, "emboundary_compute_seconds_sum", model="d4", kind="job") == 0.25
    assert value(metrics, "emboundary_device_busy_seconds_total") == 0.75
    assert value(metrics, "emboundary_tile_wait_seconds_bucket", kind="online", le="0.005") == 1
    assert value(metrics, "emboundary_tile_wait_seconds_bucket", kind="online", le="0.0025") == 0


def test_the_busy_share_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    metrics = Metrics()

    def share() -> float | None:
        return value(metrics, "emboundary_device_busy_share")

    assert share() == 0
    metrics.ran("d4", tiles=1, voxels=1, seconds=WINDOW_S / 2, busy=WINDOW_S / 2, job=False)
    assert share() == 0.5
    now += WINDOW_S * 3 / 4  # half of that run is now older than the window
    assert share() == pytest.approx(0.25)
    metrics.ran("d4", tiles=1, voxels=1, seconds=2 * WINDOW_S, busy=2 * WINDOW_S, job=False)
    assert share() == 1  # never more, though a run may be longer than the window
    now += 2 * WINDOW_S
    assert share() == 0


def test_what_is_watched_is_looked_up_when_asked() -> None:
    metrics, tiles, jobs = Metrics(), [3], {"queued": 2, "running": 1}
    metrics.watch_queue(lambda: len(tiles), lambda: 4096)
    metrics.watch_ready(lambda: True)
    metrics.watch_jobs(lambda: jobs)
    tiles += [1, 1]
    jobs["queued"] = 7
    assert value(metrics, "emboundary_queue_tiles") == 3
    assert value(metrics, "emboundary_queue_bytes") == 4096
    assert value(metrics, "emboundary_ready") == 1
    assert value(metrics, "emboundary_jobs", state="queued") == 7
    assert value(metrics, "emboundary_jobs", state="running") == 1


def test_both_formats_can_be_parsed_and_tell_of_the_process() -> None:
    metrics = Metrics()
    metrics.refused("key")
    metrics.watch_jobs(lambda: {"failed": 1})
    text, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    names = {family.name for family in parse(text.decode()) if not family.name.endswith("_created")}
    assert {"emboundary_refusals", "emboundary_jobs", "emboundary_info", "process_resident_memory_bytes"} <= names
    text, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert names <= {family.name for family in parse_openmetrics(text.decode())}


def test_two_services_in_one_process_do_not_share_a_count() -> None:
    one, other = Metrics(), Metrics()
    one.refused("key")
    assert value(one, "emboundary_refusals_total", reason="key") == 1
    assert value(other, "emboundary_refusals_total", reason="key") is None
