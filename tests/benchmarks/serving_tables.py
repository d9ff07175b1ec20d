"""The sections of the page of results that are about the service."""

from __future__ import annotations

from typing import Any

from markdown_table import mb, table, times

Result = dict[str, Any]


def milliseconds(spread: dict[str, float]) -> str:
    median, least, most = (1000 * spread[key] for key in ("median", "min", "max"))
    return f"{median:.0f} ({least:.0f} to {most:.0f})"


def serving(found: Result) -> str:
    rows = [
        [
            row["contender"],
            milliseconds(row["p50"]),
            times(row["p50_over_bare"]),
            times(row["rate"]),
            times(row["rate_over_bare"]),
            times(row["rate_over_ours"]),
        ]
        for row in found["rows"]
    ]
    more = found["latency_over_1.15_bare"]["median"] * 1000
    kept = [
        f"{_kept(found['latency_kept'])}: p50 of one client at most 1.15 times the bare session's and 5 ms "
        f"(here {more:+.0f} ms beyond 1.15 times)",
        f"{_kept(found['throughput_kept'])}: {found['clients']} clients together at least 0.9 of the bare session",
        f"{_kept(found['rivals_kept'])}: and at least what LitServe and BentoML reach",
    ]
    head = ["", "p50 of one client, ms", "over bare", f"images/s, {found['clients']} clients", "over bare", "over ours"]
    side, y = found["side"], found["shape"][-1]
    return (
        f"Model {found['model']} on {found['device']}, images of {side} x {side} (to the network {y} x {y}, their "
        f"halos included), {found['rounds']} rounds.  The bare session runs over images prepared beforehand, at its "
        f"best batch ({', '.join(map(str, sorted(set(found['batch']))))}); the servers are asked over HTTP from "
        "another process.\n\n" + table(head, rows) + "\n" + "".join(f"- {line}\n" for line in kept)
    )


def load(found: Result) -> str:
    parts = [f"Model {found['model']} on {found['device']}, images of {found['side']} x {found['side']}.\n"]
    head = ["phase", "images/s", "p50, s", "p99, s", "refused within, s (p99)", "answers", "wrong", "memory afterwards"]
    for run in found["runs"]:
        rows = [
            [
                phase["phase"],
                f"{phase['rate']:.2f}",
                _number(phase["p50"]),
                _number(phase["p99"]),
                _number(phase["refused_p99"]),
                ", ".join(f"{status}: {count}" for status, count in sorted(phase["answers"].items())),
                phase["wrong"],
                mb(phase["memory_after"]),
            ]
            for phase in run["phases"]
        ]
        over = next(phase for phase in run["phases"] if "times" in phase["phase"])
        kept = [
            f"{_kept(run['answers_kept'])}: every answer is the right map, or 429 or 504",
            f"{_kept(run['latency_kept'])}: p99 of the accepted ones {over['p99']:.1f} s, allowed "
            f"{run['allowed_p99']:.1f} s: twice the unloaded p99 and {run['queue_bound_s']:.1f} s for a full queue",
            f"{_kept(run['memory_kept'])}: memory grows by {mb(run['memory_growth'])}",
            f"{_kept(run['well_afterwards'])}: well afterwards",
        ]
        parts.append(
            f"At most {run['queue_tiles']} tiles wait, {run['request_timeout_s']:g} s at most:\n\n"
            + table(head, rows)
            + "\n"
            + "".join(f"- {line}\n" for line in kept)
        )
    return "\n".join(parts)


def stops(found: Result) -> str:
    rows = [
        [
            n,
            stop["in_flight"],
            stop["answered_right"],
            f"{stop['answered_s']:.1f}",
            f"{stop['gone_s']:.1f}",
            stop["exit_code"],
            f"{stop['new_work_on_the_live_connection']}, {stop['new_connection']}",
        ]
        for n, stop in enumerate(found["shutdowns"], 1)
    ]
    head = [
        "",
        "in flight",
        "answered right",
        "last answer, s",
        "gone, s",
        "exit code",
        "new work: live, new connection",
    ]
    kill = found["kill"]
    same = "has the bytes" if kill["same_bytes"] else "DIFFERS FROM those"
    return (
        f"SIGTERM at work, with one live connection besides, {_kept(all(s['kept'] for s in found['shutdowns']))}:\n\n"
        + table(head, rows)
        + f"\nServers killed while they ran a job: {kill['kills']} times over {kill['jobs']} jobs of {kill['blocks']} "
        f"blocks, one begun {kill['most_runs_of_a_job']} times; every output {same} of a run that nothing stopped.\n"
    )


def attacks(found: Result) -> str:
    rows = [
        [row["group"], row["attack"].replace("|", "\\|"), _marked(row["got"], row["held"]), row["note"]]
        for row in found["rows"]
    ]
    held = sum(row["held"] for row in found["rows"])
    notes = [
        "nothing outside the data root was written" if found["outside_untouched"] else "FILES OUTSIDE WERE WRITTEN",
        "the log keeps keys and paths to itself" if found["log_keeps_secrets"] else "THE LOG TELLS SECRETS",
        "the service is well afterwards" if found["well_afterwards"] else "THE SERVICE IS NOT WELL AFTERWARDS",
        f"memory grew by {mb(found['memory_growth'])}",
    ]
    return f"{held} of {len(rows)} were held off; {'; '.join(notes)}.\n\n" + table(["", "attack", "got", ""], rows)


def _marked(answers: str, held: bool) -> str:
    return answers if held else f"**{answers}**"


def _kept(kept: bool) -> str:
    return "kept" if kept else "NOT KEPT"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
