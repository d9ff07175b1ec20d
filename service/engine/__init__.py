"""Networks on a device: from images to probabilities, and on a GPU from stored voxels to stored probabilities."""

from emboundary.service.engine.gpu import GpuOptions
from emboundary.service.engine.onnx_engine import OnnxEngine
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
from emboundary.service.engine.sessions import find_model

__all__ = [
    "Answer",
    "Device",
    "Engine",
    "GpuOptions",
    "IdentityEngine",
    "Images",
    "Mapper",
    "ModelEngine",
    "OnnxEngine",
    "Part",
    "find_model",
]
