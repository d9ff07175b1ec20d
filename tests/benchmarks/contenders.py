"""Side by side: this tiler, MONAI's and nnU-Net's, around one ONNX session: ``python contenders.py --data DATA``.

Every contender gets the same sections in memory, normalised alike, already reflected by the network's halo at their
borders (which neither MONAI nor nnU-Net would do), the same ONNX Runtime session (that of ``service.engine``) and the
same window, and answers with maps in memory.  The truth is the whole section in one pass.

* ``emboundary``: ``service.inference.predict_array``; its window holds the halo, and only what lies inside is kept.
  Once more at its default tile, which the others could choose as well.
* ``monai``: ``monai.inferers.sliding_window_inference`` with its defaults (overlap 0.25, windows averaged), with
  Gaussian weights, and with overlap 0.5 and Gaussian weights.
* ``nnunet``: ``nnUNetPredictor.predict_sliding_window_return_logits`` with its defaults (tile_step_size 0.5, Gaussian
  weights), and with tile_step_size 1.0; without mirroring.  The network is a ``torch.nn.Module`` around the session,
  which returns probabilities; nnU-Net averages whatever a network returns, in half precision.

Needs what ``contenders.txt`` beside this file lists.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tifffile
from measuring import answer, ask, in_turns, peak_memory, publish, ratios, spread
from numpy.typing import NDArray

from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array

WINDOW = 512
OURS = {f"emboundary, window {WINDOW}": WINDOW, "emboundary, its default tile": None}
MONAI = {
    "monai, its defaults (overlap 0.25, constant)": {},
    "monai, Gaussian": {"mode": "gaussian"},
    "monai, overlap 0.5, Gaussian": {"mode": "gaussian", "overlap": 0.5},
}
NNUNET = {"nnunet, its defaults (step 0.5, Gaussian)": {}, "nnunet, step 1.0, Gaussian": {"tile_step_size": 1.0}}
WHOLE = "whole sections, one pass each"
Sections = NDArray[np.float32]


def padded(sections: Sections, halo: int, stride: int) -> Sections:
    """Sections (n, y, x) reflected by the halo, then extended to multiples of the stride."""
    _, y, x = sections.shape
    return np.pad(sections, ((0, 0), (halo, halo + -y % stride), (halo, halo + -x % stride)), mode="reflect")


def by_monai(engine: OnnxEngine, sections: Sections, options: dict[str, Any]) -> Callable[[], Sections]:
    """MONAI's sliding window over sections that are already padded."""
    import torch
    from monai.inferers import sliding_window_inference

    def network(windows: Any) -> Any:
        return torch.from_numpy(engine.run(windows.numpy()))

    def run() -> Sections:
        with torch.inference_mode():
            images = torch.from_numpy(sections[:, None])
            found = [sliding_window_inference(i[None], (WINDOW, WINDOW), 1, network, **options)[0, 0] for i in images]
        return np.stack([np.asarray(section) for section in found])

    return run


def by_nnunet(engine: OnnxEngine, sections: Sections, options: dict[str, Any]) -> Callable[[], Sections]:
    """nnU-Net's sliding window, with what it would read from a trained model's folder given by hand."""
    os.environ |= dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), "/nonexistent")
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    class Network(torch.nn.Module):
        def forward(self, windows: Any) -> Any:
            return torch.from_numpy(engine.run(windows.numpy()))

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False, **options)
    predictor.network = Network()
    predictor.configuration_manager = SimpleNamespace(patch_size=(WINDOW, WINDOW))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=1)

    def run() -> Sections:
        found = predictor.predict_sliding_window_return_logits(torch.from_numpy(sections[None]))
        return np.asarray(found[0].float())

    return run


def prepare(name: str, engine: OnnxEngine, raw: NDArray[np.uint8], intensity: Intensity) -> Callable[[], Sections]:
    """The function that makes the maps of ``raw`` (n, y, x), everything imported and in memory."""
    _, halo, _ = engine.footprint.halo
    _, stride, _ = engine.footprint.stride
    if name in OURS:
        window = OURS[name]
        tile = None if window is None else window - 2 * halo
        return lambda: predict_array(engine, raw, intensity, tile=tile)
    images = padded(intensity.normalise(raw), halo, stride)
    if name == WHOLE:
        found: Callable[[], Sections] = lambda: np.stack([engine.run(i[None, None])[0, 0] for i in images])  # noqa: E731
    elif name in MONAI:
        found = by_monai(engine, images, MONAI[name])
    else:
        found = by_nnunet(engine, images, NNUNET[name])
    _, y, x = raw.shape
    return lambda: found()[:, halo : halo + y, halo : halo + x]


def work(name: str, data: Path, first: int, sections: int, target: Path) -> None:
    """One contender in this process: its maps to ``target``, its figures to stdout."""
    stack = tifffile.imread(data)
    raw = stack[first : first + sections]
    intensity = Intensity(float(stack.mean()), float(stack.std()))
    run = prepare(name, OnnxEngine.open(find_model(), "cpu"), raw, intensity)
    before = peak_memory()
    began = time.perf_counter()
    maps = run()
    seconds = time.perf_counter() - began
    np.save(target, maps)
    answer(seconds=seconds, voxels=raw.size, before_bytes=before)


def main() -> None:
    """Let the contenders take turns, compare their maps with the truth, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a TIFF stack of sections of at least 512 x 512")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--sections", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"))
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.data, given.first, given.sections, given.target)
        return
    names = [WHOLE, *OURS, *MONAI, *NNUNET]
    targets = {name: given.scratch / f"contender{number}.npy" for number, name in enumerate(names)}
    common = [__file__, "--data", given.data, "--first", given.first, "--sections", given.sections]

    def contender(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: ask([*common, "--work", name, "--target", targets[name]])

    answers = in_turns({name: contender(name) for name in names}, given.rounds)
    truth = np.load(targets[WHOLE])
    rows = []
    for name in names:
        error = np.abs(np.load(targets[name]).astype(np.float64) - truth)
        rows.append(
            {
                "contender": name,
                "seconds": spread([a["seconds"] for a in answers[name]]),
                "times_ours": spread(ratios(answers, name, next(iter(OURS)), "seconds")),
                "peak_bytes": max(a["peak_bytes"] for a in answers[name]),
                "before_bytes": max(a["before_bytes"] for a in answers[name]),
                "seam_error": float(error.max()),
                "share_above_1e-3": float((error > 1e-3).mean()),
            }
        )
    shape = list(truth.shape)
    publish("contenders", {"window": WINDOW, "shape": shape, "rounds": given.rounds, "rows": rows})
    for target in targets.values():
        target.unlink()


if __name__ == "__main__":
    sys.exit(main())
