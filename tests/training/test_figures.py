from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emboundary.training.figures import loss_curve


@pytest.mark.parametrize("steps", [1, 10, 300])
def test_the_loss_curve_is_a_picture(tmp_path: Path, steps: int) -> None:
    loss_curve(tmp_path / "loss.png", list(np.linspace(0.7, 0.2, steps)), title="d4")
    with Image.open(tmp_path / "loss.png") as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (770, 396))


def test_same_losses_same_bytes_and_other_losses_others(tmp_path: Path) -> None:
    for name, last in (("one", 0.3), ("again", 0.3), ("other", 0.4)):
        loss_curve(tmp_path / name, [0.7, 0.5, last], title="t")
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again
    assert one != other
