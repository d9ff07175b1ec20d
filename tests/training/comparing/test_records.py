from __future__ import annotations

from pathlib import Path

import pytest

from emboundary.training.comparing.records import RecordError, Results, RunScores, environment, read_record


def test_records_are_read_as_they_were_written(tmp_path: Path, results: Results) -> None:
    (tmp_path / "results.json").write_text(results.model_dump_json())
    assert read_record(tmp_path / "results.json", Results) == results


def test_no_record_and_one_of_an_older_form_are_none(tmp_path: Path, results: Results) -> None:
    assert read_record(tmp_path / "none.json", Results) is None
    (tmp_path / "old.json").write_text('{"question": "?"}')
    assert read_record(tmp_path / "old.json", Results) is None
    (tmp_path / "cut.json").write_text(results.model_dump_json()[:100])
    assert read_record(tmp_path / "cut.json", Results) is None


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as refused:
        read_record(tmp_path, RunScores)
    assert str(refused.value) == f"{tmp_path} cannot be read: Is a directory; remove it to have it measured again"


def test_the_environment_names_versions_and_the_processor() -> None:
    here = environment("cpu")
    assert {"python", "torch", "onnxruntime", "numpy", "scikit-image"} <= here.versions.keys()
    assert here.versions["torch"] != "not installed"
    assert (here.device, bool(here.processor)) == ("cpu", True)
    assert here.cores >= 1
