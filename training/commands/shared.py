"""What several commands need: where they speak, which device they take, which sections they are given."""

from __future__ import annotations

import torch
from rich.console import Console

from emboundary.service.engine import Device
from emboundary.service.errors import DeviceError, UsageError

console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def parse_sections(text: str, option: str = "sections") -> tuple[int, int]:
    """Read ``FIRST:STOP``, the value of an option.

    Raises:
        UsageError: anything else, or an empty range.
    """
    try:
        first, stop = (int(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"{option} is {text!r}; it must be FIRST:STOP, e.g. 13:16") from None
    if not 0 <= first < stop:
        raise UsageError(f"{option} is {text!r}; it needs 0 <= FIRST < STOP")
    return first, stop


def torch_device(name: Device, threads: int | None = None) -> torch.device:
    """The device that was asked for; ``auto`` takes a GPU if torch sees one, and says so.

    Raises:
        DeviceError: cuda where torch sees no GPU.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("device is cuda, but torch sees no GPU here; give --device cpu, or install a CUDA build")
    chosen = "cuda" if available and name != "cpu" else "cpu"
    console.print(f"device: {chosen} ({'asked for' if name != 'auto' else 'the best that works here'})")
    return torch.device(chosen)
