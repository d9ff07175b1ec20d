"""``emboundary-train teach``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from emboundary.model.groups import D4
from emboundary.model.inception import Segmenter
from emboundary.service.errors import UsageError
from emboundary.training.commands.shared import console
from emboundary.training.config import TrainConfig, load_config
from emboundary.training.crops.data import load_sections
from emboundary.training.learning.train import load_start
from emboundary.training.scoring.evaluate import map_network
from emboundary.training.storing import store_text, storing


def teach(config: Path, data: Path, out: Path, teachers: Sequence[str]) -> None:
    """Map the configuration's volumes with every teacher; the means are what another network learns from.

    Raises:
        UsageError: no volume of the configuration asks for a soft map.
        ConfigError, DataError: what cannot be read.
        OutputError: OUT cannot be written.
    """
    parsed = load_config(config)
    if not any(volume.soft for volume in parsed.data):
        raise UsageError(f"{config} has no volume with `soft`; give it to each volume that teachers are to map")
    networks = [(name, load_start(name).eval()) for name in teachers]
    volumes = []
    for volume in parsed.data:
        if volume.soft is None:
            volumes.append(volume)
            continue
        path = (out / f"{volume.name}.tif").absolute()
        if not path.exists():
            sections = load_sections(data, volume)
            total = np.zeros(sections.raw.shape, np.float32)
            for name, network in networks:
                console.print(f"{volume.name}: mapping with {name}, {1 if _is_exact(network) else 8} passes")
                total += map_network(network, sections, tta=not _is_exact(network))
            with storing(path) as partial:
                levels = np.round(255 * total / len(networks)).astype(np.uint8)
                tifffile.imwrite(
                    partial, levels, photometric="minisblack", compression="zlib", metadata={"axes": "ZYX"}
                )
        volumes.append(volume.model_copy(update={"soft": str(path)}))
    taught: TrainConfig = parsed.model_copy(update={"data": tuple(volumes)})
    store_text(out / f"{parsed.name}.json", taught.model_dump_json(indent=2) + "\n")
    console.print(f"emboundary-train fit {out / parsed.name}.json --data {data} --out RUN")


def _is_exact(network: Segmenter) -> bool:
    return network.spec.law == D4
