"""Write docs/benchmarks/README.md from the JSON files beside it; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cpu_tables
import precision_tables
import serving_tables
from markdown_table import mb, million, seconds, shape, table, times

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks"
Result = dict[str, Any]

HEAD = """# Benchmarks and campaigns

Written by `python tests/benchmarks/tables.py` from the JSON files in this folder, which `make campaign DATA=...` makes
anew; every figure below comes from them.  DATA is a TIFF stack of real sections (here: stack 2 of the VNC data).
Contenders take turns in processes of their own; times are the median over the rounds (least to most), ratios are taken
within a round.
"""


def pipeline(found: Result) -> str:
    took = found["seconds"]
    rows = [
        ["`emboundary predict`, TIFF to OME-Zarr", seconds(took["predict"]), times(found["predict_over_bare"])],
        ["bare session, the same tiles from memory", seconds(took["bare"]), "1"],
        ["bare session, whole sections in one pass", seconds(took["whole"]), ""],
    ]
    return (
        f"{shape(found['shape'])} voxels, {found['rounds']} rounds.  `predict` runs at "
        f"{million(found['voxels_per_second'])} million voxels/s; {found['start_seconds']['median']:.1f} s more pass "
        "before INPUT is opened and after the last byte is stored (imports, loading the model).\n\n"
        + table(["", "seconds", "of the bare session"], rows)
        + f"\nImages given to the session: {', '.join(shape(s) for s in found['tiles'])}.  Against whole sections: "
        f"`predict` {times(found['predict_over_whole'])}, the bare session over tiles "
        f"{times(found['bare_over_whole'])}, pixels {found['pixels_over_whole']:.3f}.\n"
    )


def copying(found: Result) -> str:
    rows = [
        [
            name,
            seconds(spread),
            million(found["voxels_per_second"][name]),
            times(found["pipeline_over"][name]) if name in found["pipeline_over"] else "",
            mb(found["peak_bytes"][name]),
        ]
        for name, spread in found["seconds"].items()
    ]
    same = "equals" if found["same"] else "DIFFERS FROM"
    return (
        f"{shape(found['shape'])} voxels of uint8 in chunks of {shape(found['chunk'])}, {found['threads']} threads, "
        f"{found['rounds']} rounds; the identity engine's map {same} its input.\n\n"
        + table(["", "seconds", "million voxels/s", "pipeline's time over this one's", "peak memory"], rows)
    )


def memory(found: Result) -> str:
    rows = [
        [
            f"{row['volume']}, {row['kind']} voxels",
            f"{row['size']} ({shape(row['shape'])})",
            mb(row["peak_bytes"]),
            f"{row['over_small']:.3f}" if "over_small" in row else "",
            f"{row['seconds']:.0f}",
        ]
        for row in found["rows"]
    ]
    within = "All stay" if found["within_bound"] else "NOT ALL STAY"
    return f"{within} under {mb(found['bound_bytes'])}.\n\n" + table(
        ["volume", "size", "peak memory", "over the small one", "seconds"], rows
    )


def contenders(found: Result) -> str:
    rows = [
        [
            row["contender"],
            seconds(row["seconds"]),
            times(row["times_ours"]),
            mb(row["peak_bytes"]),
            mb(row["peak_bytes"] - row["before_bytes"]),
            f"{row['seam_error']:.1e}",
            f"{row['share_above_1e-3']:.2%}",
        ]
        for row in found["rows"]
    ]
    head = [
        "",
        "seconds",
        f"over emboundary, window {found['window']}",
        "peak memory",
        "of it, for the run",
        "seam error",
        "voxels off by > 0.001",
    ]
    return (
        f"{shape(found['shape'])} voxels, windows of {found['window']} x {found['window']}, {found['rounds']} rounds, "
        "one ONNX Runtime session for all.  MONAI and nnU-Net were given sections already reflected at their borders, "
        "without which their error there would be larger.  Seam error: largest difference in probability from the "
        "whole section in one pass.  nnU-Net adds up in half precision, which is part of its error.  Both put "
        "windows where the overlap puts them; where that is no multiple of the network's stride, its answer is another "
        "one, which no blending mends.\n\n" + table(head, rows)
    )


def codecs(found: Result) -> str:
    rows = [
        [dtype, name, f"{row['size']:.3f}", million(row["encoded_per_second"]), million(row["decoded_per_second"])]
        for dtype, candidates in found["codecs"].items()
        for name, row in candidates.items()
    ]
    return (
        f"Maps of {shape(found['shape'])} voxels of real sections by the bundled model, in chunks of "
        f"{shape(found['chunk'])}, one thread, CPU time, best of {found['rounds']} rounds.  Stored are uint8 maps with "
        "`zstd 1` and floats with `blosc zstd 1, shuffled: bits`: from there on, a few per cent of size cost half the "
        "speed or more, and a viewer waits for decoding.\n\n"
        + table(["type", "codec", "size", "million voxels/s encoded", "decoded"], rows)
    )


def campaigns(found: Result) -> str:
    rows = []
    for campaign in found["campaigns"]:
        for test in campaign["tests"]:
            counted = {k: v for k, v in test.items() if k not in ("test", "ended", "seconds")}
            rows.append(
                [
                    f"`{campaign['file'].removeprefix('tests/')}`: {test['test']}",
                    test["ended"],
                    f"{test['seconds']:.0f}",
                    ", ".join(f"{name}: {value}" for name, value in counted.items()),
                ]
            )
    ended = Counter(row[1] for row in rows)
    total = ", ".join(f"{count} {how}" for how, count in ended.items())
    return f"{total}.\n\n" + table(["test at full length", "ended", "seconds", "counted"], rows)


def quantised(found: Result) -> str:
    names = {"float32": "as it is", "float16": "float16 storage", "int8": "int8"}
    rows = [
        [
            f"`{model['model']}` {model['version']}, {names[name]}",
            f"{row['bytes'] / 1e6:.2f} MB",
            f"{row['roc_auc']:.5f}",
            f"{row['average_precision']:.4f}",
            f"{row['largest_difference']:.1e}",
            f"{row['symmetry_error']:.1e}",
            f"{1000 * row['load_seconds']:.0f}",
            f"{row['pass_seconds']:.3f}",
            times(row["faster"]),
            times(row["faster_two_threads"]) if row["faster_two_threads"] else "",
        ]
        for model in found["models"]
        for name, row in model["rows"].items()
    ]
    verdicts = [
        f"`{model['model']}` in int8 {'pays' if model['int8_pays'] else 'does not pay'} (AUC falls by "
        f"{model['auc_lost']:.5f})"
        for model in found["models"]
    ]
    head = [
        *("", "file", "ROC AUC", "average precision", "largest difference", "symmetry error", "load, CPU ms"),
        *("pass, CPU seconds", "times as fast, one thread", "two threads"),
    ]
    return (
        f"Crops of {shape(found['shape'])} voxels of sections that the model was not trained on, "
        f"{found['rounds']} rounds.  int8 pays if the AUC falls by less than {found['may_lose']} and a pass is "
        f"at least {found['must_gain']} times as fast, with one thread (CPU time) and with two (wall time): "
        f"{'; '.join(verdicts)}.  The load average was {found['others_load']:.0f} when this began; whatever else runs "
        "stretches wall times.  8-bit sums are exact, so a symmetric network is symmetric in int8 bit "
        "for bit up to its float32 head.\n\n" + table(head, rows)
    )


def training_speed(found: Result) -> str:
    rows = [
        [
            f"`{row['model']}`, {row['variant']}",
            f"{row['pixels_per_second_and_core']['median'] / 1000:.0f}",
            times(row["over_before"]),
        ]
        for row in found["rows"]
    ]
    return (
        "The whole loop of the campaign's networks: drawing and augmenting 2 crops of 192 x 192, forward, backward, "
        f"optimiser; the median of {found['steps']} steps in each of {found['rounds']} rounds, one thread unless it "
        "says otherwise.  before: float32 with torch's 3x3 mean; float32: the mean as shifted maps; as shipped: and "
        "bfloat16 where the processor has it; side by side: as shipped, a process for every core at a time; all "
        "threads: as shipped, one process on all cores.\n\n"
        + table(["", "thousand pixels of crops per second and core", "of before"], rows)
    )


def group_cost(found: Result) -> str:
    rows = [
        [
            row["planar_channels"],
            f"{row['images']} x {row['side']} x {row['side']}",
            times(row["training_over_plain"]),
            times(row["inference_kept_over_plain"]),
            times(row["inference_anew_over_plain"]),
            f"{row['parameters']['p4m']:,} of {row['parameters']['plain']:,}",
        ]
        for row in found["shapes"]
    ]
    head = ["planar channels", "images", "training", "inference, bank kept", "inference, bank made anew", "parameters"]
    return (
        f"A {found['kernel']}x{found['kernel']} layer from D4 fields to D4 fields against an ordinary convolution with "
        f"as many channels; time of the one over that of the other, {found['rounds']} rounds, {found['threads']} "
        "threads.  Training is forward and backward, to the input and the weights.\n\n" + table(head, rows)
    )


SECTIONS = {
    "pipeline": ("What a run costs beside its network", pipeline),
    "copying": ("The pipeline without a network, against a plain zarr-python copy", copying),
    "memory": ("Peak memory", memory),
    "contenders": ("Side by side with MONAI and nnU-Net", contenders),
    "codecs": ("Storing boundary maps", codecs),
    "quantised": ("Smaller files: float16 storage and int8", quantised),
    "precisions": ("What precisions cost in accuracy", precision_tables.precisions),
    "cpu_engine": ("The engine on CPUs: against torch, and its choices", cpu_tables.engine),
    "training_speed": ("The training loop", training_speed),
    "group_cost": ("A p4m layer against an ordinary convolution", group_cost),
    "serving": ("The service beside its session, LitServe and BentoML", serving_tables.serving),
    "load": ("The service under load", serving_tables.load),
    "serving_stops": ("Stopping and killing the service", serving_tables.stops),
    "attacks": ("Attacks on the service", serving_tables.attacks),
    "campaigns": ("Campaigns", campaigns),
}


def page(folder: Path) -> str:
    """The whole page."""
    parts = [HEAD]
    for name, (title, write) in SECTIONS.items():
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        machine = found["machine"]
        packages = ", ".join(f"{package} {version}" for package, version in machine["packages"].items())
        parts.append(
            f"## {title}\n\n{write(found)}\n<sub>{found['measured']}; {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB; Python {machine['python']}, {packages}.</sub>\n"
        )
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it; 1 if it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    target = RESULTS / "README.md"
    wanted = page(RESULTS)
    if given.check:
        return int(not target.exists() or target.read_text() != wanted)
    target.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
