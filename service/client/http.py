"""``BoundaryClient``: the service's calls as methods, with retries where trying again can help."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import numpy as np
import stamina
from numpy.typing import NDArray
from pydantic import ValidationError

from emboundary.service.codecs import MediaType, decode, encode
from emboundary.service.errors import InputError, RemoteError, UsageError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import Dtype
from emboundary.service.schemas import ModelList, ModelReply, ProblemDocument

T = TypeVar("T")

_EXAMPLE = "give it as http://HOST:PORT, e.g. http://127.0.0.1:8000"
_BUSY = (429, 503)
# A prediction is a pure function of its request: a lost answer can be asked for again.
_LOST = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.ConnectTimeout)


@dataclass(frozen=True)
class Answer:
    """What ``/v1/predict`` said.

    Attributes:
        array: probabilities in the shape of the question; uint8 holds round(255 p).
        intensity: what the voxel values were normalised by.
        device: where the model ran, ``cpu`` or ``cuda``.
    """

    array: NDArray[Any]
    intensity: Intensity
    device: str


@dataclass(frozen=True)
class Patience:
    """How long to go on with a service that is busy, restarting, or cut off.

    Attributes:
        attempts: tries of one request, the first included.
        seconds: time from the first try after which no other is begun.
    """

    attempts: int = 60
    seconds: float = 120.0


class _BusyError(RemoteError):
    """A service that answers 429 or 503: it may answer differently later."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BoundaryClient:
    """A connection to one service; safe to use from several threads, and a context manager.

    Args:
        http: the HTTP client, with the service's URL as its base.
        patience: how long predictions go on while the service is busy or out of reach.
    """

    def __init__(self, http: httpx.Client, patience: Patience = Patience()) -> None:
        self._http = http
        self._patience = patience

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = 600.0, patience: Patience = Patience()) -> Self:
        """A client of the service at ``url``; nothing is sent yet.

        Args:
            url: scheme, host and port, for example ``http://127.0.0.1:8000``.
            timeout_s: longest silence while an answer is awaited.
            patience: how long predictions go on while the service is busy or out of reach.

        Raises:
            RemoteError: a URL that is none.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise RemoteError(f"url is {url!r}, which is none ({error}); {_EXAMPLE}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise RemoteError(f"url is {url!r}; it must name scheme and host: {_EXAMPLE}")
        return cls(httpx.Client(base_url=parsed, timeout=httpx.Timeout(timeout_s, connect=10.0)), patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def models(self) -> ModelList:
        """What the service serves, and the limits in force.

        Raises:
            RemoteError: a service that cannot be reached, or an answer that is not this service's.
        """
        return _read(ModelList.model_validate_json, self._send(self._http.build_request("GET", "/v1/models")))

    def model(self, name: str | None = None) -> ModelReply:
        """One model's description and limits; the default model's where no name is given.

        Raises:
            RemoteError: as above, or a name that is not served.
        """
        known = self.models()
        wanted = known.default if name is None else name
        for reply in known.models:
            if reply.name == wanted:
                return reply
        names = ", ".join(reply.name for reply in known.models)
        raise RemoteError(f"model is {wanted!r}; {self.url} serves {names}")

    def predict(
        self,
        array: NDArray[Any],
        *,
        model: str | None = None,
        tta: bool = False,
        dtype: Dtype = "float32",
        intensity: Intensity | None = None,
    ) -> Answer:
        """Boundary probabilities of one section (y, x) or stack (z, y, x), in the same shape.

        Args:
            array: grey values.
            model: a served name; the service's default one where missing.
            tta: whether the service averages the 8 rotations and flips.
            dtype: of the answer.
            intensity: statistics to normalise by; the array's own where missing.

        Raises:
            RemoteError: the service refused, stayed busy, or stayed out of reach.
        """
        params: dict[str, str] = {"dtype": dtype, "tta": str(tta).lower(), "axes": "zyx"[-array.ndim :]}
        if model is not None:
            params["model"] = model
        if intensity is not None:
            params["intensity"] = str(intensity)
        request = self._http.build_request(
            "POST",
            "/v1/predict",
            params=params,
            content=encode(array, MediaType.NPY),
            headers={"Content-Type": MediaType.NPY, "Accept": MediaType.NPY},
        )
        for attempt in stamina.retry_context(
            _seconds_to_wait, attempts=self._patience.attempts, timeout=self._patience.seconds
        ):
            with attempt:
                response = self._send(request)
        return _read(lambda content: _answer(content, response.headers, array.shape), response)

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._http.send(request)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise RemoteError(
                f"{self.url} cannot be reached ({reason}); start it with `emboundary serve`, or check --url"
            ) from error
        if response.is_success:
            return response
        message = f"{self.url} answered {response.status_code}: {_detail(response)}"
        if response.status_code in _BUSY:
            raise _BusyError(message, _retry_after(response))
        raise RemoteError(message)


def _seconds_to_wait(error: Exception) -> bool | float:
    """Whether to try again: after what the service asked for, or (True) with growing pauses."""
    if isinstance(error, _BusyError):
        return True if error.retry_after is None else error.retry_after
    return isinstance(error, RemoteError) and isinstance(error.__cause__, _LOST)


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _detail(response: httpx.Response) -> str:
    try:
        return ProblemDocument.model_validate_json(response.content).detail
    except ValidationError:
        return f"{response.reason_phrase} (no emboundary service?)"


def _read(reader: Callable[[bytes], T], response: httpx.Response) -> T:
    try:
        return reader(response.content)
    except (InputError, UsageError, ValidationError, KeyError) as error:
        raise RemoteError(
            f"{response.url.copy_with(path='/', query=None)} gave an answer that is not an emboundary service's; "
            "check --url, and that both run the same version"
        ) from error


def _answer(content: bytes, headers: httpx.Headers, shape: tuple[int, ...]) -> Answer:
    limit = math.prod(shape) * np.dtype(np.float32).itemsize
    array = decode(content, MediaType.NPY, limit=limit, axes="zyx"[-len(shape) :])
    if array.shape != shape:
        raise InputError(f"the answer has shape {array.shape}, the question {shape}")
    return Answer(array, Intensity.parse(headers["X-Emboundary-Intensity"]), headers["X-Emboundary-Device"])
