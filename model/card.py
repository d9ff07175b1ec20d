"""The model card: a description as a page for people."""

from __future__ import annotations

from emboundary.model.description import ModelDescription, TrainingData, Validation


def render_card(description: ModelDescription) -> str:
    """Render a description as Markdown; nothing is said here that the description does not state."""
    d = description
    sizes = "; ".join(" x ".join(f"{extent:g}" for extent in size) for size in d.trained_voxel_sizes_nm)
    precisions = ", ".join(f"{name} (within {tolerance:g})" for name, tolerance in d.precisions.items())
    rows = [
        ("Input", f"`{d.input.name}`, {d.input.dtype}, axes {', '.join(d.input.axes)}"),
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
    return "\n\n".join(parts) + "\n"


def _normalisation(d: ModelDescription) -> str:
    where = "inside the graph" if d.normalisation.inside_graph else "by the caller"
    return f"{d.normalisation.rule} over the whole volume, {where}"


def _symmetry(d: ModelDescription) -> str:
    return f"{d.symmetry.group}; largest violation over 8 rotations and flips {d.symmetry.error:.2g} in probability"


def _training(data: TrainingData) -> str:
    return f"- {data.name}, {data.sections}. {data.citation}"


def _validation(figures: tuple[Validation, ...]) -> str:
    if not figures:
        return "Not yet."
    rows = [f"| {v.protocol} | {v.roc_auc:.5f} | {v.average_precision:.4f} |" for v in figures]
    return "| protocol | ROC AUC | average precision |\n|---|---|---|\n" + "\n".join(rows)
