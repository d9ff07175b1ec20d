from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from emboundary.service.schemas import Limits, ModelReply, PredictQuery, ProblemDocument
from emboundary.service.settings import Settings


def test_a_query_without_parameters_asks_for_one_pass_in_uint8() -> None:
    assert PredictQuery() == PredictQuery(model=None, tta=False, dtype="uint8", intensity=None, axes=None)


@pytest.mark.parametrize("extra", [{"tile": 3}, {"dtype": "int8"}, {"axes": "xy"}, {"tta": "perhaps"}])
def test_a_query_refuses_what_it_does_not_know(extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PredictQuery.model_validate(extra)


def test_a_reply_needs_the_limits() -> None:
    with pytest.raises(ValidationError, match="limits"):
        ModelReply.model_validate({})


def test_a_problem_of_another_service_is_read_too() -> None:
    text = '{"type": "https://example.org/full", "title": "Full", "status": 429, "detail": "wait", "queue": 9}'
    assert ProblemDocument.model_validate_json(text).detail == "wait"


def test_settings_come_from_the_environment_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOUNDARY_MAX_BODY_BYTES", "1000")
    monkeypatch.setenv("EMBOUNDARY_TILE", "128")
    limits = Settings(tile=64).limits
    assert limits == Limits(
        max_body_bytes=1000, max_computed_voxels=4000, queue_tiles=1024, request_timeout_s=30, tile=64
    )


@pytest.mark.parametrize("given", [{"tile": 0}, {"queue_tiles": 0}, {"body_timeout_s": 0}, {"colour": "red"}])
def test_settings_refuse_what_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(given)


def test_bodies_of_64_mebibyte_are_taken_unless_told_otherwise() -> None:
    assert Settings().limits.max_body_bytes == 64 * 2**20
