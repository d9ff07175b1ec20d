"""The model card: a description as a page for people, and how to make the model again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from emboundary.model.description import ModelDescription, Precision, Spread, TrainingData, Validation


@dataclass(frozen=True)
class Picture:
    """A picture that a card shows.

    Attributes:
        caption: what is seen.
        target: path from the card, or URL.
    """

    caption: str
    target: str


@dataclass(frozen=True)
class Making:
    """How a model came about, and what else its makers say of it.

    Attributes:
        config: the training configuration, JSON.
        used_for: what else the sections served for that the figures are of, in whole sentences.
        fails: Markdown: where the model fails.
        pictures: shown at the end.
    """

    config: str
    used_for: str = ""
    fails: str = ""
    pictures: tuple[Picture, ...] = ()


def render_card(description: ModelDescription, making: Making | None = None) -> str:
    """Render a description as Markdown; beyond ``making`` nothing is said that the description does not state."""
    d = description
    sizes = "; ".join(" x ".join(f"{extent:g}" for extent in size) for size in d.trained_voxel_sizes_nm)
    precisions = ", ".join(f"{name} (within {tolerance:g})" for name, tolerance in d.precisions.items())
    rows = [
        ("Input", f"`{d.input.name}`, {d.input.dtype}, axes {', '.join(d.input.axes)}{_context(d)}"),
        ("Output", f"`{d.output.name}`, probability of: {', '.join(d.outputs)}"),
        ("Voxel sizes trained on (z x y x x, nm)", sizes),
        ("Normalisation", _normalisation(d)),
        ("Border", d.border),
        ("Receptive field radius, halo, stride (z, y, x)", f"{d.receptive_field_radius}, {d.halo}, {d.stride}"),
        ("Symmetry", _symmetry(d)),
        ("Precisions", precisions),
        ("Parameters", f"{d.parameters:,}"),
        ("FLOPs per pixel", f"{d.flops_per_pixel:,.0f}"),
        ("Licence of the weights", d.weights_licence),
        ("SHA-256 of model.onnx", f"`{d.sha256}`"),
    ]
    parts = [
        f"# {d.name}, version {d.version}",
        d.summary,
        "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows),
        "## Trained on",
        "\n".join(_training(data) for data in d.training) or "Nothing: the weights are as initialised.",
        "## Measured",
        _validation(d.validation),
    ]
    if d.variants:
        parts += ["## Precisions", _variants(d)]
    if making is not None:
        parts += _made(making, d.validation)
    return "\n\n".join(parts) + "\n"


def _context(d: ModelDescription) -> str:
    return f"; the channels are sections z - {d.context} to z + {d.context}" if d.context else ""


def _normalisation(d: ModelDescription) -> str:
    where = "inside the graph" if d.normalisation.inside_graph else "by the caller"
    return f"{d.normalisation.rule} over the whole volume, {where}"


def _symmetry(d: ModelDescription) -> str:
    return f"{d.symmetry.group}; largest violation over 8 rotations and flips {d.symmetry.error:.2g} in probability"


def _training(data: TrainingData) -> str:
    return f"- {data.name}, {data.sections}. {data.citation}"


def _variants(d: ModelDescription) -> str:
    rows: list[tuple[Precision, str, float, str | None]] = [("float32", "model.onnx", d.symmetry.error, d.sha256)]
    rows += [(name, v.file, v.symmetry_error, v.sha256) for name, v in d.variants.items()]
    table = [
        "| precision | file | within | violation of the symmetry | SHA-256 |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | `{file}` | {d.precisions[name]:g} | {error:.2g} | `{digest}` |"
            for name, file, error, digest in rows
        ),
    ]
    meaning = (
        "Both are differences in probability: from float32 in torch, for float16 and int8 twice the largest that was "
        "measured; and the largest between the maps of a section and of its rotations and flips.  The figures above "
        "are those of float32."
    )
    return "\n".join([*table, "", meaning])


def _validation(figures: tuple[Validation, ...]) -> str:
    if not figures:
        return "Not yet."
    rows = [
        f"| {v.protocol} | {v.roc_auc:.5f} | {v.average_precision:.4f} | {_or_dash(v.v_rand, '.4f')} "
        f"| {_or_dash(v.v_rand_threshold, 'g')} |"
        for v in figures
    ]
    head = "| protocol | ROC AUC | average precision | V_rand, thinned | at threshold |"
    table = [head, "|---|---|---|---|---|", *rows]
    spreads = [(v, v.spread) for v in figures if v.spread is not None]
    if spreads:
        table += [
            "",
            "The same training with several seeds, mean and sample standard deviation:",
            "",
            "| protocol | seeds | ROC AUC | average precision | V_rand, thinned |",
            "|---|---|---|---|---|",
            *(_spread(v.protocol.partition(",")[0], spread) for v, spread in spreads),
        ]
    return "\n".join(table)


def _spread(what: str, spread: Spread) -> str:
    auc, precision = spread.roc_auc, spread.average_precision
    v_rand = "-" if spread.v_rand is None else f"{spread.v_rand[0]:.4f} ± {spread.v_rand[1]:.4f}"
    return (
        f"| {what} | {spread.seeds} | {auc[0]:.5f} ± {auc[1]:.5f} | {precision[0]:.4f} ± {precision[1]:.4f} "
        f"| {v_rand} |"
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _made(making: Making, figures: tuple[Validation, ...]) -> list[str]:
    text = making.config.rstrip() + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    parts = []
    if making.used_for:
        sections = "; ".join(v.protocol.partition(",")[0] for v in figures)
        parts += ["## What the figures stand on", f"{sections}.", making.used_for.strip()]
    if making.fails:
        parts += ["## Where it fails", making.fails.strip()]
    if making.pictures:
        parts += ["## Pictures", *(f"![{p.caption}]({p.target})\n\n{p.caption}" for p in making.pictures)]
    return [
        *parts,
        "## Making it again",
        "Save this configuration as `config.json` and put the volumes that it names into a folder `DATA`:",
        f"```json\n{text}```",
        "```sh\nemboundary-train fit config.json --data DATA --out RUN\n```",
        f"`RUN/model` is then a model with these figures (SHA-256 of `config.json`: `{digest}`).",
    ]
