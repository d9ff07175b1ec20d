"""What a benchmark found, as a picture: how fast each case is, and how near to what the device can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from emboundary.service.benchmark.records import Report, Row, Spread
from emboundary.service.benchmark.tables import case, rounds
from emboundary.service.pace import mega

Colour = tuple[int, int, int]

# Distinct in colour-blind vision and in grey print (Okabe and Ito 2008).
_BY_WHAT: dict[str, Colour] = {"session": (0, 114, 178), "predict": (0, 158, 115), "service": (204, 121, 167)}
_ARITHMETIC, _MEMORY = (213, 94, 0), (230, 159, 0)
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 34), (225, 225, 228)
_LABELS, _PANEL, _GAP, _ROW, _HEAD, _FOOT = 390, 470, 40, 58, 104, 56
_BAR, _VALUE = 15, 96
_SHARES = 1.0


@dataclass(frozen=True)
class _Bar:
    value: Spread
    told: str
    colour: Colour


def draw(report: Report) -> Image.Image:
    """One line for each case: pixels per second on the left, shares of the device's limits on the right."""
    return _Sheet(report).drawn()


class _Sheet:
    def __init__(self, report: Report) -> None:
        self._report = report
        height = _HEAD + _ROW * len(report.rows) + _FOOT
        self._image = Image.new("RGB", (_LABELS + 2 * _PANEL + 3 * _GAP, height), _PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._large, self._normal, self._small = (ImageFont.load_default(size) for size in (22, 16, 13))

    def drawn(self) -> Image.Image:
        machine, report = self._report.machine, self._report
        on = (
            machine.gpus[0].name
            if report.device == "cuda" and machine.gpus
            else f"{machine.cpu}, {machine.cores} cores"
        )
        self._text((_GAP // 2, 26), f"emboundary on {on}", self._large)
        left, right = _LABELS, _LABELS + _PANEL + _GAP
        self._text((left, 60), f"pixels of map per second, median of {rounds(report)}", self._normal)
        self._text((right, 60), "share of the device's", self._normal)
        self._legend(right + 160, 60, (("matrix rate", _ARITHMETIC), ("bandwidth, layer by layer", _MEMORY)))
        most = max(row.pixels_per_second.high for row in report.rows if row.pixels_per_second)
        for number, row in enumerate(report.rows):
            top = _HEAD + number * _ROW
            self._label(row, top)
            self._bars(left, top, _speeds(row), most)
            self._bars(right, top, _shares(row), _SHARES)
        foot = f"{report.measured}; {self._report.runtime}; thin lines: least to most of the rounds"
        self._text((_GAP // 2, self._image.height - _FOOT // 2), foot, self._small)
        return self._image

    def _label(self, row: Row, top: int) -> None:
        self._draw.line([(_GAP // 2, top), (self._image.width - _GAP // 2, top)], _FAINT)
        self._text((_GAP // 2, top + 19), f"{row.what}: {row.title}, {row.precision}", self._normal)
        self._text((_GAP // 2, top + 41), case(row), self._small)

    def _bars(self, left: int, top: int, bars: Sequence[_Bar], most: float) -> None:
        """Bars below one another, in the middle of the line."""
        y = top + (_ROW - len(bars) * (_BAR + 5) + 5) // 2
        scale = (_PANEL - _VALUE) / most
        for bar in bars:
            middle, length = y + _BAR // 2, min(bar.value.median, most) * scale
            self._draw.rectangle([left, y, left + length, y + _BAR - 1], bar.colour)
            low, high = (left + min(n, most) * scale for n in (bar.value.low, bar.value.high))
            self._draw.line([(low, middle), (high, middle)], _INK, 2)
            self._text((max(left + length, high) + 8, middle), bar.told, self._small)
            y += _BAR + 5

    def _legend(self, left: float, y: int, entries: Sequence[tuple[str, Colour]]) -> None:
        for title, colour in entries:
            self._draw.rectangle([left, y - 7, left + 14, y + 7], colour)
            self._text((left + 20, y), title, self._normal)
            left += 36 + self._draw.textlength(title, self._normal)

    def _text(self, place: tuple[float, float], text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> None:
        self._draw.text(place, text, _INK, font, anchor="lm")


def _speeds(row: Row) -> list[_Bar]:
    speed = row.pixels_per_second
    return [] if speed is None else [_Bar(speed, mega(speed.median).strip(), _BY_WHAT[row.what])]


def _shares(row: Row) -> list[_Bar]:
    found = ((row.of_matrix, _ARITHMETIC), (row.of_memory_by_layers or row.of_memory, _MEMORY))
    return [_Bar(share, f"{share.median:.1%}", colour) for share, colour in found if share is not None]
