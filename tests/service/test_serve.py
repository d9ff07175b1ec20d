from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from emboundary.service.cli import create_cli
from emboundary.service.codecs import MediaType, encode
from emboundary.service.commands.serve import _bound
from emboundary.service.console import run
from emboundary.service.security.keys import Key, Keys, new_key
from emboundary.service.volumes import open_volume

PROGRAM = [sys.executable, "-m", "emboundary.service"]
SECRET, KEY = new_key("lab", frozenset({"predict", "jobs", "admin"}))


@pytest.fixture
def environment(repository: Path) -> dict[str, str]:
    """What a server finds: the tiny models, and no setting of whoever runs the tests."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("EMBOUNDARY_")}
    return others | {"EMBOUNDARY_REPOSITORY": str(repository), "EMBOUNDARY_DEVICE": "cpu"}


@contextmanager
def serving(environment: dict[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_serves_and_stops_when_told(environment: dict[str, str], number: signal.Signals) -> None:
    with serving(environment, "--model", "plain") as (process, line):
        match = re.fullmatch(r"emboundary serves plain at (http://127\.0\.0\.1:\d+) \(CPU, as asked\)\n", line)
        assert match, line
        assert httpx.get(f"{match[1]}/health/ready").json() == {"status": "ready", "model": "plain", "device": "cpu"}
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    (logged,) = map(json.loads, err.splitlines())
    assert (logged["event"], logged["signal"], logged["level"]) == ("stopping", number.name, "info")


def test_requests_in_flight_are_answered_before_it_stops(environment: dict[str, str]) -> None:
    body = encode(np.random.default_rng(0).integers(0, 256, (4, 256, 256)).astype(np.uint8), MediaType.NPY)
    with serving(environment) as (process, line):
        url = line.split()[4]
        with ExitStack() as stack:
            asked = [stack.enter_context(closing(_go_ahead(url, len(body)))) for _ in range(3)]
            idle = stack.enter_context(closing(HTTPConnection(url.removeprefix("http://"), timeout=60)))
            idle.request("GET", "/health/live")
            idle.getresponse().read()  # from now on a live connection without a request
            process.send_signal(signal.SIGTERM)
            _wait_for(process, "stopping")
            for connection in asked:
                connection.send(body)
            answers = [stack.enter_context(connection.getresponse()) for connection in asked]
            assert [(answer.status, len(answer.read())) for answer in answers] == [(200, len(body))] * 3
            assert idle.sock.recv(1) == b""
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health/live")


def test_a_second_signal_ends_it_at_once(environment: dict[str, str]) -> None:
    with serving(environment) as (process, line), closing(_go_ahead(line.split()[4], 1000)):
        process.send_signal(signal.SIGTERM)
        _wait_for(process, "stopping")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)  # the request in flight would hold it for longer
    assert process.returncode == 1
    assert "told twice to stop" in err


def test_what_is_in_flight_for_too_long_does_not_keep_it(environment: dict[str, str]) -> None:
    environment["EMBOUNDARY_DRAIN_S"] = "1"
    with serving(environment) as (process, line), closing(_go_ahead(line.split()[4], 1000)):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def _wait_for(process: subprocess.Popen[str], event: str) -> str:
    """Read the log as far as an event: its whole text."""
    assert process.stderr is not None
    for line in process.stderr:
        found = str(json.loads(line)["event"])
        if found.startswith(event):
            return found
    raise AssertionError("it ended instead")


def _go_ahead(url: str, length: int) -> HTTPConnection:
    # "100 Continue" is sent when the service reads the body: from then on the request is in flight for certain.
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/v1/predict?tta=true")
    for name, value in {"Content-Type": MediaType.NPY, "Content-Length": length, "Expect": "100-continue"}.items():
        connection.putheader(name, str(value))
    connection.endheaders()
    go_ahead = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connection.sock.recv(len(go_ahead), socket.MSG_WAITALL) == go_ahead
    return connection


def test_to_others_it_serves_holders_of_keys(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEY.line}\n")
    (tmp_path / "c.toml").write_text(f"api_keys_file = '{tmp_path}/keys'\nhost = '0.0.0.0'\nlog_format = 'json'\n")
    with serving(environment, "--config", str(tmp_path / "c.toml")) as (process, line):
        url = line.split()[4].replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/health/ready").status_code == 200
        assert httpx.get(f"{url}/docs").status_code == 200
        assert "server" not in httpx.get(f"{url}/docs").headers
        statuses = {path: httpx.get(url + path).status_code for path in ("/v1/models", "/metrics", "/v2/models/d4")}
        assert statuses == dict.fromkeys(statuses, 401)
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {SECRET}"}) as client:
            assert client.get("/v1/models").status_code == 200
            text = client.get("/metrics").text
        assert 'emboundary_refusals_total{reason="key"} 3.0' in text
        assert 'emboundary_requests_total{method="GET",route="/v1/models",status="401"} 1.0' in text
        assert "emboundary_ready 1.0" in text
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert SECRET not in err
    lines = [json.loads(text) for text in err.splitlines()]
    assert [(line["client"], line["status"]) for line in lines if line.get("route") == "/v1/models"] == [
        ("127.0.0.1", 401),
        ("lab", 200),
    ]


def test_keys_are_exchanged_while_it_runs(environment: dict[str, str], tmp_path: Path) -> None:
    path, (other, other_key) = tmp_path / "keys", new_key("other", frozenset({"predict"}))
    path.write_text(KEY.line)
    environment["EMBOUNDARY_API_KEYS_FILE"] = str(path)

    def opens(url: str, secret: str) -> bool:
        return httpx.get(f"{url}/v1/models", headers={"X-API-Key": secret}).is_success

    with serving(environment) as (process, line):
        url = line.split()[4]
        assert opens(url, SECRET)
        assert not opens(url, other)
        path.write_text(other_key.line)
        process.send_signal(signal.SIGHUP)
        _wait_for(process, "the keys were read again")
        assert opens(url, other)
        assert not opens(url, SECRET)
        path.write_text(other)  # the key itself, by mistake
        process.send_signal(signal.SIGHUP)
        refused = _wait_for(process, "the keys stay as they were: ")
        assert other not in refused
        assert opens(url, other)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with _bound("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # where it is not named, asyncio leaves Nagle's algorithm on


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = run(create_cli(), "emboundary", ["serve", "--port", str(port)])
    assert code == 1
    assert capsys.readouterr().err == (
        f"emboundary: error: port {port} of 127.0.0.1 is in use; give another --port, or 0 for any free one\n"
    )


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--host", "192.0.2.1", "--port", "0", "--no-auth"], 1, "cannot listen on host 192.0.2.1, port 0"),
        (["--host", "not a name", "--port", "0", "--no-auth"], 1, "cannot listen on host not a name, port 0"),
        (["--host", "0.0.0.0"], 2, "host is 0.0.0.0, which others can reach, and no API keys are set"),
        (["--host", "::"], 2, "host is ::, which others can reach"),
        (["--host", "em.example"], 2, "host is em.example, which others can reach"),
        (["--port", "70000"], 2, "Invalid value for '--port'"),
        (["--port", "0", "--model", "best"], 1, "model 'best' not found; give a name (here: d4, plain)"),
        (["--port", "0", "--device", "tpu"], 2, "Invalid value for '--device'"),
        (["--data-root", "/no/such/folder"], 2, "'/no/such/folder' does not exist"),
        (["--url-prefix", "file:///etc"], 2, "url_prefixes has 'file:///etc'; a URL must begin with one of https://"),
        (["--config", "/no/such/file"], 2, "config is '/no/such/file', which cannot be read as TOML"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: Sequence[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("EMBOUNDARY_REPOSITORY", str(repository))
    assert run(create_cli(), "emboundary", ["serve", *options]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TILE", "0", "tile is '0': Input should be greater than or equal to 1; change the environment variable EMB"),
        pytest.param(
            "API_KEYS", SECRET, "api_keys, entry 1: a line has 1 parts; it must be NAME:SCOPES:SHA256", id="a secret"
        ),
        ("API_KEYS", "", "api_keys and api_keys_file name no key"),
    ],
)
def test_a_setting_of_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"EMBOUNDARY_{name}", value)
    assert run(create_cli(), "emboundary", ["serve", "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert SECRET not in err


def test_keys_cannot_be_set_and_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBOUNDARY_API_KEYS", KEY.line)
    assert run(create_cli(), "emboundary", ["serve", "--port", "0", "--no-auth"]) == 2
    assert "no_auth is set, and API keys are: leave out one of them" in capsys.readouterr().err


def test_the_settings_in_force_are_printed_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBOUNDARY_API_KEYS", KEY.line)
    monkeypatch.setenv("EMBOUNDARY_QUEUE_TILES", "9")
    assert run(create_cli(), "emboundary", ["serve", "--port", "7", "--print-settings"]) == 0
    out = capsys.readouterr().out
    assert KEY.sha256 not in out
    found = tomllib.loads(out)
    assert (found["port"], found["queue_tiles"], found["no_auth"]) == (7, 9, False)


def test_a_new_key_is_shown_once_and_its_line_is_one_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(create_cli(), "emboundary", ["keys", "new", "lab", "--scopes", "jobs+predict"]) == 0
    shown = capsys.readouterr()
    secret = shown.err.split()[-1]
    key = Key.parse(shown.out.strip())
    assert (key.name, key.scopes) == ("lab", {"predict", "jobs"})
    assert Keys([key]).find(secret) == key
    assert secret not in shown.out
    assert run(create_cli(), "emboundary", ["keys", "new", "lab", "--scopes", "root"]) == 2
    assert "scopes is 'root'; it must be one or more of predict, jobs, admin" in capsys.readouterr().err


@pytest.fixture
def volume(tmp_path: Path) -> NDArray[np.uint8]:
    array = np.random.default_rng(2).integers(0, 256, (3, 70, 90)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", array, photometric="minisblack", metadata={"axes": "ZYX"})
    return array


@pytest.mark.usefixtures("volume")
@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
@pytest.mark.parametrize("options", [[], ["--tta", "--roi", "1:3,5:60,7:90", "--tile", "20"]])
def test_client_predict_stores_what_predict_stores(
    url: str,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    options: list[str],
) -> None:
    raw, here, there = (str(tmp_path / name) for name in ("raw.tif", f"here{suffix}", f"there{suffix}"))
    local = ["--model", str(repository / "d4/1/model.onnx"), "--device", "cpu"]
    assert run(create_cli(), "emboundary", ["predict", raw, here, *local, *options]) == 0
    assert run(create_cli(), "emboundary", ["client", "predict", raw, there, "--url", url, *options, "--json"]) == 0
    assert '"device": "cpu"' in capsys.readouterr().out.splitlines()[-1]
    with open_volume(here) as a, open_volume(there) as b:
        assert a.shape == b.shape
        everything = (slice(None),) * 3
        assert np.abs(a[everything].astype(int) - b[everything].astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--url", "http://127.0.0.1:9"], 1, "http://127.0.0.1:9 cannot be reached"),
        (["--url", "somewhere"], 1, "url is 'somewhere'; it must name scheme and host"),
        ([], 2, "Missing option '--url'"),
        (["--url", "{url}", "--model", "best"], 1, "model is 'best'; http://127.0.0.1:"),
        (["--url", "{url}", "--roi", "0:9,0:9,0:9"], 2, "roi is 0:9,0:9,0:9, but the volume ends at"),
        (["--url", "{url}", "--tile", "0"], 2, "tile is 0; it must be at least 1"),
        (["--url", "{url}", "--intensity", "1"], 2, "intensity is '1'; it must be two numbers"),
    ],
)
@pytest.mark.usefixtures("volume")
def test_client_failures_are_one_line_and_leave_nothing(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    arguments = ["client", "predict", str(tmp_path / "raw.tif"), str(tmp_path / "map.tif")]
    assert run(create_cli(), "emboundary", [*arguments, *(o.replace("{url}", url) for o in options)]) == code
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw.tif"]
