"""Which content type comes in, and which one goes out (RFC 9110, sections 8.3 and 12.5.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emboundary.service.codecs import MediaType
from emboundary.service.refusal import RequestError

_SPOKEN = ", ".join(MediaType)
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True)
class _Range:
    """One entry of ``Accept``: a type, ``image/*`` or ``*/*``, with its weight."""

    pattern: str
    weight: float

    def matches(self, media: MediaType) -> bool:
        kind = media.partition("/")[0]
        return self.pattern in (media.value, f"{kind}/*", "*/*")

    @property
    def precision(self) -> int:
        return 2 - self.pattern.count("*")


def body_type(content_type: str | None, content_encoding: str | None) -> MediaType:
    """The content type of a request body; its parameters are ignored.

    Raises:
        RequestError: 415 for another type, none, or a body compressed for transport.
    """
    if content_encoding not in (None, "", "identity"):
        raise RequestError(
            415, f"Content-Encoding is {content_encoding}; bodies must come as they are: leave the header out"
        )
    name = (content_type or "").partition(";")[0].strip().lower()
    if name not in set(MediaType):
        raise RequestError(
            415,
            f"Content-Type is {content_type or 'missing'}; it must be one of {_SPOKEN}",
            headers={"Accept": _SPOKEN},
        )
    return MediaType(name)


def answer_type(accept: str | None, body: MediaType) -> MediaType:
    """The best type that the client accepts; among equals the body's own.

    Raises:
        RequestError: 406 where it accepts none of the three.
    """
    ranges = _parse(accept) if accept and accept.strip() else [_Range("*/*", 1.0)]
    weights = {media: _weight(ranges, media) for media in (body, *MediaType)}
    best: MediaType = max(weights, key=weights.__getitem__)
    if weights[best] <= 0:
        raise RequestError(406, f"Accept is {accept}; it must allow one of {_SPOKEN}")
    return best


def _weight(ranges: list[_Range], media: MediaType) -> float:
    """The weight of the most precise range that matches."""
    return max(((r.precision, r.weight) for r in ranges if r.matches(media)), default=(0, 0.0))[1]


def _parse(accept: str) -> list[_Range]:
    ranges = []
    for entry in accept.split(","):
        pattern, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        if _WEIGHT.fullmatch(weight):  # a range with a malformed weight counts for nothing
            ranges.append(_Range(pattern, float(weight)))
    return ranges
