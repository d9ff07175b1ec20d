"""Figures on sections that nobody trained on or tuned on, measured by others, as they were handed over.

They stand in ``kept_apart.json`` beside the records.  Where only a range over several volumes is known, that range
stands there; where only the order is known, that.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError, model_validator

from emboundary.service.errors import first_line
from emboundary.training.comparing.records import RecordError
from emboundary.training.comparing.tables import table
from emboundary.training.comparing.verdicts import D4, TURNED, Verdict, outcome
from emboundary.training.strict import Strict

KEPT_APART = "kept_apart.json"


class KeptApartRow(Strict):
    """One score of one pass of ``d4`` and of ``plain`` + 8x.

    Attributes:
        tissue: animal and microscope.
        sections: what was scored.
        score: its name.
        d4, plain_8x: as they were handed over, with their digits.
        difference: the smallest and the largest of ``d4 - plain_8x`` over several volumes.
        ahead: whether ``d4`` is, where no number is known.
    """

    tissue: str
    sections: str
    score: str
    d4: str | None = None
    plain_8x: str | None = None
    difference: tuple[float, float] | None = None
    ahead: bool | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> KeptApartRow:
        told = (self.d4 is not None and self.plain_8x is not None, self.difference is not None, self.ahead is not None)
        if sum(told) != 1:
            raise ValueError("a row holds d4 with plain_8x, or difference, or ahead: one of the three")
        return self

    @property
    def keeps_up(self) -> bool:
        """Whether ``d4`` is at least as good."""
        if self.d4 is not None and self.plain_8x is not None:
            return float(self.d4) >= float(self.plain_8x)
        return self.difference[0] >= 0 if self.difference is not None else bool(self.ahead)

    @property
    def cells(self) -> tuple[str, str, str]:
        """``d4``, ``plain`` + 8x, and the difference, bold where ``d4`` falls short."""
        if self.d4 is not None and self.plain_8x is not None:
            digits = len(self.d4.partition(".")[2])
            text = f"{float(self.d4) - float(self.plain_8x):+.{digits}f}"
        elif self.difference is not None:
            text = f"{self.difference[0]:+.3f} to {self.difference[1]:+.3f}"
        else:
            text = "ahead" if self.ahead else "behind"
        return self.d4 or "", self.plain_8x or "", text if self.keeps_up else f"**{text}**"


class KeptApart(Strict):
    """All rows, and who measured them on what."""

    source: str
    rows: tuple[KeptApartRow, ...]


def read_kept_apart(path: Path) -> KeptApart | None:
    """Read the figures; None where there are none.

    Raises:
        RecordError: a file that cannot be read, or holds something else.
    """
    try:
        return KeptApart.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise RecordError(f"{path} holds no figures that were kept apart: {first_line(error)}; correct it") from error


def kept_apart_table(kept: KeptApart) -> str:
    """The rows in Markdown."""
    head = ["never trained on, never tuned on", "score", D4.label, TURNED.label, "difference"]
    return table(head, [[f"{row.tissue}: {row.sections}", row.score, *row.cells] for row in kept.rows])


def kept_apart_verdict(kept: KeptApart) -> Verdict:
    """Whether one pass of ``d4`` is at least as good on sections that nobody trained or tuned on."""
    claim = "On sections that nobody trained or tuned on: one pass of d4 is at least as good as plain + 8x"
    told = []
    for tissue in dict.fromkeys(row.tissue for row in kept.rows):
        rows = [row for row in kept.rows if row.tissue == tissue]
        told.append(f"{tissue}: {sum(row.keeps_up for row in rows)} of {len(rows)} comparisons")
    return Verdict(claim, outcome(sum(row.keeps_up for row in kept.rows), len(kept.rows)), "; ".join(told))
