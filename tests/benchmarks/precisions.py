"""What precisions cost in accuracy: ``python precisions.py --data DATA [--model NAME|PATH]... [--first N]``.

DATA is the folder that the configuration's paths are relative to.  Each model is scored in every precision that it
offers on the configuration's validation sections, through the code that ``emboundary-train evaluate`` scores with: ROC
AUC, average precision, and the difference in probability from float32.  float16 is computed as GPUs round it
(``model.half.imitate``).

Then what it pays to leave in float32: the same on the middle of the first section, and the violation of the symmetry,
for graphs of which more and more stays float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from measuring import publish, say
from numpy.typing import NDArray

from emboundary.model.geometry import Footprint
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.half import imitate, to_half
from emboundary.model.head import head_of, name_nodes
from emboundary.model.repository import ModelEntry, load_model
from emboundary.model.storage import restore_whole
from emboundary.training.config import load_config
from emboundary.training.crops.data import LabelledVolume, load_volume
from emboundary.training.metrics import boundary_scores
from emboundary.training.publishing import held_out
from emboundary.training.scoring.evaluate import segment

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "d4.toml"
MODELS = ("d4", "plain", "paper")
BASE = "float32"
SIDE = 384
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Graph:
    """An ONNX graph on the CPU as an engine."""

    session: Any
    footprint: Footprint
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Images) -> Images:
        """Probabilities of images (n, c, y, x)."""
        return np.asarray(self.session.run(None, {"image": np.ascontiguousarray(images)})[0])


def engine(model: onnx.ModelProto, entry: ModelEntry) -> Graph:
    """A graph with the model's footprint."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Graph(session, entry.description.footprint)


def engines(entry: ModelEntry) -> dict[str, Graph]:
    """The model's files, by precision; float16 rounds as on a GPU."""
    found = {}
    for precision in entry.description.precisions:
        model = onnx.load(entry.file(precision))
        found[precision] = engine(imitate(model) if precision == "float16" else model, entry)
    return found


def accuracy(entry: ModelEntry, volumes: Iterable[LabelledVolume]) -> list[dict[str, Any]]:
    """Scores of every precision on every volume."""
    running, rows = engines(entry), []
    for volume in volumes:
        maps = {precision: segment(graph, volume)[0] for precision, graph in running.items()}
        for precision, probability in maps.items():
            scores = boundary_scores(volume.target, probability)
            difference = np.abs(probability - maps[BASE])
            rows.append(
                {
                    "volume": volume.name,
                    "sections": len(volume.raw),
                    "precision": precision,
                    "roc_auc": scores.roc_auc,
                    "average_precision": scores.average_precision,
                    "largest_difference": float(difference.max()),
                    "mean_difference": float(difference.mean()),
                }
            )
            say(f"{entry.description.name}: {rows[-1]}")
    return rows


def kept_in_float32(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Sets of nodes that may stay float32, by what they are."""
    head = set(head_of(model))
    makers = {name: node for node in model.graph.node for name in node.output}
    pending = [name for node in model.graph.node if node.name in head for name in node.input]
    last: set[str] = set()
    while pending:
        node = makers.get(pending.pop())
        if node is not None and node.name not in head:
            last.add(node.name)
            if node.op_type in ("Add", "Relu"):
                pending.extend(node.input)
    first = {name for node in model.graph.node if "image" in node.input for name in node.output}
    stem = {node.name for node in model.graph.node if first & {*node.output, *node.input} and node.op_type != "Concat"}
    stem = {n.name for n in model.graph.node if n.name in stem and ("image" in n.input or n.op_type == "Relu")}
    return {
        "nothing": set(),
        "head": head,
        "head, last wide convolution": head | last,
        "head, first layers": head | stem,
    }


def ablation(entry: ModelEntry, volume: LabelledVolume) -> list[dict[str, Any]]:
    """Distance and violation of the symmetry on one crop, for more and more in float32."""
    model = restore_whole(onnx.load(entry.path))
    name_nodes(model)
    height, width = volume.raw.shape[1:]
    side = min(SIDE, height, width) // 8 * 8
    top, left = (height - side) // 2, (width - side) // 2
    image = np.ascontiguousarray(volume.raw[:1, None, top : top + side, left : left + side])
    wanted, rows = engine(model, entry).run(image), []
    for what, kept in kept_in_float32(model).items():
        graph = engine(imitate(to_half(model, whole=kept)), entry)
        back = [act(inverse_element(e), graph.run(act(e, image))) for e in D4.elements]
        difference = np.abs(back[0] - wanted)
        rows.append(
            {
                "float32": what,
                "largest_difference": float(difference.max()),
                "mean_difference": float(difference.mean()),
                "symmetry_error": max(float(np.abs(b - back[0]).max()) for b in back),
            }
        )
        say(f"{entry.description.name}: {rows[-1]}")
    return rows


def main() -> None:
    """Measure every model that was asked for, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the training data")
    parser.add_argument("--config", type=Path, default=CONFIG, help="whose validation sections are scored")
    parser.add_argument("--model", action="append", help="name or path; as often as wanted")
    parser.add_argument("--first", type=int, help="only so many sections of each volume")
    given = parser.parse_args()
    volumes = []
    for described, sections in held_out(load_config(given.config), None, None, origin=str(given.config)):
        whole = load_volume(given.data, described, sections)
        volumes.append(replace(whole, raw=whole.raw[: given.first], target=whole.target[: given.first]))
    measured = []
    for name in given.model or MODELS:
        entry = load_model(name)
        measured.append(
            {
                "model": entry.description.name,
                "version": entry.description.version,
                "group": entry.description.symmetry.group,
                "rows": accuracy(entry, volumes),
                "kept": ablation(entry, volumes[0]),
            }
        )
    publish("precisions", {"side": SIDE, "models": measured})


if __name__ == "__main__":
    main()
