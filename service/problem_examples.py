"""One example of each refusal, for the API's description: real sentences of this service."""

from __future__ import annotations

from collections.abc import Mapping

DETAILS: Mapping[int, str] = {
    400: "the PNG cannot be read (Read Error); it is truncated or damaged: send it whole",
    401: "this call needs an API key; send one as `Authorization: Bearer KEY` or `X-API-Key: KEY`, and ask the "
    "operator for it",
    403: "key 'viewer' has scope predict; this call needs jobs: ask the operator for a key that has it",
    404: "model is 'best'; served here are d4, paper, plain (GET /v1/models)",
    406: "Accept is text/html; it must allow one of application/x-npy, image/tiff, image/png",
    408: "1048576 bytes of the body arrived within 60 s, and it was not complete; send less at a time, or over a "
    "faster connection",
    409: "job 0198f2 is succeeded; only jobs that are queued or running can be cancelled",
    413: "the body has 83886080 bytes; at most 67108864 are accepted (GET /v1/models): send it in smaller pieces, as "
    "`emboundary client predict` does, or submit the volume as a job (POST /v1/jobs)",
    415: "Content-Type is text/plain; it must be one of application/x-npy, image/tiff, image/png",
    422: "query parameter 'colour' is unknown; leave it out (GET /docs lists the known ones)",
    429: "1024 tiles wait, this image is 4 more, and at most 1024 may wait; try again after the seconds that "
    "Retry-After names",
    500: "the request failed through a defect of the service; its log says more",
    503: "the service is shutting down; ask again once it runs",
    504: "the time for this request ran out before it was computed; send less at a time, or try again when the service "
    "is less busy",
}

_RETRY_AFTER = {"description": "Seconds after which trying again is worth it.", "schema": {"type": "integer"}}
_CHALLENGE = {"description": "How to prove who you are (RFC 9110).", "schema": {"type": "string"}}
HEADERS: Mapping[int, dict[str, object]] = {
    401: {"WWW-Authenticate": _CHALLENGE},
    403: {"WWW-Authenticate": _CHALLENGE},
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}
