from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
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
from emboundary.service.console import run
from emboundary.service.volumes import open_volume

PROGRAM = [sys.executable, "-m", "emboundary.service"]


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = os.environ | {"EMBOUNDARY_REPOSITORY": str(repository)}
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0", "--device", "cpu", *options],
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
def test_it_says_where_it_serves_and_stops_when_told(repository: Path, number: signal.Signals) -> None:
    with serving(repository, "--model", "plain") as (process, line):
        match = re.fullmatch(r"emboundary serves plain at (http://127\.0\.0\.1:\d+) \(CPU, as asked\)\n", line)
        assert match, line
        assert httpx.get(f"{match[1]}/health/ready").json() == {"status": "ready", "model": "plain", "device": "cpu"}
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_requests_in_flight_are_answered_before_it_stops(repository: Path) -> None:
    body = encode(np.random.default_rng(0).integers(0, 256, (4, 256, 256)).astype(np.uint8), MediaType.NPY)
    with serving(repository) as (process, line):
        url = line.split()[4]
        with ExitStack() as stack:
            asked = [stack.enter_context(closing(_go_ahead(url, len(body)))) for _ in range(3)]
            process.send_signal(signal.SIGTERM)
            for connection in asked:
                connection.send(body)
            answers = [stack.enter_context(connection.getresponse()) for connection in asked]
            assert [(answer.status, len(answer.read())) for answer in answers] == [(200, len(body))] * 3
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health/live")


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
        (["--host", "192.0.2.1", "--port", "0"], 1, "cannot listen on host 192.0.2.1, port 0"),
        (["--host", "not a name", "--port", "0"], 1, "cannot listen on host not a name, port 0"),
        (["--port", "70000"], 2, "Invalid value for '--port'"),
        (["--port", "0", "--model", "best"], 1, "model 'best' not found; give a name (here: d4, plain)"),
        (["--port", "0", "--device", "tpu"], 2, "Invalid value for '--device'"),
        (["--data-root", "/no/such/folder"], 2, "'/no/such/folder' does not exist"),
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


def test_a_setting_of_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBOUNDARY_TILE", "0")
    assert run(create_cli(), "emboundary", ["serve", "--port", "0"]) == 2
    assert "tile is '0': Input should be greater than or equal to 1" in capsys.readouterr().err


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
