"""API keys: who asks, and what they may do.

Only sha256 sums are kept.  A key is 256 random bits, which nobody guesses however fast a sum is taken: the slow sums
that passwords need would only slow every request down.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from emboundary.service.errors import UsageError, first_line
from emboundary.service.refusal import RequestError
from emboundary.service.settings import Settings

Scope = Literal["predict", "jobs", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_FORM = "NAME:SCOPES:SHA256, as `emboundary keys new` prints it"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PREFIX = "emb_"  # so that scanners for leaked secrets, and people, know what they have found
_BEARER = HTTPBearer(auto_error=False, description="A key of `emboundary keys new`.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key, without `Bearer`.")


@dataclass(frozen=True)
class Key:
    """One client.

    Attributes:
        name: who it is, in logs, metrics and the history of jobs; two keys may share it while one replaces the other.
        scopes: what it may do.
        sha256: of the key itself, in hexadecimal.

    Raises:
        UsageError: a name or sum of another form.
    """

    name: str
    scopes: frozenset[Scope]
    sha256: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"name is {self.name!r}; it must be letters, digits, dots, dashes and underscores, 64 at most"
            )
        if not _SHA256.fullmatch(self.sha256):
            raise UsageError("the sum is not 64 hexadecimal digits; give the sha256 of the key, never the key itself")

    @classmethod
    def parse(cls, line: str) -> Key:
        """Read ``NAME:SCOPES:SHA256``.

        Raises:
            UsageError: another form; the message does not repeat the line, which may be a key by mistake.
        """
        parts = line.split(":")
        if len(parts) != 3:
            raise UsageError(f"a line has {len(parts)} parts; it must be {_FORM}")
        name, scopes, sha256 = (part.strip() for part in parts)
        return cls(name, parse_scopes(scopes), sha256.lower())

    @property
    def line(self) -> str:
        """``NAME:SCOPES:SHA256``."""
        return f"{self.name}:{'+'.join(scope for scope in SCOPES if scope in self.scopes)}:{self.sha256}"


def parse_scopes(text: str) -> frozenset[Scope]:
    """Read scopes that are joined by ``+``.

    Raises:
        UsageError: one that does not exist, or none.
    """
    words = set(text.split("+"))
    if not words <= set(SCOPES):
        raise UsageError(f"scopes is {text!r}; it must be one or more of {', '.join(SCOPES)}, joined by +")
    return frozenset(scope for scope in SCOPES if scope in words)


def new_key(name: str, scopes: frozenset[Scope]) -> tuple[str, Key]:
    """Make a key: the secret, which nobody can find out again, and what the service keeps of it."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    return secret, Key(name, scopes, _digest(secret))


class Keys:
    """The keys of one service; without any, everybody may do everything."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)
        sums = [key.sha256 for key in self._keys]
        for key in self._keys:
            if sums.count(key.sha256) > 1:
                raise UsageError(f"two lines have the sum of key {key.name!r}; every key must stand there once")

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """The keys of the file and of the environment together.

        Raises:
            UsageError: a file that cannot be read, or a line that is none.
        """
        found: list[Key] = []
        if settings.api_keys_file is not None:
            try:
                text = settings.api_keys_file.read_text()
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"api_keys_file is {settings.api_keys_file}, which cannot be read: {first_line(error)}"
                ) from error
            found += _parse(text.splitlines(), "api_keys_file, line")
        if settings.api_keys is not None:
            found += _parse(re.split(r"[,\n]", settings.api_keys.get_secret_value()), "api_keys, entry")
        if not found and not (settings.api_keys_file is None and settings.api_keys is None):
            # An empty file must not open the service to everybody.
            raise UsageError(f"api_keys and api_keys_file name no key; give lines {_FORM}, or leave both out")
        return cls(found)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str) -> Key | None:
        """The key that a client has sent; None for one that is not known.

        The time it takes tells nothing: all keys are compared, whichever fits.
        """
        digest, found = _digest(presented), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def require(scope: Scope) -> Any:
    """Dependency of routes that only holders of a key with this scope may call: ``dependencies=[require("jobs")]``.

    It notes in ``request.state.client`` who asks: the key's name, or the peer's address where no keys are set.
    """

    async def check(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        header: Annotated[str | None, Security(_HEADER)],
    ) -> None:
        keys = request.app.state.service.keys
        assert isinstance(keys, Keys)
        if not keys:
            request.state.client = "unknown" if request.client is None else request.client.host
            return
        presented = header if bearer is None else bearer.credentials
        if presented is None:
            raise _unauthorised("this call needs an API key", "")
        key = keys.find(presented)
        if key is None:
            raise _unauthorised("the API key is not known here", ', error="invalid_token"')
        request.state.client = key.name
        if scope not in key.scopes:
            raise RequestError(
                403,
                f"key {key.name!r} has scope {'+'.join(sorted(key.scopes))}; this call needs {scope}: ask the "
                "operator for a key that has it",
                headers={"WWW-Authenticate": f'Bearer realm="emboundary", error="insufficient_scope", scope="{scope}"'},
                reason="scope",
            )

    return Depends(check)


def _unauthorised(what: str, code: str) -> RequestError:
    return RequestError(
        401,
        f"{what}; send one as `Authorization: Bearer KEY` or `X-API-Key: KEY`, and ask the operator for it",
        headers={"WWW-Authenticate": f'Bearer realm="emboundary"{code}'},
        reason="key",
    )


def _parse(lines: Iterable[str], where: str) -> list[Key]:
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            try:
                found.append(Key.parse(text))
            except UsageError as error:
                raise UsageError(f"{where} {number}: {error}") from error
    return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
