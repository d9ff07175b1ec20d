"""Trained weights as safetensors: unexpanded and unfolded, so that fine-tuning and exporting again work.

The file holds the state of a ``Segmenter`` and, as metadata, the ``SegmenterSpec`` that it belongs to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from emboundary.model.inception import Segmenter, SegmenterSpec

SPEC_KEY = "emboundary.spec"


class WeightsError(ValueError):
    """A weights file that is missing, unreadable, or not of this package."""


def save_segmenter(net: Segmenter, path: Path, *, half: bool = False, notes: dict[str, str] | None = None) -> None:
    """Write a segmenter's weights and spec to a safetensors file.

    Args:
        net: the network.
        path: of the file.
        half: in float16, for training to begin with; reading gives float32 again.
        notes: further metadata, as ``load_notes`` gives it back.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    # not save_file, whose files are readable by their owner alone
    path.write_bytes(save(state, metadata={**(notes or {}), SPEC_KEY: json.dumps(asdict(net.spec))}))


def load_notes(path: Path) -> dict[str, str]:
    """The metadata of a file that ``save_segmenter`` wrote.

    Raises:
        WeightsError: no such file, or not a safetensors file.
    """
    return _read(path)[0]


def load_segmenter(path: Path) -> Segmenter:
    """Read a segmenter that ``save_segmenter`` wrote; in training mode, on the CPU.

    Raises:
        WeightsError: no such file, not a safetensors file, a spec that is missing or unknown here, or tensors
            that do not fit it.
    """
    metadata, state = _read(path)
    if SPEC_KEY not in metadata:
        raise WeightsError(f"{path} has no metadata {SPEC_KEY!r}; only files written by save_segmenter can be loaded")
    net = Segmenter(_parse_spec(metadata[SPEC_KEY], path))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        _, first, *_ = (line.strip() for line in f"{error}\n\n".splitlines())
        raise WeightsError(f"{path} does not fit its own spec: {first}") from error
    return net


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # safe_open is no mapping
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); give a file written by save_segmenter") from error


def _parse_spec(text: str, path: Path) -> SegmenterSpec:
    try:
        values = json.loads(text)
        unknown = sorted(set(values) - {field.name for field in fields(SegmenterSpec)})
        if unknown:
            raise WeightsError(f"{path} has a spec with unknown fields {unknown}; another version wrote it")
        return TypeAdapter(SegmenterSpec).validate_python(values)
    except (json.JSONDecodeError, TypeError, ValidationError) as error:
        raise WeightsError(f"{path} has an invalid spec {text!r}: {error}") from error
