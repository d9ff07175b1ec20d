r"""One network on one device with what stands around it, for one run at a time.

    host                    device
    voxels ---- prepare --> image --- network --> probability --- store ----> answer
    (as stored)             (n, c, Y, X)          (n, K, Y, X)                (as stored)

Only voxels and answers cross the bus.  Every arrow is a session of its own, so that one small graph serves every model;
between them nothing is copied.  Several lanes side by side let one copy while another computes.

The same code runs on a CPU, where ``device`` is the host's own memory: so it is tested where there is no GPU.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from emboundary.model.description import ModelDescription
from emboundary.service.engine.pinned import Staging
from emboundary.service.engine.place import Memory, Place
from emboundary.service.engine.protocol import Answer, Part
from emboundary.service.normalising import normalised

_GRAPHS = Path(__file__).parent / "graphs"
_VOXELS = frozenset(("uint8", "int8", "uint16", "int16", "float32"))
# Shapes that stay bound, and their recorded graphs: the ladder of a service has fewer.
_SHAPES = 256

Shape = tuple[int, int, int, int]
Open = Callable[[Path], Any]


@dataclass(frozen=True)
class _Bound:
    """A run of the network on images of one shape."""

    image: Shape
    probability: Shape
    binding: Any
    options: Any


class Lane:
    """See the module.

    Args:
        network: the model's session.
        description: of the model.
        place: where the session runs.
        open_graph: opens a graph of ``graphs`` on the same device.
        recording: whether the session records the network's kernels for each shape, and replays them (CUDA graphs).
    """

    def __init__(
        self, network: Any, description: ModelDescription, place: Place, open_graph: Open, *, recording: bool = False
    ) -> None:
        self.place = place
        self.recording = recording
        self._network = network
        self._description = description
        self._open_graph = open_graph
        self._graphs: dict[str, Any] = {}
        self._bound: OrderedDict[Shape, _Bound] = OrderedDict()
        self._recorded = 0
        self._images: Memory | None = None
        self._probabilities: Memory | None = None
        self._voxels = Staging(pinned=place.device == "cuda")
        self._answers = Staging(pinned=place.device == "cuda")

    def map(self, parts: Sequence[Part], side: tuple[int, int]) -> list[Answer]:
        """One run of the network on all parts; see ``Mapper``."""
        bound = self._bind((sum(len(part.voxels) for part in parts), *side))
        first = 0
        for part in parts:
            self._prepare(part, bound, first)
            first += len(part.voxels)
        self._network.run_with_iobinding(bound.binding, bound.options)
        answers, first = [], 0
        for part in parts:
            answers.append(self._store(part, bound, first))
            first += len(part.voxels)
        return answers

    def bare(self, n: int, y: int, x: int) -> Callable[[], None]:
        """A run of the network alone, on images that are on the device; nothing is copied."""
        bound = self._bind((n, y, x))
        noise = np.random.default_rng(0).normal(size=bound.image).astype(np.float32)
        self._prepare(Part(noise, 0.0, 1.0, slice(None), slice(None)), bound, 0)
        return lambda: self._network.run_with_iobinding(bound.binding, bound.options)

    def _prepare(self, part: Part, bound: _Bound, first: int) -> None:
        """Normalise a part into its place of the images."""
        voxels = part.voxels if part.voxels.dtype.name in _VOXELS else normalised(part.voxels, part.mean, part.std)
        mean, std = (part.mean, part.std) if voxels is part.voxels else (0.0, 1.0)
        _, channels, height, width = bound.image
        n, _, y, x = voxels.shape
        staged = self._voxels.view(voxels.shape, np.dtype(voxels.dtype.name))  # in this machine's order of bytes
        np.copyto(staged, voxels)
        session = self._graph(f"prepare_{voxels.dtype.name}")
        binding = session.io_binding()
        binding.bind_cpu_input("voxels", staged)
        binding.bind_cpu_input("mean", np.array(mean))
        binding.bind_cpu_input("std", np.array(std))
        binding.bind_cpu_input("pads", np.array([0, 0, 0, 0, 0, 0, height - y, width - x], np.int64))
        assert self._images is not None
        self._images.bind_as_output(binding, "image", (n, channels, height, width), first)
        session.run_with_iobinding(binding)

    def _store(self, part: Part, bound: _Bound, first: int) -> Answer:
        """Crop a part's map and bring it to the host as it is stored."""
        n, (y, x) = len(part.voxels), part.voxels.shape[2:]
        (top, bottom, _), (left, right, _) = part.rows.indices(y), part.columns.indices(x)
        outputs = bound.probability[1]
        stored = self._answers.view((n, outputs, bottom - top, right - left), np.dtype(part.dtype))
        invalid = np.zeros((), np.float32)
        session = self._graph(f"store_{part.dtype}")
        binding = session.io_binding()
        assert self._probabilities is not None
        self._probabilities.bind_as_input(binding, "probability", bound.probability)
        binding.bind_cpu_input("starts", np.array([first, 0, top, left], np.int64))
        binding.bind_cpu_input("stops", np.array([first + n, outputs, bottom, right], np.int64))
        for name, array in (("stored", stored), ("invalid", invalid)):
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding)
        return Answer(stored.copy(), not invalid)

    def _graph(self, name: str) -> Any:
        if name not in self._graphs:
            self._graphs[name] = self._open_graph(_GRAPHS / f"{name}.onnx")
        return self._graphs[name]

    def _bind(self, wanted: tuple[int, int, int]) -> _Bound:
        """A run on images of a shape; of those that are kept, the one that was used longest ago makes room."""
        n, y, x = wanted
        image = (n, self._description.footprint.channels, y, x)
        probability = (n, len(self._description.outputs), y, x)
        self._reserve(math.prod(image), math.prod(probability))
        assert self._images is not None
        assert self._probabilities is not None
        if image in self._bound:
            self._bound.move_to_end(image)
            return self._bound[image]
        if len(self._bound) == _SHAPES:
            self._bound.popitem(last=False)
        binding = self._network.io_binding()
        self._images.bind_as_input(binding, self._description.input.name, image)
        self._probabilities.bind_as_output(binding, self._description.output.name, probability)
        options = ort.RunOptions()
        if self.recording:
            # A number is used once: a recorded graph knows the addresses of its time.
            self._recorded += 1
            options.add_run_config_entry("gpu_graph_id", str(self._recorded))
        self._bound[image] = _Bound(image, probability, binding, options)
        return self._bound[image]

    def _reserve(self, images: int, probabilities: int) -> None:
        """Have memory for so many values; what is bound to memory that was too small is bound no more."""
        if self._images is None or self._images.values < images:
            self._bound.clear()
            self._images = None  # given back first
            self._images = self.place.reserve(images)
        if self._probabilities is None or self._probabilities.values < probabilities:
            self._bound.clear()
            self._probabilities = None
            self._probabilities = self.place.reserve(probabilities)
