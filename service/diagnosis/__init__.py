"""What ``emboundary doctor`` looks at: each check finds one thing out and, where it is wrong, knows the remedy.

Nothing here may need what it checks: packages are imported inside the checks, a failure is a finding, and whatever may
hang or crash is asked in a process of its own.
"""

from emboundary.service.diagnosis.plan import diagnose
from emboundary.service.diagnosis.question import Question
from emboundary.service.finding import Finding, State

__all__ = ["Finding", "Question", "State", "diagnose"]
