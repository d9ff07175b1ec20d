"""Whether this process lives in a container, where GPUs are only what the container was given."""

from __future__ import annotations

import os
from pathlib import Path

_MARKS = ("/.dockerenv", "/run/.containerenv")
GIVE_GPUS = (
    "give it some: `docker run --gpus all`, or a device reservation in compose.yaml (podman: --device "
    "nvidia.com/gpu=all); the host needs the NVIDIA driver and the NVIDIA Container Toolkit"
)


def in_container() -> bool:
    """Docker and podman leave a mark; Kubernetes sets its variables; others set ``container``."""
    marked = any(Path(mark).exists() for mark in _MARKS)
    return marked or bool({"KUBERNETES_SERVICE_HOST", "container"} & set(os.environ))
