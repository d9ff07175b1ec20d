"""The service answers as its OpenAPI document says, whatever it is asked: schemathesis over the whole of it.

``make test`` asks a few questions of every kind; EMBOUNDARY_CAMPAIGN=1 in the environment (``make campaign``) asks
some ten thousand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tifffile
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import SecretStr

from emboundary.service.app import create_app
from emboundary.service.settings import Settings

CAMPAIGN = os.environ.get("EMBOUNDARY_CAMPAIGN") == "1"
EXAMPLES = 400 if CAMPAIGN else 4
PHASES = "examples,coverage,fuzzing,stateful" if CAMPAIGN else "examples,coverage,fuzzing"
PATIENCE_S = 3600
KEY = "open-sesame"
AUTHORISATION = {"Authorization": f"Bearer {KEY}"}
Running = Callable[[FastAPI], AbstractContextManager[str]]
# A schema cannot say that an image has contrast, that a volume exists, or that a ROI lies inside it: values that the
# document allows may be refused, in a way that it names.  All other checks of schemathesis are made.
NOT_SAID = "positive_data_acceptance"


@pytest.fixture(scope="module")
def everything(
    settings: Settings, running: Running, sample_volume: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a service with all that it can do: keys, jobs, several models."""
    key = hashlib.sha256(KEY.encode()).hexdigest()
    update = {
        "api_keys": SecretStr(f"tester:predict+jobs+admin:{key}"),
        "data_roots": (sample_volume.parent,),
        "state_dir": tmp_path_factory.mktemp("state"),
    }
    with running(create_app(settings.model_copy(update=update))) as url:
        yield url


@pytest.fixture(scope="module")
def sample_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small volume under the name that the document's examples give."""
    path = tmp_path_factory.mktemp("volumes") / "raw.tif"
    stack = tifffile.imread(Path(__file__).parents[2] / "service" / "sample" / "raw.ome.tif")[:2, :40, :50]
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    return path


@pytest.fixture(scope="module")
def document(everything: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{everything}/openapi.json", headers=AUTHORISATION).raise_for_status().json()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All operations, by ``METHOD path``."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_answer_is_what_the_document_says(
    everything: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = tmp_path / "report.json"
    line = [sys.executable, "-m", "schemathesis.cli", "run", f"{everything}/openapi.json"]
    options = {
        "--phases": PHASES,
        "--max-examples": EXAMPLES,
        "--exclude-checks": NOT_SAID,
        "--header": f"Authorization:{AUTHORISATION['Authorization']}",
        "--report-json-path": report,
        "--request-timeout": 60,
        "--suppress-health-check": "all",
        "--generation-database": "none",
        "--report-dir": tmp_path,
        **({} if CAMPAIGN else {"--seed": 1}),
    }
    ended = subprocess.run(
        [*line, "--no-color", "--continue-on-failure", *(str(part) for option in options.items() for part in option)],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "openapi_bodies", "PYTHONPATH": _with_this_folder()},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert report.exists(), ended.stdout[-2000:] + ended.stderr[-2000:]
    found = json.loads(report.read_text())
    record_property("operations", found["operations"]["tested"])
    record_property("requests", found["test_cases"]["generated"])
    assert ended.returncode == 0, ended.stdout[-8000:]
    assert found["complete"]
    assert found["operations"]["tested"] == found["operations"]["total"]
    assert found["test_cases"]["generated"] > EXAMPLES * found["operations"]["tested"] / 2
    assert httpx.get(f"{everything}/health/ready").status_code == 200


def test_what_does_not_conform_is_noticed(running: Running, tmp_path: Path) -> None:
    """The same program finds an answer that its document does not name."""
    app = FastAPI()
    app.get("/lie/{number}", response_model=int)(_lie)
    with running(app) as url:
        ended = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--max-examples", "2"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert ended.returncode == 1
    assert "response violates schema" in ended.stdout.lower()


async def _lie(number: int) -> JSONResponse:
    return JSONResponse(f"{number} is a text")


def test_every_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    found = operations(document)
    assert {
        *("POST /v1/predict", "GET /v1/models", "GET /v1/models/{}", "GET /health/live", "GET /health/ready"),
        *("POST /v1/jobs", "GET /v1/jobs", "GET /v1/jobs/{}", "DELETE /v1/jobs/{}", "GET /v1/jobs/{}/events"),
        *("GET /metrics", "GET /v2", "GET /v2/models/{}", "POST /v2/models/{}/infer"),
    } <= {re.sub(r"{\w+}", "{}", name) for name in found}
    for name, operation in found.items():
        assert operation["summary"], name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
        if "requestBody" in operation or operation.get("parameters"):
            assert any(status.startswith("4") for status in operation["responses"]), name


def test_every_json_body_and_answer_has_an_example(document: dict[str, Any]) -> None:
    lacking = []
    for name, operation in operations(document).items():
        bodies = {"body": operation["requestBody"]} if "requestBody" in operation else {}
        for where, described in (bodies | operation["responses"]).items():
            for media, content in described.get("content", {}).items():
                if media.endswith("json") and not _example(content, document):
                    lacking.append(f"{name}: {where} {media}")
    assert not lacking, "\n".join(lacking)


def _example(content: dict[str, Any], document: dict[str, Any]) -> bool:
    if "example" in content or "examples" in content:
        return True
    schema = content.get("schema", {})
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return bool(schema.get("example") or schema.get("examples"))


def _with_this_folder() -> str:
    return os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
