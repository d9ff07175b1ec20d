"""Whether a device computes in the type that a configuration asks for, or only imitates it."""

from __future__ import annotations

import torch

from emboundary.training.learning.recipe import LearningConfig

# Any of these is bfloat16 in hardware: Intel's and AMD's vectors, Intel's tiles, Arm's vectors.
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def mixed(config: LearningConfig, device: torch.device) -> bool:
    """Whether a configuration's steps are computed in bfloat16 on a device, with weights in float32."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else _has_bfloat16()


def slow_precision(config: LearningConfig, device: torch.device) -> str | None:
    """What is wrong with a configuration's precision on a device and what helps, in one line; None: nothing.

    A CPU without instructions for bfloat16 takes many times as long for it as for float32.
    """
    if config.precision != "bfloat16" or device.type != "cpu" or _has_bfloat16():
        return None
    return (
        "warning: precision is bfloat16, for which this CPU has no instructions: it takes many times as long as "
        'float32; set precision = "float32", or train on a GPU'
    )


def _has_bfloat16() -> bool:
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in _BFLOAT16)
