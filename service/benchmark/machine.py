"""What a benchmark ran on, as the machine itself says."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from emboundary.service.benchmark.records import Gpu, Machine
from emboundary.service.cores import usable_cores
from emboundary.service.gpus.driver import visible

_PACKAGES = ("emboundary", "onnxruntime", "onnxruntime-gpu", "numpy", "zarr", "numcodecs", "fastapi", "uvicorn")


def machine() -> Machine:
    """This machine, now."""
    driver = visible()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu(),
        cores=usable_cores(),
        memory_gib=round(memory / 2**30, 1),
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 1),
        packages={name: found for name in _PACKAGES if (found := _version(name)) is not None},
        driver=driver.version,
        cuda=None if driver.cuda_version is None else ".".join(map(str, driver.cuda_version)),
        gpus=tuple(
            Gpu(
                name=gpu.name,
                memory_bytes=gpu.memory_bytes,
                compute_capability=".".join(map(str, gpu.compute_capability)),
            )
            for gpu in driver.gpus
        ),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
