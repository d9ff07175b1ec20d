"""The part of the page of results that is about the accuracy of precisions."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from markdown_table import table

Result = dict[str, Any]


def precisions(found: Result) -> str:
    rows, lost = [], []
    for model in found["models"]:
        for volume, group in groupby(model["rows"], key=lambda row: row["volume"]):
            scores = list(group)
            for row in scores:
                rows.append(
                    [
                        f"`{model['model']}` {model['version']}, {volume} ({row['sections']}), {row['precision']}",
                        f"{row['roc_auc']:.5f}",
                        f"{row['average_precision']:.4f}",
                        f"{row['largest_difference']:.1e}",
                        f"{row['mean_difference']:.1e}",
                    ]
                )
                lost.append((row["precision"], scores[0]["roc_auc"] - row["roc_auc"]))
    worst = {name: max(fall for precision, fall in lost if precision == name) for name, _ in lost if name != "float32"}
    kept = [
        [
            f"`{model['model']}`, {row['float32']}",
            f"{row['largest_difference']:.1e}",
            f"{row['mean_difference']:.1e}",
            f"{row['symmetry_error']:.1e}",
        ]
        for model in found["models"]
        for row in model["kept"]
    ]
    differences = ["largest difference", "mean difference"]
    return (
        "The bundled files on validation sections (how many of each volume stands in brackets), every pixel, one pass; "
        "differences in probability from float32.  float16 is computed on the CPU with every map rounded as a GPU "
        "rounds it.  The AUC falls at most by "
        + " and ".join(f"{fall:.5f} in {name}" for name, fall in worst.items())
        + ".\n\n"
        + table(["", "ROC AUC", "average precision", *differences], rows)
        + f"\nWhat float16 gains by leaving more in float32, on {found['side']} x {found['side']} pixels of the first "
        "section.  The files keep the head.\n\n" + table(["in float32", *differences, "symmetry error"], kept)
    )
