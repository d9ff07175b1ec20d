"""Hostile queries, headers, JSON documents, paths and raw bytes for ``requests_fuzz.py``."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

from requests_fuzz_images import MIB

TEXTS = (
    *("", " ", "x", "0", "-1", "1e999", "nan", "inf", "1,", "1,2,3", "0,0", "0,-1", "nan,1", "1,nan", "1e300,1e-300"),
    *(
        "true",
        "null",
        "None",
        "[]",
        "{}",
        "\0",
        "\n",
        "a\r\nX-Evil: 1",
        "é",
        "\U0001f9e0",
        "\uff05",
        "%00",
        "%2e%2e%2f",
    ),
    *("../../etc/passwd", "/etc/passwd", "..\\..\\x", "file:///etc/passwd", "http://169.254.169.254/", "~root", "d4\0"),
    *("'; DROP TABLE jobs; --", "{{7*7}}", "${jndi:ldap://x}", "<script>", "9" * 5000, "x" * 20_000),
)
HOSTILE: tuple[Any, ...] = (
    *(-1, 0, 1, 1 << 31, 1 << 40, 1 << 63, 1 << 64, 10**400, 1.5, -0.0, 1e308, None, True, False, "", "x", "\0", "é\n"),
    *(
        "../..",
        "/",
        "x" * 10_000,
        [],
        {},
        [1],
        [1 << 60] * 3,
        [-1, -1],
        [[1], 2],
        {"a": 1},
        [[[[[]]]]],
        "uint8",
        "FP32",
    ),
)
_NAMES = ("model", "tta", "dtype", "intensity", "axes", "x", "MODEL", "model[]", "")


def query(chance: Random) -> list[tuple[str, str]]:
    """Parameters of which at least one is wrong in a way that every image is refused for."""
    certain = chance.choice(
        (
            (f"x{chance.randint(0, 99)}", chance.choice(TEXTS)),
            ("dtype", chance.choice(("int8", "UINT8", "", "float64", "\0"))),
            ("tta", chance.choice(("maybe", "", "2", "\0"))),
            ("intensity", chance.choice(("", "1", "1,", "nan,1", "0,0", "0,-1", "1,2,3", "inf,1", "0,1e-320", "a,b"))),
            ("model", chance.choice(("", "best", "../d4", "d4/1", "D4", "d4\0", "x" * 20_000, "%"))),
            ("axes", chance.choice(("", "xy", "czyx", "yxz", "\n"))),
        )
    )
    more = [(chance.choice(_NAMES), chance.choice(TEXTS)) for _ in range(chance.choice((0, 0, 1, 2)))]
    return [*more, certain]


def headers(chance: Random) -> dict[str, str]:
    """Headers of which one asks for what there is not."""
    certain = chance.choice(
        (
            ("Accept", chance.choice(("text/html", "image/jpeg", "image/png;q=0", ";;;", "*", "a/b" * 3000, "image/"))),
            ("Content-Encoding", chance.choice(("gzip", "br", "deflate, gzip", "x", "identity, gzip"))),
        )
    )
    return {certain[0]: certain[1], "X-Request-Id": chance.choice(("", "a b", "x" * 5000, "../x", "%0a"))}


# -- the Open Inference Protocol ---------------------------------------------------------------------------------------

_TENSOR = {"name": "image", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": [float(n) for n in range(16)]}


def inference(chance: Random) -> tuple[dict[str, str], bytes]:
    """Headers and body of an inference request that is wrong."""
    return chance.choice((_wrong_json, _wrong_json, _wrong_json, _wrong_text, _wrong_binary, _wrong_binary))(chance)


def _wrong_json(chance: Random) -> tuple[dict[str, str], bytes]:
    tensor = dict(_TENSOR)
    document: dict[str, Any] = {"id": "1", "inputs": [tensor]}
    change = chance.randint(0, 7)
    if change == 0:
        tensor["shape"] = chance.choice(
            (
                [4, 5],
                [1, 1, 4, -4],
                [0, 4],
                [16],
                [1, 2, 4, 2],
                [1 << 62, 4],
                [1 << 31, 1 << 31],
                [],
                "4,4",
                [4.5, 4],
                None,
            )
        )
    elif change == 1:
        tensor["datatype"] = chance.choice(("BYTES", "BOOL", "BF16", "fp32", "", None, 7, "FP128"))
    elif change == 2:
        tensor["data"] = chance.choice(
            ([1] * 15, [1] * 17, ["1"] * 16, [None] * 16, [[1] * 4] * 3, [[1, 2], [3]], "x" * 16, 7, {}, [True] * 16)
        )
    elif change == 3:
        tensor["name"] = chance.choice(("Image", "", None, 7, "x" * 10_000))
    elif change == 4:
        document["inputs"] = chance.choice(([], [tensor, tensor], None, {}, "x", [[]], [None], [7]))
    elif change == 5:
        document["outputs"] = chance.choice(([{"name": "x"}], [{}], "x", [7], None, [{"name": None}]))
        if document["outputs"] is None:  # as good as none
            document["inputs"] = []
    elif change == 6:
        wrong = {"intensity": "x", "tta": "maybe", "dtype": "int8", "timeout": -1, f"x{chance.randint(0, 99)}": 1}
        name = chance.choice(list(wrong))
        document["parameters"] = chance.choice(({name: wrong[name]}, [], "x", 7))
    else:
        place = chance.choice(("data", "shape", "datatype", "name"))
        tensor.pop(place)
        if chance.random() < 0.5:
            tensor[f"{place}x"] = chance.choice(HOSTILE)
    return {"Content-Type": "application/json"}, json.dumps(document).encode()


def _wrong_text(chance: Random) -> tuple[dict[str, str], bytes]:
    text = json.dumps({"inputs": [_TENSOR]})
    at = chance.randrange(len(text))
    made = chance.choice(
        (
            text[:at],
            text[:at] + "\0" + text[at + 1 :],
            text.replace(*chance.choice(((":", "="), (",", ";"), ("]", "}"), ('"', "'"), ("[", "("), ("{", "[")))),
            text.replace("15.0", chance.choice(("NaN", "Infinity", "-Infinity", "1e999", "0x1", "\u0661", "1" * 5000))),
            "[" * chance.choice((10, 1000, 100_000)),
            '{"inputs":' * chance.choice((10, 1000, 20_000)),
            "",
            "null",
            "7",
            '"x"',
            "\ufeff" + text,
            text + text,
        )
    )
    return {"Content-Type": "application/json"}, made.encode(chance.choice(("utf-8", "utf-8", "utf-16", "utf-32")))


def _wrong_binary(chance: Random) -> tuple[dict[str, str], bytes]:
    values = struct.pack("<16f", *range(16))
    size: Any = chance.choice((64, 64, 0, 60, 68, -1, 1 << 40, 1 << 70, "64", None, 64.5))
    tensor = {**{k: v for k, v in _TENSOR.items() if k != "data"}, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    body = (
        values
        if size != 64
        else chance.choice((values[:-1], values + b"x", b"", values[:-4] + struct.pack("<f", float("nan"))))
    )
    length = chance.choice((*([str(len(head))] * 4), "0", "-1", "x", str(1 << 70), str(len(head) + 65), "1", ""))
    return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": length}, head + body


def large_document(chance: Random) -> tuple[dict[str, str], bytes]:
    """A JSON document of many megabytes, which is wrong as well."""
    size = chance.choice((4, 16, 60)) * MIB
    numbers = b'{"inputs":[{"name":"image","shape":[1,1,4,4],"datatype":"FP32","data":[%s]}]}'
    made = chance.choice(
        (
            numbers % (b"7," * (size // 2) + b"7"),
            numbers % (b"1.5," * (size // 4) + b"7"),
            numbers % (b"[" * size),
            b"[" * size,
            b'"' + b"x" * size,
            b'{"a":' + b"9" * size + b"}",
            b" " * size,
            b'{"x":1,' * (size // 7),
        )
    )
    return {"Content-Type": "application/json"}, made


# -- jobs --------------------------------------------------------------------------------------------------------------


def job(chance: Random) -> bytes:
    """The body of a job that must be refused."""
    right: dict[str, Any] = {"input": "raw.tif", "output": "map.zarr"}
    outside = (
        "/etc/passwd",
        "../raw.tif",
        "raw.tif/..",
        "",
        "\0",
        "~",
        "file:///etc/passwd",
        "http://127.0.0.1/x",
        "x" * 9000,
    )
    wrong: dict[str, Any] = {
        "input": chance.choice(
            (*outside, "none.tif", "raw.tif::/v", "https://169.254.169.254/a.zarr", "s3://a/b.zarr")
        ),
        "output": chance.choice(
            (*outside, "map.exe", "none/map.zarr", "raw.tif", "/tmp/map.zarr", ".", "map.zarr::/a")
        ),
        "model": chance.choice(("best", "../d4", "/etc", "", 7)),
        "roi": chance.choice(("", "0:1", "0:9,0:9,0:999999", "-1:2,0:1,0:1", "2:1,0:1,0:1", "a", 7, [[0, 1]])),
        "tile": chance.choice((0, -1, "x", 1.5, [])),
        "dtype": chance.choice(("int8", "", 7)),
        "intensity": chance.choice(("x", "1", "nan,1", "0,0", [1, 2])),
        "axes": chance.choice(("xx", "czyxq", "zy", 7)),
        "voxel_size": chance.choice(("x", "1", "0,1,1", "-1,1,1", "nan,1,1")),
        "overwrite": chance.choice(("maybe", 7, [])),
        f"x{chance.randint(0, 99)}": chance.choice(HOSTILE),
    }
    names = chance.sample(list(wrong), chance.choice((1, 1, 1, 2)))
    text = json.dumps(right | {name: wrong[name] for name in names})
    texts = (text, text, text, text, text[:-2], "", "[]", "null", "7", text.replace(":", "="), "[" * 5000, text + "x")
    return chance.choice(texts).encode(chance.choice(("utf-8", "utf-8", "utf-8", "utf-16")))


# -- paths and raw bytes -----------------------------------------------------------------------------------------------


def path(chance: Random) -> tuple[str, str]:
    """A method and a path that are not served."""
    junk = chance.choice(
        (
            *(
                "../../etc/passwd",
                "..%2f..%2fetc%2fpasswd",
                "%2e%2e/%2e%2e/etc/passwd",
                "%00",
                "%c0%ae%c0%ae/",
                "x" * 4000,
            ),
            *("%ff%fe", "%", "%zz", "{name}", ";a=b", "a%20b", "..;/", "%0d%0aX:1", "\u00e9", "0", "-1", "1e9", "null"),
        )
    )
    paths = (
        *("/v1/models/{}", "/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/predict/{}", "/v1/{}", "/{}", "/health/{}"),
        *("/v2/models/{}", "/v2/models/{}/infer", "/v2/models/d4/versions/{}", "/v2/models/d4/{}", "/docs/{}"),
        "/metrics/{}",
    )
    methods = ("GET", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "X")
    return chance.choice(methods), chance.choice(paths).format(junk)


def raw(chance: Random) -> bytes:
    """Bytes on the wire that are no request that could be answered otherwise than with a refusal."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-npy\r\nConnection: close\r\n"
    return chance.choice(
        (
            chance.randbytes(chance.randint(1, 200)) + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(100) + b"\r\n\r\n",
            head.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n",
            head.replace(b"POST ", b"POST") + b"\r\n",
            head.replace(b"/v1/predict", b"/v1/\0predict") + b"\r\n",
            head.replace(b"Host: localhost", b"Host : localhost") + b"\r\n",
            head.replace(b"Host: localhost", b"Host: a\r\nHost: b") + b"Content-Length: 0\r\n\r\n",
            head.replace(b"Host: localhost\r\n", b"") + b"Content-Length: 0\r\n\r\n",
            head + b"Content-Length: -1\r\n\r\n",
            head + b"Content-Length: 1x\r\n\r\nx",
            head + b"Content-Length: 99999999999999999999999999\r\n\r\nx",
            head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n0\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nxx\r\n0\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nxx",
            head + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            head + b"Transfer-Encoding: x\r\n\r\n0\r\n\r\n",
            head + b"X: " + b"a" * chance.choice((70_000, 300_000)) + b"\r\n\r\n",
            head + b"X-A: b\r\n" * 20_000 + b"\r\n",
            head + b"X\r\n\r\n",
            head + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
    )
