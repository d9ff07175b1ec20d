"""What follows from a benchmark, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from emboundary.service.benchmark.profiles import LayerTime, Profile
from emboundary.service.benchmark.records import Limits, Report
from emboundary.service.pace import mega


def findings(report: Report) -> Iterator[str]:
    """The limits of the device, where each network's time goes, and whether other processes were in the way."""
    limits = report.rows[0].rounds[-1].limits
    rates = ", ".join(f"{mega(rate)}operations/s in {precision}" for precision, rate in limits.matrix.items())
    yield f"this device at best: matrix products {rates}; memory {mega(limits.memory)}byte/s read and written"
    for profile in report.profiles:
        yield f"{profile.model} {profile.precision}: {bottleneck(profile, limits)}"
    machine = report.machine
    if machine.load > machine.cores + 1:
        yield f"the load average was {machine.load:g} on {machine.cores} cores: other processes slowed this down"


def bottleneck(profile: Profile, limits: Limits) -> str:
    """Which layer takes longest, and what holds it back."""
    layer = profile.bottleneck
    shape = " x ".join(map(str, layer.output))
    between = 1 - profile.seconds / profile.run_seconds if profile.clock == "device" else None
    idle = f"; the device waits for {between:.0%} of the run" if between is not None and between > 0 else ""
    return (
        f"the next bottleneck is {layer.operator} {layer.name} ({shape}) with {layer.share:.0%} of the time, "
        f"{_held_back(profile, layer, limits)}{idle}"
    )


def _held_back(profile: Profile, layer: LayerTime, limits: Limits) -> str:
    if not layer.seconds:
        return "of which nothing is known"
    matrix = limits.matrix.get(profile.precision)
    arithmetic = layer.operations / layer.seconds / matrix if matrix else 0.0
    memory = layer.bytes / layer.seconds / limits.memory
    if arithmetic >= memory:
        return f"held back by arithmetic: {arithmetic:.0%} of the matrix rate"
    return f"held back by memory: {memory:.0%} of the bandwidth"
