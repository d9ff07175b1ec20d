"""What Prometheus and Grafana are told fits what the service shows."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from emboundary.service.app import create_app
from emboundary.service.codecs import MediaType, encode
from emboundary.service.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"
DASHBOARD = json.loads((DOCKER / "monitoring/dashboards/emboundary.json").read_text())
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


async def metrics_of(app: FastAPI) -> str:
    """/metrics of an application that has answered and refused something."""
    image = encode(np.arange(256, dtype=np.uint8).reshape(16, 16), MediaType.NPY)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        answer = await client.post("/v1/predict", content=image, headers={"Content-Type": MediaType.NPY})
        assert answer.status_code == 200
        assert (await client.get("/v1/models/none")).status_code == 404
        return (await client.get("/metrics")).text


@pytest.fixture(scope="module")
def exposed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of all samples that /metrics may hold, and the labels that were seen on them."""
    folder = tmp_path_factory.mktemp("data")
    settings = Settings(repository=repository, device="cpu", data_roots=(folder,), state_dir=folder / "state")
    text = asyncio.run(metrics_of(create_app(settings)))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        found |= {f"{family.name}{suffix}": set() for suffix in suffixes}
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_metrics_that_there_are(expression: str, exposed: dict[str, set[str]]) -> None:
    names = set(re.findall(r"\b(?:emboundary|process)_\w+", expression))
    assert names
    assert names <= exposed.keys()
    asked = set(re.findall(r"(\w+)(?:=~|!~|=|!=)\"", expression))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        asked |= {name.strip() for name in group.split(",")}
    known = set().union(*(exposed[name] for name in names)) | ({"state"} if "emboundary_jobs" in names else set())
    assert asked <= known


def test_every_metric_of_the_service_is_on_the_dashboard(exposed: dict[str, set[str]]) -> None:
    shown = " ".join(EXPRESSIONS)
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in exposed}
    missing = {name for name in families if name.startswith("emboundary_") and name not in shown}
    assert not missing


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    provisioning = DOCKER / "monitoring/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/emboundary.yaml").read_text())["providers"]
    assert f"./monitoring/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]


def test_prometheus_shows_the_key_that_the_service_made_for_it() -> None:
    (job,) = yaml.safe_load((DOCKER / "monitoring/prometheus.yaml").read_text())["scrape_configs"]
    file = job["authorization"]["credentials_file"]
    assert f"SCRAPE_KEY_FILE={file}" in SERVICES["gpu"]["environment"]
    assert "scrape:/scrape" in SERVICES["gpu"]["volumes"]
    assert "scrape:/scrape:ro" in SERVICES["prometheus"]["volumes"]
    (target,) = job["static_configs"][0]["targets"]
    assert target == f"{SERVICES['cpu']['networks']['default']['aliases'][0]}:8000"
