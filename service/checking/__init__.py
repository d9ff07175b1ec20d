"""Will this work here: the user's own model on a few places of the user's own volume, in under a minute."""

from emboundary.service.checking.report import CheckReport, CheckRequest
from emboundary.service.checking.run import check

__all__ = ["CheckReport", "CheckRequest", "check"]
