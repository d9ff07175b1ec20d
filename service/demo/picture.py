"""The demonstration's picture: an image with a map laid over it in colour, panel by panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

EMBER: tuple[Colour, Colour] = ((150, 20, 90), (255, 200, 60))  # weak and certain boundaries of a network
TEAL: tuple[Colour, Colour] = ((20, 190, 200), (20, 190, 200))  # those that a person drew

_OPACITY = 0.85
_SCALE, _GAP, _TITLE, _FONT = 2, 16, 44, 26
_BACKGROUND, _INK = (22, 22, 26), (235, 235, 235)


@dataclass(frozen=True)
class Panel:
    """One picture of the sheet: a title and RGB pixels (y, x, 3), uint8."""

    title: str
    pixels: NDArray[np.uint8]


def overlay(grey: NDArray[np.uint8], amount: NDArray[np.floating], colours: tuple[Colour, Colour]) -> NDArray[np.uint8]:
    """Lay an amount in [0, 1] over a grey image: the larger, the more opaque and the nearer the second colour.

    Args:
        grey: the image (y, x).
        amount: how much of the colour, (y, x).
        colours: for amounts near 0 and for 1.

    Returns:
        RGB pixels (y, x, 3).
    """
    p = np.clip(amount, 0, 1)[..., None].astype(np.float64)
    weak, certain = (np.array(colour, dtype=np.float64) for colour in colours)
    colour = weak + p * (certain - weak)
    alpha = _OPACITY * p
    blended: NDArray[np.float64] = (1 - alpha) * grey[..., None] + alpha * colour
    return np.rint(blended).astype(np.uint8)


def plain(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey image (y, x) as RGB pixels (y, x, 3)."""
    return np.repeat(grey[..., None], 3, axis=-1)


def sheet(panels: Sequence[Panel]) -> Image.Image:
    """All panels, two in a row, each below its title and twice as large; they must be of one size."""
    height, width = (_SCALE * n for n in panels[0].pixels.shape[:2])
    rows = -(-len(panels) // 2)
    canvas = Image.new("RGB", (2 * width + 3 * _GAP, rows * (height + _TITLE) + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT)
    for number, panel in enumerate(panels):
        x = _GAP + number % 2 * (width + _GAP)
        y = number // 2 * (height + _TITLE)
        draw.text((x, y + _TITLE // 2), panel.title, _INK, font, anchor="lm")
        canvas.paste(Image.fromarray(panel.pixels).resize((width, height), Image.Resampling.BICUBIC), (x, y + _TITLE))
    return canvas
