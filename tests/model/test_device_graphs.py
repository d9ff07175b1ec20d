from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from emboundary.model.device_graphs import STORED, VOXELS, prepare_graph, store_graph, write_graphs

FOLDER = Path(str(resources.files("emboundary.service"))) / "engine" / "graphs"


def test_the_files_are_what_is_built(tmp_path: Path) -> None:
    write_graphs(tmp_path)
    built = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert built == {file.name: file.read_bytes() for file in FOLDER.iterdir()}
    assert set(built) == {f"prepare_{name}.onnx" for name in VOXELS} | {f"store_{name}.onnx" for name in STORED}


@pytest.mark.parametrize("name", VOXELS)
def test_voxels_are_normalised_in_double_precision(name: str) -> None:
    assert [node.op_type for node in prepare_graph(name).graph.node] == ["Cast", "Sub", "Div", "Cast", "Pad"]


def test_levels_are_rounded_before_they_are_cast() -> None:
    kinds = [node.op_type for node in store_graph("uint8").graph.node]
    assert kinds[-3:] == ["Mul", "Round", "Cast"]
