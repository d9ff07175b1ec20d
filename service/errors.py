"""One exception tree for the service: what went wrong decides the class, the class decides the exit code.

Every message is one line that names the argument, the value received, the rule and the remedy.
"""

from __future__ import annotations

from typing import ClassVar


class EmboundaryError(Exception):
    """Root of everything the service raises on purpose; a command ends with ``exit_code``."""

    exit_code: ClassVar[int] = 1


class UsageError(EmboundaryError):
    """An option that is malformed, out of range, or does not fit the others."""

    exit_code: ClassVar[int] = 2


class InputError(EmboundaryError):
    """A volume that is missing, damaged, or not something the networks can read."""


class NonFiniteError(InputError):
    """A volume that can be read and holds NaN or an infinity."""


class OutputError(EmboundaryError):
    """A result that cannot be stored where it was asked to be."""


class ModelUnavailableError(EmboundaryError):
    """A model that does not exist, is damaged, or is not what its description says."""


class DeviceError(EmboundaryError):
    """A device that was asked for and does not work here."""


class RemoteError(EmboundaryError):
    """A server that cannot be reached, or that refused a request."""


class InterruptedRunError(EmboundaryError):
    """A run that was stopped from outside and has kept what it did."""


def first_line(error: BaseException) -> str:
    """What a library's exception says, fit to stand inside a message; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
