from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emboundary.service.cli import create_cli
from emboundary.service.console import run
from emboundary.service.diagnosis import Finding, Question, State, diagnose


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state folder and a port of this test's own."""
    monkeypatch.setenv("EMBOUNDARY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("EMBOUNDARY_PORT", "0")
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "data").mkdir()
    return tmp_path


def test_an_intact_installation_will_serve(repository: Path, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--repository", str(repository), "--device", "cpu", "--data-root", str(places / "data")]
    code = run(create_cli(), "emboundary", ["doctor", "--json", *options])
    report = json.loads(capsys.readouterr().out)
    checks = {check["subject"]: check for check in report["checks"]}
    assert list(checks) == [
        "Python",
        "packages",
        "settings",
        "cores",
        "memory",
        "ONNX Runtime",
        "GPU",
        "on CPU",
        "models",
        "inference",
        "API keys",
        "port",
        "state folder",
        "data root",
    ]
    assert (code, report["ok"]) == (0, True)
    assert [subject for subject, check in checks.items() if check["state"] == "failed"] == []
    assert all(set(check) == {"subject", "state", "found", "remedy", "facts"} for check in report["checks"])
    assert checks["settings"]["facts"]["set"] == ["data_roots", "device", "port", "repository", "state_dir"]
    assert checks["inference"]["facts"]["model"] == "d4"
    assert checks["inference"]["facts"]["device"] == "cpu"
    assert checks["inference"]["facts"]["voxels_per_second"] > 0
    assert checks["on CPU"]["facts"]["works"] is True
    assert checks["data root"]["facts"]["write_bytes_per_second"] > 0
    assert list((places / "data").iterdir()) == []
    assert not (places / "state").exists()


@pytest.mark.usefixtures("places")
def test_a_gpu_that_is_asked_for_and_not_there_fails(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # also where there is one
    code = run(create_cli(), "emboundary", ["doctor", "--repository", str(repository), "--device", "cuda"])
    shown = capsys.readouterr().out
    assert code == 1
    assert "Serving will not work as set: GPU, " in shown.replace("\n", " ")
    assert "not tried: see GPU" in shown


def test_settings_that_cannot_be_read_fail_and_the_rest_is_still_looked_at(
    places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = places / "emboundary.toml"
    config.write_text("tiel = 3\n")
    assert run(create_cli(), "emboundary", ["doctor", "--json", "--config", str(config)]) == 1
    checks = {check["subject"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "has tiel, which is no setting" in checks["settings"]["found"]
    assert checks["on CPU"]["state"] == checks["models"]["state"] == "ok"


def test_a_data_root_that_does_not_exist_fails(tmp_path: Path) -> None:
    findings = diagnose(Question(options={"data_roots": [str(tmp_path / "nowhere")]}))
    settings = next(finding for finding in findings if finding.subject == "settings")
    assert settings.state == "failed"
    assert "data_roots" in settings.found
    assert "nowhere" in settings.found


def test_the_device_of_the_environment_counts_too(
    repository: Path, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBOUNDARY_DEVICE", "cuda")
    monkeypatch.setenv("EMBOUNDARY_REPOSITORY", str(repository))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run(create_cli(), "emboundary", ["doctor", "--json"]) == 1
    checks = {check["subject"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["GPU"]["state"] == "failed"
    assert str(places) in checks["state folder"]["found"]


@pytest.mark.parametrize(
    ("broken", "failed"), [("onnxruntime", ["settings", "ONNX Runtime"]), ("fastapi", ["API keys"])]
)
@pytest.mark.usefixtures("places")
def test_it_runs_whatever_package_is_missing(broken: str, failed: list[str]) -> None:
    program = (
        f"import sys; sys.modules[{broken!r}] = None\n"
        "from emboundary.service.cli import create_cli\n"
        "from emboundary.service.console import run\n"
        "sys.exit(run(create_cli(), 'emboundary', ['doctor', '--json']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1, done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert [check["subject"] for check in checks if check["state"] == "failed"] == failed
    assert done.stderr == ""


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("note", 0), ("failed", 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_exit_code_follows_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: State, code: int, as_json: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    finding = Finding("ONNX Runtime", state, "what there is", "pip install emboundary[cpu]", {"packages": {}})

    def found(_: Question) -> Iterator[Finding]:
        yield finding

    monkeypatch.setattr("emboundary.service.commands.doctor.diagnose", found)
    assert run(create_cli(), "emboundary", ["doctor", *(["--json"] if as_json else [])]) == code
    shown = capsys.readouterr().out
    assert "pip install emboundary[cpu]" in shown
    if as_json:
        check = {"subject": "ONNX Runtime", "state": state, "found": "what there is", "remedy": finding.remedy}
        assert json.loads(shown) == {"ok": code == 0, "checks": [{**check, "facts": {"packages": {}}}]}
    else:
        verdict = {
            "ok": "Serving will work\n",
            "note": "Serving will work; 1 note above",
            "failed": "as set: ONNX Runtime",
        }
        assert verdict[state] in shown
