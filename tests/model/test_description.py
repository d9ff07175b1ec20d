import pytest
from pydantic import ValidationError

from emboundary.model.description import ModelDescription, Variant
from emboundary.model.geometry import Footprint


def valid() -> dict[str, object]:
    return {
        "name": "d4",
        "version": "1",
        "summary": "One line.",
        "input": {"name": "image"},
        "output": {"name": "probability"},
        "opset": 20,
        "trained_voxel_sizes_nm": [[50.0, 4.6, 4.6]],
        "receptive_field_radius": [0, 43, 43],
        "halo": [0, 48, 48],
        "stride": [1, 8, 8],
        "symmetry": {"group": "D4", "error": 1e-7},
        "precisions": {"float32": 1e-5},
        "training": [{"name": "vnc", "sections": "0-12", "citation": "someone"}],
        "weights_licence": "CC BY-NC-SA 3.0",
        "parameters": 1000,
        "flops_per_pixel": 1000.0,
        "sha256": "0" * 64,
    }


def test_json_and_back_is_the_same_description() -> None:
    description = ModelDescription.model_validate(valid())
    assert ModelDescription.model_validate_json(description.model_dump_json()) == description


def test_what_is_not_said_has_the_contract_s_default() -> None:
    description = ModelDescription.model_validate(valid())
    assert description.format_version == 1
    assert description.border == "reflect"
    assert description.outputs == ("boundary",)
    assert description.normalisation.rule == "zscore"
    assert not description.normalisation.inside_graph
    assert description.input.axes == description.output.axes == ("n", "c", "y", "x")


def test_figures_of_older_descriptions_are_read_and_newer_ones_may_say_more() -> None:
    old = {"protocol": "vnc sections 13:16", "roc_auc": 0.98, "average_precision": 0.95}
    spread = {"seeds": 3, "roc_auc": [0.98, 0.001], "average_precision": [0.95, 0.002]}
    new = old | {"v_rand": 0.9, "v_rand_threshold": 0.4, "spread": spread}
    first, second = ModelDescription.model_validate(valid() | {"validation": [old, new]}).validation
    assert (first.v_rand, first.spread) == (None, None)
    assert second.spread is not None
    assert (second.v_rand, second.spread.roc_auc, second.spread.v_rand) == (0.9, (0.98, 0.001), None)
    with pytest.raises(ValidationError, match=r"spread\.seeds"):
        ModelDescription.model_validate(valid() | {"validation": [new | {"spread": spread | {"seeds": 1}}]})


def test_footprint_is_what_the_tiler_wants() -> None:
    assert ModelDescription.model_validate(valid()).footprint == Footprint((0, 48, 48), (1, 8, 8))


def test_a_halo_in_z_is_the_context() -> None:
    described = ModelDescription.model_validate(
        valid() | {"receptive_field_radius": [2, 43, 43], "halo": [2, 48, 48], "stride": [1, 8, 8]}
    )
    assert described.context == 2
    assert described.footprint.channels == 5
    assert ModelDescription.model_validate(valid()).context == 0


def test_a_halo_below_the_receptive_field_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"halo \(0, 40, 48\) is smaller than the receptive field radius"):
        ModelDescription.model_validate(valid() | {"halo": [0, 40, 48]})


def test_a_halo_that_is_not_aligned_is_refused() -> None:
    with pytest.raises(ValidationError, match="every halo must be a multiple"):
        ModelDescription.model_validate(valid() | {"halo": [0, 44, 48]})


@pytest.mark.parametrize("field", ["licence", "Halo"])
def test_an_unknown_field_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=rf"{field}\s+Extra inputs are not permitted"):
        ModelDescription.model_validate(valid() | {field: 1})


@pytest.mark.parametrize("field", sorted(valid().keys()))
def test_a_missing_field_is_refused(field: str) -> None:
    incomplete = {key: value for key, value in valid().items() if key != field}
    with pytest.raises(ValidationError, match=rf"{field}\s+Field required"):
        ModelDescription.model_validate(incomplete)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", 2),
        ("name", "../d4"),
        ("version", "1.0"),
        ("sha256", "abc"),
        ("border", "zero"),
        ("halo", [0, -8, 8]),
        ("precisions", {"float64": 0.0}),
        ("symmetry", {"group": "C6", "error": 0.0}),
        ("symmetry", {"group": "D4", "error": -1.0}),
    ],
)
def test_a_value_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        ModelDescription.model_validate(valid() | {field: value})


def test_a_description_does_not_change() -> None:
    description = ModelDescription.model_validate(valid())
    with pytest.raises(ValidationError, match="frozen"):
        description.name = "other"  # type: ignore[misc]


HALF = {"file": "float16.onnx", "sha256": "1" * 64, "symmetry_error": 0.001}
TOLERANCES = {"float32": 1e-5, "float16": 0.002, "int8": 0.1}


def test_variants_are_read_and_the_copy_inside_the_files_is_without_hashes() -> None:
    described = ModelDescription.model_validate(valid() | {"variants": {"float16": HALF}, "precisions": TOLERANCES})
    assert described.variants["float16"] == Variant(file="float16.onnx", sha256="1" * 64, symmetry_error=0.001)
    assert ModelDescription.model_validate_json(described.model_dump_json()) == described
    inside = described.embedded()
    assert (inside.sha256, inside.variants, inside.precisions) == (None, {}, TOLERANCES)
    assert ModelDescription.model_validate(valid()).variants == {}


@pytest.mark.parametrize(
    ("variants", "complaint"),
    [
        ({"float32": HALF}, "variants names float32, which is model.onnx itself"),
        ({"float64": HALF}, r"variants\.float64"),
        ({"float16": HALF | {"file": "../float16.onnx"}}, r"variants\.float16\.file"),
        ({"float16": HALF | {"sha256": "abc"}}, r"variants\.float16\.sha256"),
        ({"float16": HALF | {"symmetry_error": -1.0}}, r"variants\.float16\.symmetry_error"),
        ({"float16": HALF | {"speed": 2}}, r"variants\.float16\.speed\s+Extra inputs are not permitted"),
        ({"float16": HALF | {"file": "model.onnx"}}, "each must have one of its own, and not model.onnx"),
        ({"float16": HALF, "int8": HALF}, "each must have one of its own"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(variants: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ModelDescription.model_validate(valid() | {"variants": variants, "precisions": TOLERANCES})


def test_a_variant_without_a_tolerance_is_refused() -> None:
    with pytest.raises(ValidationError, match="variants names float16, for which precisions states no tolerance"):
        ModelDescription.model_validate(valid() | {"variants": {"float16": HALF}})
