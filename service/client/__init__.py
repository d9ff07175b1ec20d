"""The client of the HTTP service, for scripts and for ``emboundary client``.

with BoundaryClient.connect("http://127.0.0.1:8000") as client:
    answer = client.predict("section.png")
"""

from emboundary.service.client.asynchronous import AsyncBoundaryClient
from emboundary.service.client.calls import Answer
from emboundary.service.client.http import BoundaryClient
from emboundary.service.client.retrying import Patience, RefusedError
from emboundary.service.jobs.schemas import Job, JobList, JobSubmission

__all__ = [
    "Answer",
    "AsyncBoundaryClient",
    "BoundaryClient",
    "Job",
    "JobList",
    "JobSubmission",
    "Patience",
    "RefusedError",
]
