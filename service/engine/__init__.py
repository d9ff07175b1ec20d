"""Networks on a device: from images to probabilities, and on a GPU from stored voxels to stored probabilities."""

from emboundary.service.engine.onnx_engine import OnnxEngine, find_model
from emboundary.service.engine.protocol import (
    Answer,
    Device,
    Engine,
    IdentityEngine,
    Images,
    Mapper,
    ModelEngine,
    Part,
)

__all__ = [
    "Answer",
    "Device",
    "Engine",
    "IdentityEngine",
    "Images",
    "Mapper",
    "ModelEngine",
    "OnnxEngine",
    "Part",
    "find_model",
]
