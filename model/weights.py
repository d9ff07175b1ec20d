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

from emboundary.model.inception import Segmenter, SegmenterSpec

SPEC_KEY = "emboundary.spec"


class WeightsError(ValueError):
    """A weights file that is missing, unreadable, or not of this package."""


def save_segmenter(net: Segmenter, path: Path) -> None:
    """Write a segmenter's weights and spec to a safetensors file."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    # not save_file, whose files are readable by their owner alone
    path.write_bytes(save(state, metadata={SPEC_KEY: json.dumps(asdict(net.spec))}))


def load_segmenter(path: Path) -> Segmenter:
    """Read a segmenter that ``save_segmenter`` wrote; in training mode, on the CPU.

    Raises:
        WeightsError: no such file, not a safetensors file, a spec that is missing or unknown here, or tensors
            that do not fit it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, safe_open is no mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); give a file written by save_segmenter") from error
    if SPEC_KEY not in metadata:
        raise WeightsError(f"{path} has no metadata {SPEC_KEY!r}; only files written by save_segmenter can be loaded")
    net = Segmenter(_parse_spec(metadata[SPEC_KEY], path))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        _, first, *_ = (line.strip() for line in f"{error}\n\n".splitlines())
        raise WeightsError(f"{path} does not fit its own spec: {first}") from error
    return net


def _parse_spec(text: str, path: Path) -> SegmenterSpec:
    try:
        values = json.loads(text)
        unknown = sorted(set(values) - {field.name for field in fields(SegmenterSpec)})
        if unknown:
            raise WeightsError(f"{path} has a spec with unknown fields {unknown}; another version wrote it")
        return TypeAdapter(SegmenterSpec).validate_python(values)
    except (json.JSONDecodeError, TypeError, ValidationError) as error:
        raise WeightsError(f"{path} has an invalid spec {text!r}: {error}") from error
