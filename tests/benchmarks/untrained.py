"""Networks of a configuration's shape with random weights: ``python untrained.py FOLDER d4-base plain-base``.

How fast a network is does not depend on its weights, so that a size that has not been trained yet can be measured.
Written is a model repository, ``FOLDER/NAME/1``, with float16 beside float32; a model that is there already stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from measuring import say

from emboundary.model.description import TrainingData
from emboundary.model.export import export_model
from emboundary.model.inception import Segmenter
from emboundary.model.variants import Samples, add_variants
from emboundary.service.demo.contest import RAW
from emboundary.service.volumes import open_volume
from emboundary.training.config import load_config

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
VERSION = "1"
SIDE = 64


def probes() -> tuple[np.ndarray, ...]:
    """Normalised squares of the bundled sample, (1, 1, y, x)."""
    with open_volume(RAW) as sample:
        section = sample[0:1, 0:SIDE, 0 : 4 * SIDE].astype(np.float32)
    normal = (section - section.mean()) / section.std()
    return tuple(np.ascontiguousarray(normal[None, :, :, x : x + SIDE]) for x in range(0, 4 * SIDE, SIDE))


def write(folder: Path, name: str) -> None:
    """One model."""
    config = load_config(CONFIGS / f"{name}.toml")
    torch.manual_seed(0)
    target = folder / config.name / VERSION
    export_model(
        Segmenter(config.model.spec()),
        target,
        name=config.name,
        version=VERSION,
        summary="Random weights, for measuring speed alone: its maps mean nothing.",
        voxel_sizes_nm=[(50.0, 4.6, 4.6)],
        training=[TrainingData(name="nothing", sections="none", citation="none")],
        validation=[],
        weights_licence="CC0-1.0",
    )
    add_variants(target, ["float16"], Samples((), probes()))


def main() -> None:
    """Write the models that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", help="of files in training/configs, without .toml")
    given = parser.parse_args()
    for name in given.names:
        if (given.folder / name / VERSION).exists():
            continue
        say(f"writing {given.folder / name}")
        write(given.folder, name)


if __name__ == "__main__":
    main()
