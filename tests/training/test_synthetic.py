from pathlib import Path

import numpy as np
import tifffile

from emboundary.model import scores
from emboundary.training.synthetic import membranes, write_stack

SHAPE = (4, 80, 96)


def test_a_seed_gives_the_same_stack_and_another_another() -> None:
    first, again, other = membranes(SHAPE, seed=0), membranes(SHAPE, seed=0), membranes(SHAPE, seed=1)
    for a, b, c in zip(first, again, other, strict=True):
        assert a.shape == SHAPE
        assert a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_membranes_are_dark_lines_but_darkness_alone_does_not_tell() -> None:
    raw, target = membranes(SHAPE, seed=0)
    assert set(np.unique(target)) == {0, 255}
    assert 0.05 < (target > 0).mean() < 0.4
    assert raw[target > 0].mean() < raw[target == 0].mean() - 20
    assert 0.7 < scores.roc_auc(scores.curve(target > 0, 255 - raw)) < 0.98


def test_neighbouring_sections_are_more_alike_than_distant_ones() -> None:
    _, target = membranes((9, 80, 96), seed=0)
    lines = (target > 0).astype(float)

    def alike(distance: int) -> float:
        pairs = zip(lines[:-distance], lines[distance:], strict=True)
        return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))

    assert alike(1) > alike(8) + 0.1


def test_smaller_cells_have_more_membrane() -> None:
    small, large = (membranes(SHAPE, seed=0, cell=cell)[1].mean() for cell in (12.0, 40.0))
    assert small > 1.5 * large


def test_files_hold_the_stacks(tmp_path: Path) -> None:
    write_stack(tmp_path, SHAPE, seed=3)
    for name, stack in zip(("raw.tif", "membranes.tif"), membranes(SHAPE, seed=3), strict=True):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / name), stack)
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.series[0].axes == "ZYX"
