"""The page: a pure function of the records, and of the names of the pictures that were drawn."""

from __future__ import annotations

from collections.abc import Collection

from emboundary.training.comparing.kept_apart import KEPT_APART, KeptApart, kept_apart_table, kept_apart_verdict
from emboundary.training.comparing.records import Environment, Results, SeriesRecord
from emboundary.training.comparing.statistics import is_transfer, joined
from emboundary.training.comparing.tables import (
    costs_table,
    differences_table,
    mean_table,
    ranking_table,
    sizes_table,
    table,
    throughput_table,
)
from emboundary.training.comparing.verdicts import verdicts
from emboundary.training.metrics import THRESHOLDS

FOLDER = "comparison"
BUNDLED = "small.toml"

# From this protocol on thresholds come from training sections.
_CHOSEN_ON_TRAINING = 2
_SCOREBOARD = "scoreboard/bundled.md"

_SPREAD = (
    "Figures are means over the seeds, ± the sample standard deviation; without ±, one seed was run, and by how much "
    "seeds differ is not known."
)


def render(results: Results, pictures: Collection[str], kept: KeptApart | None = None) -> str:
    """The page in Markdown.

    Args:
        results: of the study.
        pictures: names of files in the folder ``comparison`` beside the page.
        kept: figures that others measured, if there are any.
    """
    results = joined(results)
    first, *others = results.series
    transfer = [series for series in others if is_transfer(series)]
    rest = [series for series in others if series not in transfer and not series.limited]
    parts = [
        f"# {results.question}",
        "Written by `emboundary-train compare`, every figure computed from "
        f"[{FOLDER}/results.json]({FOLDER}/results.json); nothing here is typed by hand."
        + ("" if kept is None else "  Figures that others measured are named as such."),
        "## What was to be shown, and what was found",
        table(
            ["claim", "outcome", "measured"],
            [
                (v.claim, f"**{v.outcome}**", v.measured)
                for v in (*([] if kept is None else [kept_apart_verdict(kept)]), *verdicts(results))
            ],
        ),
        _SPREAD,
        *_caveats(results),
        *_kept_apart(kept),
        f"## {first.title}",
        _trained(first),
        "Mean over the volumes:",
        mean_table(results, first),
        "One pass of d4 minus plain + 8x, paired by seed; positive where d4 is better, bold where it falls short:",
        differences_table(results, first),
        *_picture("gains.png", "Gain on one pass of plain, seed by seed", pictures),
        f"Pixels as a ranking, and the regions of the thinned map at {_threshold(results)}:",
        ranking_table(results, first),
        *_picture("curves.png", f"ROC and precision-recall curves, seed {first.seeds[0]}", pictures),
        *[part for series in rest for part in _other(results, series)],
        *(["## On tissue that was never trained on"] if transfer else []),
        *[part for series in transfer for part in _other(results, series)],
        *_scarce(results, pictures),
        *_learning(results, pictures),
        *_cost(results, pictures),
        *_where(first, pictures),
        *_missing(results),
        "## How it was measured",
        _protocol(results),
        "Against the published comparison (Table I of the efficient-invariant-dense-prediction paper): there the "
        "baseline was trained without augmentation at one pass and with it at eight, and the maxout network without; "
        "here all models see the 8 rotations and flips in training, which is the stronger baseline.  The paper joins "
        "eight predictions by majority vote, this comparison by their mean, which ranks pixels better.",
        "## Again",
        _again(results),
        *_environments(results),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


_PROTOCOL = """\
- **Maps.** Every run is exported to ONNX, and maps its sections through the code that serves.  "+ 8x" is the mean of
  the 8 aligned probabilities (rotations and flips).
- **Sections.** Validation sections that no run of the comparison was trained on; every pixel of the whole sections
  counts, borders included, without tolerance.
- **Boundary.** What annotators marked as membrane; for volumes of neuron ids, label 0 and pixels with a neighbour of
  another label in their section.
- **ROC AUC, average precision, best F1** of boundary against other pixels, over all thresholds.
- **V_rand, V_info** (Arganda-Carreras et al. 2015): foreground-restricted Rand and information theoretic scores after
  thinning, against the regions that the true boundary encloses, section by section; all sections in one table; at
  {threshold}, of {count} from {least} to {most}.
- **Mean** is the mean over the volumes, each weighing the same, for each seed before anything else.
- **Time** is that of one section through ONNX Runtime, every contestant once per round; ratios within each round."""


def _protocol(results: Results) -> str:
    return _PROTOCOL.format(
        threshold=_threshold(results), count=len(THRESHOLDS), least=min(THRESHOLDS), most=max(THRESHOLDS)
    )


def _is_chosen_on_scored(results: Results) -> bool:
    return any(run.scores.protocol < _CHOSEN_ON_TRAINING for run in results.runs)


def _threshold(results: Results) -> str:
    if _is_chosen_on_scored(results):
        return "the threshold that is best on the scored sections themselves, which flatters every map"
    return "the threshold that has the largest V_rand on the last training sections of the volume"


def _caveats(results: Results) -> list[str]:
    said = list(results.caveats)
    if _is_chosen_on_scored(results):
        said.append(
            "The thresholds of V_rand and V_info were chosen on the scored sections themselves, for each map by "
            "itself.  The runs of this study are not kept, so that this cannot be measured again; "
            f"[the scoreboard]({_SCOREBOARD}) has the bundled models with thresholds from training sections, and the "
            "scores of their segments by the same rule."
        )
    return ["## What these figures do not show", "\n".join(f"- {line}" for line in said)] if said else []


def _kept_apart(kept: KeptApart | None) -> list[str]:
    if kept is None:
        return []
    return [
        "## On sections that nobody trained or tuned on",
        kept.source,
        kept_apart_table(kept),
        f"The figures are in [{FOLDER}/{KEPT_APART}]({FOLDER}/{KEPT_APART}); bold: one pass of d4 falls short.",
    ]


def _trained(series: SeriesRecord) -> str:
    trained = ", ".join(f"{name} {first}:{stop}" for name, (first, stop) in series.train.items())
    scored = ", ".join(f"{name} {first}:{stop}" for name, (first, stop) in series.score.items())
    seeds = ", ".join(str(seed) for seed in series.seeds)
    plural = "seeds" if len(series.seeds) > 1 else "seed"
    return (
        f"Trained on sections {trained}; scored on {scored}; {series.steps:,} steps "
        f"({series.pixels / 1e6:,.1f} million pixels of crops), {plural} {seeds}."
    )


def _other(results: Results, series: SeriesRecord) -> list[str]:
    return [
        f"### {series.title}",
        _trained(series),
        ranking_table(results, series),
        "One pass of d4 minus plain + 8x:",
        differences_table(results, series),
    ]


def _scarce(results: Results, pictures: Collection[str]) -> list[str]:
    limited = [series for series in results.series if series.limited]
    if not limited:
        return []
    return [
        "## With few training sections",
        *(f"{series.title}: {_trained(series)[0].lower()}{_trained(series)[1:]}" for series in limited),
        *_picture("sizes.png", "Scores against the number of training sections", pictures),
        sizes_table(results),
    ]


def _learning(results: Results, pictures: Collection[str]) -> list[str]:
    parts = [
        "## Learning",
        "The training loss of the models on the same crops in the same order (as Figure 7 of the "
        "efficient-invariant-dense-prediction paper), running means; beside it the loss of the averaged weights on the "
        "held-out sections at the end of the training.",
        *(
            part
            for series in results.series
            for part in _titled(f"losses-{series.key}.png", f"Training loss against steps: {series.title}", pictures)
        ),
    ]
    if results.timing is not None:
        parts += [
            f"Throughput of the training loop, data and augmentation included, on "
            f"{_place(results.timing.environment)} with {results.timing.threads} "
            f"{'thread' if results.timing.threads == 1 else 'threads'}, in interleaved rounds:",
            throughput_table(results.timing),
        ]
    return parts


def _cost(results: Results, pictures: Collection[str]) -> list[str]:
    timing = results.timing
    if timing is None:
        return []
    height, width = timing.shape
    return [
        "## Accuracy against cost",
        *_picture("costs.png", "Average precision against time and against operations", pictures),
        f"Seconds of one section of {timing.volume} ({height} x {width} pixels, the shortest of "
        f"{len(timing.rows[0].seconds)} rounds) on {_place(timing.environment)}; the ratio is the median of the "
        "rounds (lowest to highest).  The equivariance error is the largest `|f(g x) - g f(x)|` in probability over "
        "the 8 rotations and flips g, on a corner of that section.",
        costs_table(timing),
    ]


def _where(series: SeriesRecord, pictures: Collection[str]) -> list[str]:
    shown = [name for name in series.score if f"regions-{name}.png" in pictures]
    if not shown:
        return []
    return [
        "## Where it is right, and where it is wrong",
        f"The tiles of 256 x 256 pixels with the largest and the smallest cross entropy of d4 (seed "
        f"{series.seeds[0]}), at different places; above each map its own cross entropy in the tile.  The last column "
        "shows which map is nearer to the human's, blue: d4's, red: that of plain + 8x.",
        *(
            [f"No pictures of {', '.join(hidden)}, whose terms do not let crops be published with the page."]
            if (hidden := [name for name in series.score if name not in shown])
            else []
        ),
        *(
            part
            for name in shown
            for part in _picture(f"regions-{name}.png", f"{name}: worst and best tiles", pictures)
        ),
    ]


def _missing(results: Results) -> list[str]:
    if not results.missing:
        return []
    listed = ", ".join(f"`{folder}`" for folder in results.missing)
    return ["## Missing", f"Runs of the study that are not finished, and are in no figure above: {listed}."]


def _again(results: Results) -> str:
    study = "" if results.study == BUNDLED else f" --study {results.study}"
    return (
        f"```\nemboundary-train compare --data DATA --runs RUNS --out docs{study}\n```\n\n"
        "trains what RUNS lacks, scores what is not scored, times the engines, and writes this page; `--jobs` runs "
        "several trainings at a time, `--finished-only` takes what is there."
    )


def _environments(results: Results) -> list[str]:
    found = [run.scores.environment for run in results.runs]
    if results.timing is not None:
        found.append(results.timing.environment)
    distinct = dict.fromkeys(told(environment) for environment in found)
    return ["Measured with:", "\n".join(f"- {line}" for line in distinct)] if distinct else []


def told(environment: Environment) -> str:
    """Where something was measured, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    return f"{_place(environment)}: {versions}"


def _place(environment: Environment) -> str:
    cores = "core" if environment.cores == 1 else "cores"
    processor = f"{environment.processor}, {environment.cores} {cores}"
    return processor if environment.device == "cpu" else f"{environment.device} ({processor})"


def _titled(name: str, text: str, pictures: Collection[str]) -> list[str]:
    return [f"{text}:", *_picture(name, text, pictures)] if name in pictures else []


def _picture(name: str, text: str, pictures: Collection[str]) -> list[str]:
    return [f"![{text}]({FOLDER}/{name})"] if name in pictures else []
