"""The part of the page of results that is about the engine on CPUs."""

from __future__ import annotations

from typing import Any

from markdown_table import mb, seconds, table, times

Result = dict[str, Any]


def engine(found: Result) -> str:
    rows = [
        [
            f"`{one['model']}`, {one['side']} x {one['side']}, {name}",
            seconds(row["seconds"]),
            f"{row['cpu_seconds']['median']:.2f}",
            times(row["engine_faster"]),
            mb(row["peak_bytes"]),
            f"{row['difference']:.0e}",
        ]
        for one in found["against_torch"]
        for name, row in one["rows"].items()
    ]
    slow = [f"`{one['model']}` at {one['side']}" for one in found["against_torch"] if not one["fast_enough"]]
    small, large = map(str, found["sides"])
    changes = [
        [
            row["change"],
            seconds(row[f"seconds_{large}"]),
            f"{row[f'cpu_seconds_{large}']['median']:.2f}",
            times(row["over_shipped"][small]),
            times(row["over_shipped"][large]),
            times(row["beside_over_shipped"]),
            f"{row['beside_mib_per_second']['median']:.0f}",
            f"{1000 * row['load_seconds']['median']:.0f}",
            mb(row["peak_bytes"]["median"]),
            mb(row["held_bytes"]["median"]),
        ]
        for row in found["choices"]
    ]
    return (
        f"One image in a pass, {found['passes']} passes in each of {found['rounds']} rounds.  The load average was "
        f"{found['others_load']:.1f} when this began; whatever else runs stretches wall times.  Wanted is "
        f"{found['must_gain']} times the speed of eager torch in its better memory format, in float32: "
        + (f"missed by {', '.join(slow)}" if slow else "reached by every model at every size")
        + ".  Folded, a harder opponent: filters expanded and batch norm folded in before, as the exporter does.\n\n"
        + table(
            ["", "seconds a pass", "CPU seconds", "engine in float32, times as fast", "peak memory", "differs by"], rows
        )
        + f"\nWhat the engine chooses, one choice changed at a time, of `{found['choices_of']}`; times over those of "
        f"the engine as it is, below 1 is better.  Beside: while another thread compresses, at {large} x {large}.\n\n"
        + table(
            [
                *("", f"seconds at {large}", "CPU seconds", f"over, at {small}", f"over, at {large}", "over, beside"),
                *("MiB/s compressed beside", "load, ms", "peak memory", "held at the end"),
            ],
            changes,
        )
    )
