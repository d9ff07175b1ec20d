"""A scoreboard's page: a pure function of its records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from emboundary.training.comparing.page import told
from emboundary.training.comparing.tables import table
from emboundary.training.metrics import THRESHOLDS
from emboundary.training.scoreboard.records import Board, EntryRecord, Measured, Score, VolumeRecord
from emboundary.training.scoring.thresholds import JOINING, SECTIONS


@dataclass(frozen=True)
class Column:
    """A score as it is shown: its name, its digits, and whether more of it is better."""

    title: str
    digits: int
    more_is_better: bool = True


COLUMNS: dict[Score, Column] = {
    "roc_auc": Column("ROC AUC", 5),
    "average_precision": Column("average precision", 4),
    "v_rand": Column("V_rand", 4),
    "v_rand_at_half": Column("V_rand at 0.5", 4),
    "voi_split": Column("VOI split", 3, more_is_better=False),
    "voi_merge": Column("VOI merge", 3, more_is_better=False),
    "adapted_rand": Column("adapted Rand error", 4, more_is_better=False),
    "cremi": Column("CREMI score", 4, more_is_better=False),
}
# Splits and merges are two sides of one choice, so that only what joins them is held against the reference.
COMPARED: tuple[Score, ...] = ("roc_auc", "average_precision", "v_rand", "v_rand_at_half", "adapted_rand", "cremi")
# Those that the summary counts.
JUDGED: tuple[Score, ...] = ("roc_auc", "average_precision", "v_rand")

_LACKING = "not measured"


def render(board: Board) -> str:
    """The page in Markdown."""
    parts = [
        f"# {board.title}",
        f"Written by `emboundary-train scoreboard {board.file}`; every figure stands in the JSON beside this page, "
        "nothing here is typed by hand.",
        "## Which sections",
        *([f"What else the scored sections were used for: {board.used_for}."] if board.used_for else []),
        _sections(board),
        "## Models",
        _models(board),
        f"## Against {board.reference}",
        *_summaries(board),
        f"Differences to {board.reference}, positive where the entry is better; bold where "
        f"{' or '.join(board.interest)} falls short:",
        _differences(board),
        "## Scores",
        *(part for volume in _rows(board) for part in (f"### {_title(volume)}", _scores(board, volume))),
        "## How it was measured",
        _PROTOCOL,
        *_environments(board),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


_PROTOCOL = f"""\
- **Maps** are those of the code that serves, section by section, at the volume's own voxel size.  8 passes are the mean
  of the 8 aligned probabilities (rotations and flips).
- **Every pixel** of the whole scored sections counts, borders included, without tolerance.  Boundary is what annotators
  marked as membrane; for volumes of neuron ids, label 0 and pixels with a neighbour of another label in their section.
- **Thresholds** are chosen on the last {SECTIONS} training sections of each volume, for each entry by itself and by the
  same rule, and then applied to the scored sections.
- **V_rand** (Arganda-Carreras et al. 2015): foreground-restricted, of the thinned map, against the regions that the
  true boundary encloses, all sections in one table; at the threshold, of {len(THRESHOLDS)} from {min(THRESHOLDS)} to
  {max(THRESHOLDS)}, that has the largest V_rand on the training sections; and at 0.5.
- **VOI split, VOI merge** in bits, **adapted Rand error**, **CREMI score** `sqrt(ARAND (VOI split + VOI merge))`, 0 is
  perfect: fragments of a seeded watershed in each section, joined by mean boundary (waterz) up to the threshold, of
  {len(JOINING)} from {min(JOINING)} to {max(JOINING)}, that has the smallest CREMI score on the training sections;
  foreground only.
- **Mean** is that over the volumes, each weighing the same.
- **kFLOP per pixel**: multiplications and additions of all convolutions, times the passes."""


def _sections(board: Board) -> str:
    head = ["volume", "scored", "thresholds chosen on"]
    lines = [[v.name, _range(v.sections), _range(v.chosen_on)] for v in board.volumes]
    if not board.used_for:
        head.append("what else the scored sections were used for")
        lines = [[*line, v.used_for] for line, v in zip(lines, board.volumes, strict=True)]
    return table(head, lines)


def _models(board: Board) -> str:
    lines = []
    for entry in board.entries:
        found = next((m for v in board.volumes if (m := board.of(entry, v)) is not None), None)
        cost = [_LACKING] * 2
        if found is not None:
            cost = [f"{found.parameters:,}", f"{found.flops_per_pixel * entry.passes / 1e3:,.1f}"]
        lines.append([entry.label, f"`{entry.model}`", f"`{entry.sha256[:12]}`", str(entry.passes), *cost])
    return table(["entry", "model", "SHA-256", "passes", "parameters", "kFLOP per pixel"], lines)


def _summaries(board: Board) -> Iterator[str]:
    """How often each entry of interest keeps up with the reference."""
    for label in board.interest:
        found = [d for v in _rows(board) for s in JUDGED if (d := difference(board, label, v, s)) is not None]
        kept = sum(value >= 0 for value in found)
        yield (
            f"{label} is at least as good as {board.reference} in {kept} of {len(found)} comparisons (ROC AUC, average "
            f"precision and V_rand, on each volume and on their mean)."
        )


def _differences(board: Board) -> str:
    lines = []
    for volume in _rows(board):
        for entry in board.entries:
            if entry.label == board.reference:
                continue
            cells = [_difference(board, entry.label, volume, score) for score in COMPARED]
            lines.append([_title(volume), entry.label, *cells])
    return table(["scored on", "entry", *(COLUMNS[score].title for score in COMPARED)], lines)


def _difference(board: Board, label: str, volume: VolumeRecord | None, score: Score) -> str:
    value = difference(board, label, volume, score)
    if value is None:
        return _LACKING
    text = f"{value:+.{COLUMNS[score].digits}f}"
    return f"**{text}**" if value < 0 and label in board.interest else text


def _scores(board: Board, volume: VolumeRecord | None) -> str:
    lines = []
    for entry in board.entries:
        values = [(value_of(board, entry, volume, score), column) for score, column in COLUMNS.items()]
        cells = [_LACKING if value is None else f"{value:.{column.digits}f}" for value, column in values]
        found = None if volume is None else board.of(entry, volume)
        chosen = [] if volume is None else [_LACKING] * 2 if found is None else _thresholds(found)
        lines.append([entry.label, *cells, *chosen])
    head = ["entry", *(column.title for column in COLUMNS.values())]
    return table(head if volume is None else [*head, "boundary from", "joined below"], lines)


def _thresholds(found: Measured) -> list[str]:
    return [f"{found.boundary:g}", f"{found.joining:g}"]


def difference(board: Board, label: str, volume: VolumeRecord | None, score: Score) -> float | None:
    """An entry minus the reference, positive where the entry is better; volume None: of the means over the volumes.

    It is rounded to the digits that are shown: what does not show is a tie.
    """
    entries = {entry.label: entry for entry in board.entries}
    one, other = (value_of(board, entries[name], volume, score) for name in (label, board.reference))
    if one is None or other is None:
        return None
    column = COLUMNS[score]
    return round(one - other if column.more_is_better else other - one, column.digits) + 0.0  # no -0


def value_of(board: Board, entry: EntryRecord, volume: VolumeRecord | None, score: Score) -> float | None:
    """A score of an entry; volume None: its mean over the volumes, where all of them are measured."""
    found = [board.of(entry, one) for one in (board.volumes if volume is None else (volume,))]
    values = [float(getattr(one, score)) for one in found if one is not None]
    return fmean(values) if len(values) == len(found) else None


def _rows(board: Board) -> tuple[VolumeRecord | None, ...]:
    return (*board.volumes, *([None] if len(board.volumes) > 1 else []))


def _title(volume: VolumeRecord | None) -> str:
    return "mean" if volume is None else volume.name


def _range(sections: tuple[int, int]) -> str:
    return f"{sections[0]}:{sections[1]}"


def _environments(board: Board) -> list[str]:
    found = [m for entry in board.entries for v in board.volumes if (m := board.of(entry, v)) is not None]
    distinct = dict.fromkeys(told(m.environment) for m in found)
    return ["Measured with:", "\n".join(f"- {line}" for line in distinct)] if distinct else []
