"""Write docs/gpu.md from the records in docs/gpu; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from gpu_verdicts import verdicts
from markdown_table import million, shape, table

from emboundary.service.benchmark.findings import best, bottleneck
from emboundary.service.benchmark.profiles import Profile
from emboundary.service.benchmark.records import Report, Row, Spread

DOCS = Path(__file__).parents[2] / "docs"

HEAD = """# Speed, beside what the device can do

Written by `python tests/benchmarks/gpu_page.py` from the JSON files in `docs/gpu`, which `emboundary benchmark` wrote;
every figure below comes from them.  Figures are the median of the rounds (least to most); what compares two of them is
taken within a round, where both were measured right after one another.
"""

AGAIN = """## On a GPU host

```sh
make gpu-figures
```

makes the environments (with `onnxruntime-gpu`, CUDA and cuDNN from PyPI: only the driver must be there), measures, and
writes the records, the pictures and this page anew.  The larger networks have not been trained; random weights are as
fast.  Volumes and maps lie in the temporary folder: `TMPDIR` chooses the disk.  For figures of one model of yours, with
or without a GPU:

```sh
emboundary benchmark --model d4 --tta --profile
```
"""

UNPROVEN = """## What is unproven without a GPU

Nothing on this page has run on a GPU yet.  The code that would is tested on a CPU as far as it goes there (tensors that
stay on the device, lanes, both precisions, every error of a missing link); not run at all are the CUDA and TensorRT
kernels, their memory limits, recorded CUDA graphs, pinned memory, and the profile of kernels.
"""

PROTOCOL = """## How it is measured

- **Bare session**: the network alone; images lie on the device, nothing is copied.  Pixels of halos count.
- **predict**: from opening a Zarr volume to the last byte of the Zarr map, halos not counted; *of bare* is the time of
  the bare session over the very images that the network was given, over that time.
- **service**: clients that each send one image after another to `emboundary serve` in a process of its own.
- **Matrix rate**: the fastest of a few square matrix products through ONNX Runtime in the same precision, TF32 off.
  The share is FLOPs per pixel x pixels per second over it.
- **Bandwidth**: `y = -x` through ONNX Runtime over more than any cache holds, bytes read and written.  *At least*: the
  image, the map and the weights cross the memory once; *layer by layer*: what every layer reads and writes, as the
  runtime's profile tells it, which caches can save.
- **Where the time goes**: ONNX Runtime's profile of one run; on a GPU in a process whose calls wait for their kernels
  (`CUDA_LAUNCH_BLOCKING=1`), where the wheel records none.
- **Busy**: on a GPU what its driver says, sampled; on a CPU the share of the run in which the network ran.
"""


def page(folder: Path) -> str:
    """The whole page."""
    found = {path.stem: Report.model_validate_json(path.read_text()) for path in sorted(folder.glob("*.json"))}
    reports = list(found.values())
    judged = [[v.claim, f"**{v.outcome}**", v.measured] for v in verdicts(reports)]
    parts = [
        HEAD,
        "## What was to be shown on a GPU\n\n" + table(["claim", "outcome", "measured"], judged),
        *("\n".join(_section(name, report, folder)) for name, report in found.items()),
        *([] if any(report.device == "cuda" for report in reports) else [UNPROVEN]),
        AGAIN,
        PROTOCOL,
    ]
    return "\n".join(parts)


def _section(name: str, report: Report, folder: Path) -> Iterator[str]:
    machine = report.machine
    gpus = ", ".join(f"{gpu.name} (compute capability {gpu.compute_capability})" for gpu in machine.gpus)
    on = f"{gpus}, driver {machine.driver}" if report.device == "cuda" else f"{machine.cpu}, {machine.cores} cores"
    packages = ", ".join(f"{package} {version}" for package, version in machine.packages.items())
    yield f"## {name}: {on}\n"
    if (folder / f"{name}.png").exists():
        yield f"![Pixels per second, and shares of the device's limits]({folder.name}/{name}.png)\n"
    yield f"This device at best: {best(report.limits)}.\n"
    head = ["", "of", "million pixels/s", "of bare", "of matrix rate", "of bandwidth: at least", "layer by layer"]
    yield table([*head, "nearer limit", "busy", "p50, p99"], [_cells(row) for row in report.rows])
    if report.ratios:
        rows = [[r.what, r.precision, r.tile or "", r.name, _told(r.times, 3)] for r in report.ratios]
        yield table(["", "precision", "tile", "time of", "times"], rows)
    if report.agreements:
        yield "Difference in probability from the CPU in float32, on the bundled sample:\n"
        rows = [
            [a.model, a.precision, f"{a.largest:.1e}", f"{a.mean:.1e}", a.promised or ""] for a in report.agreements
        ]
        yield table(["model", "precision", "largest", "mean", "promised"], rows)
    yield "Where the time goes:\n"
    for profile in report.profiles:
        yield f"- `{profile.model}` in {profile.precision}, {shape(profile.shape)}: {_operators(profile)};"
        yield f"  {bottleneck(profile, report.limits)}."
    busy = f"; load average {machine.load:g}" if machine.load > machine.cores + 1 else ""
    yield (
        f"\n<sub>{report.measured}; {machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB; Python "
        f"{machine.python}, {packages}{busy}.</sub>\n"
    )


def _cells(row: Row) -> list[str]:
    p50, p99 = (Spread.of(getattr(one, name) for one in row.rounds) for name in ("p50", "p99"))
    busy = Spread.of(one.device for one in row.rounds) or Spread.of(one.network for one in row.rounds)
    extents = shape(row.shape) + (f", {row.clients} clients" if row.clients else "")
    speed = row.pixels_per_second
    return [
        f"{row.what}: `{row.title}`, {row.precision}",
        extents,
        "" if speed is None else f"{million(speed.median)} ({million(speed.low)} to {million(speed.high)})",
        _told(row.of_bare, 3),
        _percent(row.of_matrix),
        _percent(row.of_memory),
        _percent(row.of_memory_by_layers),
        row.nearer_limit or "",
        "" if row.what == "session" else _percent(busy),
        f"{p50.median:.3f} s, {p99.median:.3f} s" if p50 and p99 else "",
    ]


def _operators(profile: Profile) -> str:
    first = ", ".join(f"{one.operator} {one.share:.0%}" for one in profile.operators[:4])
    return f"{first} of the time of {profile.clock}"


def _told(value: Spread | None, digits: int) -> str:
    return "" if value is None else f"{value.median:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _percent(value: Spread | None) -> str:
    return "" if value is None else f"{value.median:.1%}"


def main() -> int:
    """Write the page, or compare it; 1 if it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    target, wanted = DOCS / "gpu.md", page(DOCS / "gpu")
    if given.check:
        return int(not target.exists() or target.read_text() != wanted)
    target.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
