"""What follows from a benchmark, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from emboundary.service.benchmark.profiles import LayerTime, Profile
from emboundary.service.benchmark.records import Limits, Report
from emboundary.service.pace import mega


def findings(report: Report) -> Iterator[str]:
    """The limits of the device, where each network's time goes, and whether other processes were in the way."""
    limits = report.limits
    yield f"this device at best: {best(limits)}"
    for profile in report.profiles:
        yield f"{profile.model} {profile.precision}: {bottleneck(profile, limits)}"
    machine = report.machine
    if machine.load > machine.cores + 1:
        yield f"the load average was {machine.load:g} on {machine.cores} cores: other processes slowed this down"


def best(limits: Limits) -> str:
    """The limits in words."""
    rates = ", ".join(f"{mega(rate)}operations/s in {precision}" for precision, rate in limits.matrix.items())
    return f"matrix products {rates}; memory {mega(limits.memory)}byte/s, read and written"


def bottleneck(profile: Profile, limits: Limits) -> str:
    """Which layer takes longest, and which limit it is nearer to."""
    layer = profile.bottleneck
    shape = " x ".join(map(str, layer.output))
    return (
        f"the next bottleneck is {layer.operator} {layer.name} ({shape}) with {layer.share:.0%} of the time, "
        f"{_nearer(profile, layer, limits)}"
    )


def _nearer(profile: Profile, layer: LayerTime, limits: Limits) -> str:
    if not layer.seconds:
        return "of which nothing more is known"
    matrix = limits.matrix.get(profile.precision)
    memory = layer.bytes / layer.seconds / limits.memory
    if layer.operations is None:
        return f"with {memory:.0%} of the bandwidth; how many operations it does the runtime does not tell"
    arithmetic = layer.operations / layer.seconds / matrix if matrix else 0.0
    if arithmetic >= memory:
        return f"nearer to arithmetic than to memory: {arithmetic:.0%} of the matrix rate"
    return f"nearer to memory than to arithmetic: {memory:.0%} of the bandwidth"
