"""``emboundary-train examine``, and the pictures of filters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from emboundary.model.conv import KernelOrbitConv2d, rotations
from emboundary.model.group_conv import Fields, GroupConv2d
from emboundary.model.groups import C4
from emboundary.model.inception import Segmenter, Symmetry
from emboundary.service import console
from emboundary.service.errors import InputError
from emboundary.training.cli import NAME, create_cli
from emboundary.training.examination import Examination, examine
from emboundary.training.examination_page import page
from emboundary.training.filters import draw_filters, orbits
from emboundary.training.synthetic import membranes

Network = Callable[[Symmetry], Segmenter]
FILES = {"examination.json", "examination.md", "filters.png", "stability.png", "worst.png"}


@pytest.fixture(scope="module")
def found(network: Network) -> Examination:
    raw, _ = membranes((2, 64, 64), seed=0)
    images = ((raw - raw.mean()) / raw.std()).astype(np.float32)[:, None, None]
    return examine(network("d4"), images, name="tiny", origin="membranes")


def test_a_symmetric_network_is_found_symmetric(found: Examination) -> None:
    assert found.count == 2
    assert found.equivariance.worst.relative_max < 1e-4
    quarters = [score for angle, score in zip(found.rotation.angles, found.rotation.mean_scores, strict=True)]
    assert max(quarters[::12]) < 1e-4 < max(quarters)
    assert found.bound is not None
    assert found.bound.constant > found.estimate > 0


def test_the_page_has_every_figure(found: Examination) -> None:
    text = page(found, filters=True)
    assert text.startswith("# Examination of tiny\n\nMeasured on 2 images of 64 x 64 pixels: membranes.")
    for word in ("| rotate-90 |", "| stem.first.conv (", "filters.png", "stability.png", "worst.png"):
        assert word in text
    assert f"{found.estimate:.3g}" in text
    assert f"{max(found.translation.scores):.3f}" in text


def test_a_network_without_a_known_bound_gets_the_rest(found: Examination) -> None:
    text = page(replace(found, bound=None), filters=False)
    assert "No bound is known for one of its layers.  Gradients show" in text
    assert "filters.png" not in text


def test_the_command_writes_page_figures_and_pictures(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    found: Examination,
) -> None:
    monkeypatch.setattr("emboundary.training.commands.examine.examine", lambda *_, **__: found)
    out = tmp_path / "out"
    assert console.run(create_cli(), NAME, ["examine", str(trained), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert f"{out}: examination.md, examination.json and pictures" in capsys.readouterr().err
    figures = json.loads((out / "examination.json").read_text(encoding="utf-8"))
    assert figures["equivariance"]["group"] == "D4"
    for picture in FILES - {"examination.json", "examination.md"}:
        assert np.asarray(Image.open(out / picture).convert("RGB")).std() > 10


def test_a_model_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(create_cli(), NAME, ["examine", "none", "--out", str(tmp_path)]) == 1
    assert "model 'none' not found" in capsys.readouterr().err


def test_small_images_are_refused(network: Network) -> None:
    with pytest.raises(InputError, match=r"^images are 56 x 64; an examination needs at least 64 x 64$"):
        examine(network("plain"), [np.zeros((1, 1, 56, 64), np.float32)], name="tiny", origin="nothing")


def test_copies_of_filters_stand_in_the_order_of_their_group() -> None:
    torch.manual_seed(0)
    bank, names = orbits(GroupConv2d(C4, Fields(trivial=1), 3, 3))
    assert bank.shape == (3, 4, 1, 3, 3)
    quarter = names.index("rotate-90")
    np.testing.assert_array_equal(bank[:, quarter], np.rot90(bank[:, 0], axes=(-2, -1)))
    bank, names = orbits(KernelOrbitConv2d(2, 3, 3, rotations(8, 3)))
    assert bank.shape == (3, 8, 2, 3, 3)
    assert names[-1] == "copy 8"
    assert orbits(nn.Conv2d(1, 5, 3))[0].shape == (5, 1, 1, 3, 3)


def test_filters_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^conv is a ReLU; only a convolution's filters can be drawn$"):
        draw_filters(tmp_path / "a.png", nn.ReLU(), title="none")
    with pytest.raises(ValueError, match=r"^channel is 2; the layer has input channels 0 to 1$"):
        draw_filters(tmp_path / "a.png", nn.Conv2d(2, 3, 3), title="none", channel=2)
