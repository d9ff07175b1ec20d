"""The examples of docs/library.md run as they stand, one after the other."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from emboundary.model.inception import Segmenter
from emboundary.model.spec import SegmenterSpec
from emboundary.training.images import mnist
from emboundary.training.images.loading import ROTATED_TEST, ROTATED_TRAIN

TEXT = (Path(__file__).parent.parent / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a reader of the page has: a network, images, a loss, and a folder with digits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    digits, many = np.random.default_rng(0).integers(256, size=(100, 28, 28), dtype=np.uint8), 10 * 62
    assert many * 100 == ROTATED_TRAIN + ROTATED_TEST
    np.savez_compressed(
        tmp_path / "data" / mnist.FILE,
        train_images=np.tile(digits, (many, 1, 1)),
        train_labels=np.tile(np.arange(100) % 10, many),
        test_images=digits,
        test_labels=np.arange(100) % 10,
    )
    torch.manual_seed(0)
    net = Segmenter(SegmenterSpec("d4", stem=8, a=8, b=8, c=8, decoder=8, head=8, mix=8)).eval()
    return {"net": net, "images": torch.randn(1, 1, 160, 160), "task_loss": torch.zeros(())}


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("example", EXAMPLES, ids=[str(i) for i in range(len(EXAMPLES))])
def test_an_example_runs(example: str, reader: dict[str, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(example, "docs/library.md", "exec"), dict(reader))
