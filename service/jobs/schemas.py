"""The JSON of jobs: what is submitted, what is kept and answered, and what a stream of events carries.

A stream of events (``GET /v1/jobs/{id}/events``) gives the whole job each time that it changed: ``event: progress``
until the job is over, then one ``event: end``, after which the stream closes.  The event's ``id`` is the job's
``revision``; whoever reconnects gives it as ``Last-Event-ID`` and is sent only what is newer (``end`` always).
A stream that closes without ``end`` belongs to a server that is shutting down: reconnect.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from emboundary.service.probabilities import Dtype
from emboundary.service.run.request import OmeZarr

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
OVER: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})

_Place = Annotated[str, Field(min_length=1, max_length=4096)]
_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Probability = Annotated[float, Field(ge=0, le=1)]

_SUBMISSION: dict[str, JsonValue] = {
    "input": "brain.zarr",
    "output": "boundaries.zarr",
    "roi": "0:16,0:2048,0:2048",
}
_JOB: dict[str, JsonValue] = {
    "id": "50f2f07faaef87f5",
    "revision": 83,
    "state": "running",
    "client": "lab",
    "request": _SUBMISSION,
    "model": {
        "name": "d4",
        "version": "1",
        "sha256": "5d98b67410b1d11d89a1bc2513f651e44f33f5c15c1bd564ba91dbeef61a0308",
    },
    "created_at": "2026-11-21T15:55:34.265005Z",
    "started_at": "2026-11-21T15:55:34.279409Z",
    "runs": 1,
    "progress": {
        "phase": "predicting",
        "voxels": 67108864,
        "voxels_done": 25165824,
        "blocks": 128,
        "blocks_done": 46,
        "voxels_per_second": 410000.0,
        "seconds_left": 102.3,
    },
    "fingerprint": {"emboundary": "0.1.0", "device": "cpu", "precision": "float32", "roi": "0:16,0:2048,0:2048"},
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobSubmission(_Strict):
    """Body of ``POST /v1/jobs``: the options of ``emboundary predict``, under their names there.

    Attributes:
        input: path of a volume below one of the server's data roots, or a URL below one of its prefixes.
        output: path below a data root; ends in .zarr (OME-Zarr), .tif, .h5 or .png, and its folder must exist.
        model: name of a served model; the default one where missing.
        version: of that model; the newest where missing.
        tta: whether to average the 8 rotations and flips.
        axes: names of the input's axes where it does not say them, e.g. ``zyx``.
        voxel_size: ``Z,Y,X`` in nm, where the input does not say it.
        roi: ``Z0:Z1,Y0:Y1,X0:X1`` in voxels; the whole volume where missing.
        tile: side in voxels of the tiles that the map is computed in, before the halo; at most, and where missing, the
            service's own (``GET /v1/models``).
        dtype: of the output; uint8 stores round(255 p).
        intensity: ``MEAN,STD`` in voxel values; measured over the whole input where missing.
        overwrite: whether an output that exists, or one begun with other options, is replaced.
        chunk: ``Z,Y,X`` in voxels of the output's chunks.
        shard: ``Z,Y,X`` in voxels of the output's shards.
        ome_zarr: version of OME-Zarr that is written.
        pyramid: whether an OME-Zarr output gets its coarser levels.
        mask: like ``input``: a volume of its shape; where it is 0 nothing is computed.
        fill: probability outside the mask and, where given, in constant parts of the input.
        fill_missing: probability for blocks that cannot be read; where missing, the job then fails.
        clahe: whether each section is equalised first.
        rescale: whether the network is shown the voxel size that it was trained on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": [_SUBMISSION]})

    input: _Place
    output: _Place
    model: _Text | None = None
    version: _Text | None = None
    tta: bool = False
    axes: _Text | None = None
    voxel_size: _Text | None = None
    roi: _Text | None = None
    tile: Annotated[int, Field(ge=1)] | None = None
    dtype: Dtype = "uint8"
    intensity: _Text | None = None
    overwrite: bool = False
    chunk: _Text | None = None
    shard: _Text | None = None
    ome_zarr: OmeZarr = "0.5"
    pyramid: bool = True
    mask: _Place | None = None
    fill: _Probability | None = None
    fill_missing: _Probability | None = None
    clahe: bool = False
    rescale: bool = False


class JobModel(_Strict):
    """The model that was chosen when the job was submitted; another file of that name never takes its place."""

    name: str
    version: str
    sha256: str


class JobProgress(_Strict):
    """Where a job is.

    Attributes:
        phase: what is being done: ``measuring``, ``predicting``, ``level 1`` and so on.
        voxels: of that phase.
        voxels_done: of them, by this run and those before it.
        blocks: of the map at full resolution.
        blocks_done: of them, those whose bytes are safe.
        voxels_per_second: of this phase, by this run; None before its first voxels.
        seconds_left: of this phase, at that pace.
    """

    phase: str
    voxels: int
    voxels_done: int
    blocks: int
    blocks_done: int
    voxels_per_second: float | None = None
    seconds_left: float | None = None


class MissingBlock(_Strict):
    """A block of the map that could not be made, in voxels of the map, and why."""

    box: str
    reason: str


class JobResult(_Strict):
    """What the run that ended a job did; the names are those of ``emboundary predict --json``.

    Attributes:
        voxels: that this run stored.
        seconds: from opening the input to the last byte stored.
        blocks_done: computed and stored by this run.
        blocks_skipped: not computed by it: resumed or constant.
        blocks_resumed: stored by an earlier run of the job.
        blocks_constant: stored without the network.
        blocks_missing: how many could not be read.
        missing: the first 100 of them.
        complete: whether the output is there.
        intensity: MEAN and STD that voxel values were normalised by.
    """

    voxels: int
    seconds: float
    voxels_per_second: float
    device: str
    precision: str
    blocks_done: int
    blocks_skipped: int
    blocks_resumed: int
    blocks_constant: int
    blocks_missing: int
    missing: tuple[MissingBlock, ...]
    complete: bool
    intensity: tuple[float, float]


class Job(_Strict):
    """One job, from its submission on.

    Attributes:
        id: of the job; its address is ``/v1/jobs/{id}``.
        revision: grows with every change.
        state: where ``queued``, it waits, or waits again because the server was restarted.
        client: who submitted it: the name of an API key, else an address.
        request: as submitted, missing options filled in.
        model: as chosen at submission.
        created_at: when it was submitted (UTC), as all times here.
        started_at: when it first ran.
        ended_at: when it was over.
        runs: how often it was begun; a restart of the server adds one.
        cancel_requested: whether it was asked to stop; it does so at its next piece, and is then ``cancelled``.
        progress: of the run under way, or the last one; None before it first ran.
        warnings: what should be known before the result is trusted.
        result: of a job that ran to its end.
        error: why a job failed, in one line.
        fingerprint: everything that decides about the output's bytes: with the same, the same bytes come out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [_JOB]})

    id: str
    revision: int
    state: JobState
    client: str
    request: JobSubmission
    model: JobModel
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runs: int = 0
    cancel_requested: bool = False
    progress: JobProgress | None = None
    warnings: tuple[str, ...] = ()
    result: JobResult | None = None
    error: str | None = None
    fingerprint: dict[str, Any]

    @property
    def over(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.state in OVER


class JobQuery(_Strict):
    """Query parameters of ``GET /v1/jobs``.

    Attributes:
        state: only jobs in one of these states; may be given several times.
        limit: so many at most.
        before: only jobs submitted before the one of this id: the ``next`` of the page before.
    """

    state: tuple[JobState, ...] = ()
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: _Text | None = None


class JobList(_Strict):
    """One page of jobs, the newest first; ``next`` is the ``before`` of the next page, None where there is none."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"jobs": [_JOB], "next": None}]}
    )

    jobs: tuple[Job, ...]
    next: str | None
