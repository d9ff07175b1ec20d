"""An experiment's page: its question, what was run, the table, the verdict on the published order, the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median, stdev

from emboundary.training.classifying.config import ClassifierConfig
from emboundary.training.experimenting.outcome import Outcome, Times
from emboundary.training.experimenting.plan import Experiment


def is_cost(score: str) -> bool:
    """Whether the smaller value of a score is the better one."""
    return "error" in score or "loss" in score


def values_of(outcomes: Sequence[Outcome], variant: str, score: str) -> list[float]:
    """A score of a variant, one for each seed."""
    return [o.scores[score] for o in outcomes if o.variant == variant and score in o.scores]


def labels_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The variants, each once, in their order."""
    return list(dict.fromkeys(o.variant for o in outcomes))


def time_head(times: Times) -> str:
    """What the times of networks are relative to."""
    return f"time, {next(iter(times))} = 1"


def experiment_page(loaded: Experiment, outcomes: Sequence[Outcome], times: Times, pictures: Sequence[str]) -> str:
    """The page in Markdown; ``pictures`` are files beside it."""
    parts = [f"# {loaded.question}", loaded.about, _what_was_run(loaded), _table(loaded, outcomes, times)]
    parts += [_verdict(loaded, outcomes)]
    parts += [f"![{loaded.question}]({name})" for name in pictures]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_was_run(loaded: Experiment) -> str:
    first = loaded.variants[0]
    config, seeds = first.config, sorted({v.config.seed for v in loaded.variants})
    if isinstance(config, ClassifierConfig):
        data = config.data
        learned = f"{data.dataset}, {_many(data.train)} training and {_many(data.test)} {data.part} images"
        learned += f", batches of {data.batch}"
    else:
        trained = ", ".join(f"{d.name} {d.sections[0]}:{d.sections[1]}" for d in config.data)
        scored = ", ".join(f"{volume.name} {start}:{stop}" for volume, (start, stop) in first.scored)
        learned = f"Trained on sections {trained}; scored on sections {scored}, one pass"
    steps = sorted({v.config.optimiser.steps for v in loaded.variants})
    said = (
        f"{learned}; {' to '.join(f'{s:,}' for s in (steps if len(steps) == 1 else steps[:: len(steps) - 1]))} steps; "
    )
    said += f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}: mean ± standard deviation"
    budget = f"Budget `{loaded.budget}`: {loaded.note} " if loaded.budget else ""
    return f"{budget}{said}. The JSON beside this page holds every configuration."


def _many(count: int | None) -> str:
    return "all" if count is None else f"{count:,}"


def _table(loaded: Experiment, outcomes: Sequence[Outcome], times: Times) -> str:
    scores = [n for n in dict.fromkeys(n for o in outcomes for n in o.scores) if not loaded.shown or n in loaded.shown]
    published = {v.label: v.published for v in loaded.variants}
    claimed = list(dict.fromkeys(name for claims in published.values() for name in claims))
    timed = all(o.seconds is not None for o in outcomes)
    heads = ["variant", "parameters", _cost_head(outcomes[0])]
    if times:
        heads.append(time_head(times))
    heads += [*(["minutes"] if timed else []), "final loss", *scores]
    heads += [f"published {name}" for name in claimed]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for label in labels_of(outcomes):
        mine = [o for o in outcomes if o.variant == label]
        cells = [label, f"{mine[0].parameters:,}", _cost(mine[0])]
        if times:
            cells.append(f"{median(times[label]):.2f}")
        if timed:
            cells.append(f"{fmean(o.seconds or 0.0 for o in mine) / 60:.1f}")
        cells.append(_cell([o.final_loss for o in mine], "loss"))
        cells += [_cell(values_of(outcomes, label, name), name) for name in scores]
        cells += [f"{published[label][name]:g}" if name in published[label] else "" for name in claimed]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cost_head(outcome: Outcome) -> str:
    return "kFLOP/px" if outcome.per == "px" else "MFLOP/image"


def _cost(outcome: Outcome) -> str:
    return f"{outcome.flops / (1e3 if outcome.per == 'px' else 1e6):.1f}"


def _cell(values: Sequence[float], score: str) -> str:
    if not values:
        return "exact: the same" if "8 passes" in score else ""
    digits = 5 if "AUC" in score else 2 if "error" in score else 4
    text = f"{fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.{digits}f}"


def _verdict(loaded: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Whether the published order came out, by the means; and by how many standard errors neighbours are apart."""
    score = loaded.score
    order = [label for label in loaded.order if label in labels_of(outcomes)]
    if score is None or len(order) < 2:
        return ""
    sign = -1 if is_cost(score) else 1
    means = {label: fmean(values_of(outcomes, label, score)) for label in order}
    found = sorted(order, key=lambda label: -sign * means[label])
    said = f"Published order by {score}, the best first: {', '.join(order)}. "
    if found == order:
        said += "**It came out the same here.**"
    else:
        said += f"**Here it is another: {', '.join(found)}.**"
    gaps = [f"{a} against {b}: {_gap(outcomes, a, b, score, sign)}" for a, b in pairwise(order)]
    return f"{said} {'; '.join(gaps)}."


def _gap(outcomes: Sequence[Outcome], a: str, b: str, score: str, sign: int) -> str:
    """By how much ``a`` is better than ``b``, seed by seed."""
    ours, theirs = values_of(outcomes, a, score), values_of(outcomes, b, score)
    better = [sign * (x - y) for x, y in zip(ours, theirs, strict=True)]
    won = sum(gain > 0 for gain in better)
    return (
        f"better by {fmean(better):.2g}, in {won} of {len(better)} seeds"
        if len(better) > 1
        else f"better by {better[0]:.2g}"
    )
