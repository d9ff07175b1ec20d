"""What a benchmark found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from emboundary.service.benchmark.profiles import Profile
from emboundary.service.benchmark.records import Report, Row, Spread
from emboundary.service.pace import mega

_NAMES = {"session": "bare session", "predict": "predict", "service": "service"}


def tables(report: Report, *, profiles: bool = False) -> Iterator[Table]:
    """One for what was measured, one for ratios, one for agreement, and one for each profile if they are wanted."""
    yield _rows(report)
    if report.ratios:
        yield _ratios(report)
    if report.agreements:
        yield _agreements(report)
    if profiles:
        for profile in report.profiles:
            yield _profile(profile, report)


def case(row: Row) -> str:
    """What a row is of, in one line."""
    extents = " x ".join(map(str, row.shape))
    return f"{extents}, {row.clients} clients" if row.clients else extents


def spread(value: Spread | None, form: str = "{:.2f}", between: str = "\n") -> str:
    """Median, and behind it least to most where rounds differed."""
    if value is None:
        return ""
    middle = form.format(value.median)
    if value.low == value.high:
        return middle
    return f"{middle}{between}{form.format(value.low)}-{form.format(value.high)}"


def _rows(report: Report) -> Table:
    table = _table(f"{report.device}, {rounds(report)}: median, and least to most")
    table.add_column("", min_width=30)
    for title in ("pixel/s", "of bare", "of matrix\nrate", "of band-\nwidth", "busy"):
        table.add_column(title, justify="right")
    for row in report.rows:
        speed, latency = row.pixels_per_second, Spread.of(one.p99 for one in row.rounds)
        device = Spread.of(one.device for one in row.rounds)
        busy = device or (Spread.of(one.network for one in row.rounds) if row.what == "predict" else None)
        asked = "" if latency is None else f"\n99 % within {latency.median:.3f} s"
        table.add_row(
            f"{_NAMES[row.what]}: {row.title}\n{row.precision}, {case(row)}{asked}",
            mega(speed.median).strip() if speed else "",
            spread(row.of_bare),
            spread(row.of_matrix, "{:.0%}"),
            spread(row.of_memory_by_layers or row.of_memory, "{:.0%}"),
            spread(busy, "{:.0%}"),
        )
    table.caption = (
        "of bare: the session alone on the same images.  of bandwidth: bytes that all layers read and write.\n"
        "busy: the GPU, as its driver says, or on a CPU the share of time in which the network ran"
    )
    table.caption_justify = "left"
    return table


def rounds(report: Report) -> str:
    """How many rounds there were, in words."""
    count = max(len(row.rounds) for row in report.rows)
    return f"{count} rounds" if count > 1 else "1 round"


def _ratios(report: Report) -> Table:
    table = _table("time for the same pixels, within rounds")
    for title in ("", "precision", "ratio"):
        table.add_column(title)
    table.add_column("times", justify="right")
    for ratio in report.ratios:
        tile = "" if ratio.tile is None else f", tile {ratio.tile}"
        table.add_row(
            _NAMES[ratio.what] + tile, ratio.precision, ratio.name, spread(ratio.times, "{:.3f}").replace("\n", ", ")
        )
    return table


def _agreements(report: Report) -> Table:
    table = _table("difference in probability from the CPU in float32, on the bundled sample")
    for title in ("model", "precision"):
        table.add_column(title)
    for title in ("largest", "mean", "promised"):
        table.add_column(title, justify="right")
    for one in report.agreements:
        promised = "" if one.promised is None else f"{one.promised:.0e}"
        table.add_row(one.model, one.precision, f"{one.largest:.1e}", f"{one.mean:.1e}", promised)
    return table


def _profile(profile: Profile, report: Report) -> Table:
    shape = " x ".join(map(str, profile.shape))
    limits = report.limits
    table = _table(f"where the time of {profile.model} {profile.precision} goes\n{shape}, time of {profile.clock}")
    table.add_column("layer")
    for title in ("ms", "share", "of matrix\nrate", "of band-\nwidth"):
        table.add_column(title, justify="right")
    matrix = limits.matrix.get(profile.precision)
    for layer in profile.layers:
        per_second = (layer.operations or 0.0) / layer.seconds if layer.seconds else 0.0
        moved = layer.bytes / layer.seconds if layer.seconds else 0.0
        table.add_row(
            f"{layer.operator} {layer.name}\n{' x '.join(map(str, layer.output))}",
            f"{1000 * layer.seconds:.2f}",
            f"{layer.share:.1%}",
            f"{per_second / matrix:.0%}" if matrix and per_second else "",
            f"{moved / limits.memory:.0%}",
        )
    table.add_section()
    for operator in profile.operators:
        name = f"all {operator.layers} {operator.operator}"
        table.add_row(name, f"{1000 * operator.seconds:.2f}", f"{operator.share:.1%}")
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")
