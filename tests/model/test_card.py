"""A model card says what the description says, in words, and how to make the model again."""

from __future__ import annotations

import hashlib
import json

import pytest

from emboundary.model.card import Making, Picture, render_card
from emboundary.model.description import ModelDescription, Spread, Validation

PLAIN = Validation(protocol="vnc sections 13:16, never trained on; one pass", roc_auc=0.98858, average_precision=0.9585)
FULL = PLAIN.model_copy(
    update={
        "protocol": "isbi2012 sections 20:24, never trained on; one pass",
        "v_rand": 0.91234,
        "v_rand_threshold": 0.01,
        "spread": Spread(seeds=3, roc_auc=(0.9871, 0.0005), average_precision=(0.951, 0.002), v_rand=(0.9, 0.0125)),
    }
)


def describe(*validation: Validation) -> ModelDescription:
    return ModelDescription.model_validate(
        {
            "name": "d4",
            "version": "2",
            "summary": "One line.",
            "input": {"name": "image"},
            "output": {"name": "probability"},
            "opset": 20,
            "trained_voxel_sizes_nm": [[50.0, 4.6, 4.6], [40.0, 4.0, 4.0]],
            "receptive_field_radius": [0, 43, 43],
            "halo": [0, 48, 48],
            "stride": [1, 8, 8],
            "symmetry": {"group": "D4", "error": 1e-7},
            "precisions": {"float32": 1e-5},
            "training": [{"name": "vnc", "sections": "0:13", "citation": "someone"}],
            "weights_licence": "CC BY-NC-SA 3.0",
            "validation": [v.model_dump() for v in validation],
            "parameters": 96747,
            "flops_per_pixel": 121960.0,
            "sha256": "0" * 64,
        }
    )


def test_data_licence_and_figures_are_on_the_card() -> None:
    card = render_card(describe(PLAIN, FULL))
    assert card.startswith("# d4, version 2\n\nOne line.\n")
    for line in (
        "| Voxel sizes trained on (z x y x x, nm) | 50 x 4.6 x 4.6; 40 x 4 x 4 |",
        "| Licence of the weights | CC BY-NC-SA 3.0 |",
        "- vnc, 0:13. someone",
        "| vnc sections 13:16, never trained on; one pass | 0.98858 | 0.9585 | - | - |",
        "| isbi2012 sections 20:24, never trained on; one pass | 0.98858 | 0.9585 | 0.9123 | 0.01 |",
        "| isbi2012 sections 20:24 | 3 | 0.98710 ± 0.00050 | 0.9510 ± 0.0020 | 0.9000 ± 0.0125 |",
    ):
        assert line in card.splitlines()


def test_a_model_of_one_seed_says_nothing_of_a_spread() -> None:
    assert "seeds" not in render_card(describe(PLAIN))
    assert "Not yet." in render_card(describe())


def test_every_table_has_as_many_cells_in_each_row() -> None:
    widths = [
        [row.count("|") for row in block.splitlines()] for block in render_card(describe(PLAIN, FULL)).split("\n\n")
    ]
    tables = [width for width in widths if width[0]]
    assert len(tables) == 3
    assert all(len(set(width)) == 1 for width in tables)


def test_what_else_the_sections_served_for_stands_beside_them() -> None:
    card = render_card(describe(PLAIN, FULL), Making("{}", used_for="They also chose the recipe.\n"))
    said = (
        "## What the figures stand on\n\nvnc sections 13:16; isbi2012 sections 20:24.\n\nThey also chose the recipe.\n"
    )
    assert said in card
    assert card.startswith(render_card(describe(PLAIN, FULL)).rstrip("\n")), "or its precisions cannot be changed"


def test_what_its_makers_add_stands_behind_the_figures() -> None:
    config = json.dumps({"name": "d4", "seed": 0}, indent=2)
    making = Making(config, fails="Dark sections.\n", pictures=(Picture("worst region", "../worst.png"),))
    card = render_card(describe(PLAIN), making)
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["## Trained on", "## Measured", "## Where it fails", "## Pictures", "## Making it again"]
    assert "\nDark sections.\n\n" in card
    assert "\n![worst region](../worst.png)\n\nworst region\n" in card
    assert card.partition("```json\n")[2].partition("```")[0] == config + "\n"
    digest = hashlib.sha256(f"{config}\n".encode()).hexdigest()
    assert f"`{digest}`" in card


@pytest.mark.parametrize("word", ["What the figures stand on", "Where it fails", "Pictures"])
def test_what_they_do_not_say_has_no_heading(word: str) -> None:
    assert word not in render_card(describe(PLAIN), Making("{}"))


def test_each_precision_has_its_file_its_tolerance_and_its_violation_of_the_symmetry() -> None:
    half = {"file": "float16.onnx", "sha256": "1" * 64, "symmetry_error": 0.0008}
    described = ModelDescription.model_validate(
        describe(PLAIN).model_dump()
        | {"precisions": {"float32": 1e-5, "float16": 0.004}, "variants": {"float16": half}}
    )
    card = render_card(described, Making("{}", fails="Dark sections."))
    lines = card.splitlines()
    assert "| Precisions | float32 (within 1e-05), float16 (within 0.004) |" in lines
    assert f"| float32 | `model.onnx` | 1e-05 | 1e-07 | `{'0' * 64}` |" in lines
    assert f"| float16 | `float16.onnx` | 0.004 | 0.0008 | `{'1' * 64}` |" in lines
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## Trained on", "## Measured", "## Precisions", "## Where it fails", "## Making it again"]
    assert "## Precisions" not in render_card(describe(PLAIN))
