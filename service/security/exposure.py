"""Whether a service may listen where it was told to: to others only with keys, or when told so in so many words."""

from __future__ import annotations

import ipaddress

from emboundary.service.errors import UsageError
from emboundary.service.settings import Settings


def refuse_open_to_others(settings: Settings, *, guarded: bool) -> None:
    """Refuse an address that others can reach where nobody would need a key.

    Raises:
        UsageError: there is one, or keys are set and switched off at once.
    """
    if guarded and settings.no_auth:
        raise UsageError("no_auth is set, and API keys are: leave out one of them")
    if not guarded and not settings.no_auth and not is_loopback(settings.host):
        raise UsageError(
            f"host is {settings.host}, which others can reach, and no API keys are set; make some with `emboundary "
            "keys new` and name their file in EMBOUNDARY_API_KEYS_FILE, or give --no-auth to serve everybody"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone; names other than ``localhost`` may be of any."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
