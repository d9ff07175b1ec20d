"""What the benchmarks share: workers in processes of their own, the machine, and results as JSON files.

Every figure is taken in a process that does nothing else, so that no contender pays for another's imports, caches or
memory.  Contenders take turns, round after round, and ratios are taken within a round, so that drift of the machine's
speed cancels.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks"
PACKAGES = (
    *("emboundary", "numpy", "onnxruntime", "zarr", "numcodecs", "tifffile", "torch", "monai", "nnunetv2"),
    *("fastapi", "uvicorn", "h11", "litserve", "bentoml"),
)
MIB = 1 << 20


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def peak_memory() -> int:
    """Most bytes that this process had in memory at once (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def answer(**values: Any) -> None:
    """End a worker: its figures and its peak memory, as the last line of stdout."""
    sys.stdout.write("\n" + json.dumps({**values, "peak_bytes": peak_memory()}) + "\n")


def ask(arguments: Sequence[object], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a Python script with arguments; the JSON object that it prints last."""
    line = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})})
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(line)} failed with {ended.returncode}: {ended.stderr[-2000:]}")
    return dict(json.loads(ended.stdout.rstrip().splitlines()[-1]))


def in_turns(contenders: Mapping[str, Callable[[], dict[str, Any]]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What every contender answers, round after round; each round begins with another one."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            answers[name].append(contenders[name]())
            say(f"round {number + 1} of {rounds}, {name}: {answers[name][-1]}")
    return answers


def ratios(answers: Mapping[str, Sequence[Mapping[str, float]]], name: str, base: str, key: str) -> list[float]:
    """``key`` of one contender over that of another, within each round."""
    return [a[key] / b[key] for a, b in zip(answers[name], answers[base], strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": cores(),
        "memory_gib": round(memory / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def publish(name: str, result: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write NAME.json with the machine and the day."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"measured": date.today().isoformat(), "machine": machine(), **result}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    say(json.dumps(result, indent=1))


def say(line: str) -> None:
    """A line for people."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
