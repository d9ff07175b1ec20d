from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from emboundary.service.jobs.schemas import OVER, Job, JobList, JobSubmission
from emboundary.service.run.request import MapRequest


@pytest.mark.parametrize("model", [Job, JobSubmission])
def test_the_examples_are_what_they_are_examples_of(model: type[BaseModel]) -> None:
    for example in model.model_json_schema()["examples"]:
        model.model_validate(example)


def test_a_submission_has_every_option_of_a_map() -> None:
    renamed = {"source": "input", "target": "output", "voxel_size_nm": "voxel_size"}
    options = {renamed.get(field.name, field.name): field.default for field in dataclasses.fields(MapRequest)}
    fields = {name: field.default for name, field in JobSubmission.model_fields.items()}
    assert options.keys() == fields.keys() - {"model", "version", "tta"}
    assert {name: options[name] for name in options.keys() - {"input", "output"}} == {
        name: fields[name] for name in options.keys() - {"input", "output"}
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"bogus": 1},
        {"tile": "16"},
        {"tile": True},
        {"tta": "yes"},
        {"tta": 1},
        {"fill": "0"},
        {"fill": float("nan")},
        {"fill_missing": -0.1},
        {"dtype": "float64"},
        {"ome_zarr": "0.3"},
        {"input": ""},
        {"output": "x" * 4097},
        {"roi": ["0:1"]},
    ],
)
def test_a_submission_is_taken_as_it_is_written(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobSubmission.model_validate({"input": "in.tif", "output": "out.zarr", **fields})


def test_a_record_comes_back_from_its_json() -> None:
    job = Job.model_validate(Job.model_json_schema()["examples"][0])
    assert Job.model_validate_json(job.model_dump_json()) == job
    page = JobList(jobs=(job,), next=job.id)
    assert JobList.model_validate_json(page.model_dump_json()) == page


def test_a_job_is_over_in_three_states() -> None:
    job = Job.model_validate(Job.model_json_schema()["examples"][0])
    assert not job.over
    assert {state for state in OVER if job.model_copy(update={"state": state}).over} == {
        "succeeded",
        "failed",
        "cancelled",
    }
