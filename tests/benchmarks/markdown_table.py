"""Cells and tables of the page of results."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[object]


def table(head: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def seconds(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


def times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3f} ({spread['min']:.3f} to {spread['max']:.3f})"


def mb(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def shape(extents: Sequence[int]) -> str:
    return " x ".join(map(str, extents))


def million(voxels: float) -> str:
    return f"{voxels / 1e6:.2f}" if voxels < 1e7 else f"{voxels / 1e6:.0f}"
