"""An examination as a page and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emboundary.training.examination import Examination
from emboundary.training.figures import BLUE, GREY, ORANGE, VERMILLION, new_figure, save_figure

FILTERS, STABILITY, WORST = "filters.png", "stability.png", "worst.png"


def page(found: Examination, *, filters: bool) -> str:
    """The examination in Markdown; the pictures lie beside it, that of the filters if there is one."""
    rotation, translation = found.rotation, found.translation
    worst = max(range(found.count), key=rotation.scores.__getitem__)
    moved = max(range(found.count), key=translation.scores.__getitem__)
    lines = [
        f"# Examination of {found.name}",
        "",
        f"Measured on {found.count} image{'s' * (found.count > 1)} of {found.side[0]} x {found.side[1]} pixels: "
        f"{found.images}.  Changes are relative to the output, in the Euclidean norm if nothing else is said.",
        "",
        "## Equivariance error",
        "",
        "`|f(g x) - g f(x)|` of the logits, in float32.",
        "",
        "| element | largest | relative to the largest value | relative, Euclidean |",
        "|---|---|---|---|",
        *(
            f"| {e.element} | {e.absolute_max:.2g} | {e.relative_max:.2g} | {e.relative_l2:.2g} |"
            for e in found.equivariance.elements
        ),
        "",
        "## Expansion",
        "",
        *_expansion(found),
        "",
        "## Stability",
        "",
        f"![Stability]({STABILITY})",
        "",
        "Change of the probabilities under smooth deformations, and what is left of it when the map is deformed "
        "likewise:",
        "",
        "| largest gradient of the displacement | change of the image | change of the map | beyond moving along |",
        "|---|---|---|---|",
        *(
            f"| {p.size:g} | {p.input_change:.3f} | {p.output_change:.3f} | {p.beyond_moving:.3f} |"
            for p in found.deformations.points
        ),
        "",
        "| noise, in standard deviations of the volume | change of the image | change of the map | worst draw |",
        "|---|---|---|---|",
        *(
            f"| {p.size:g} | {p.input_change:.3f} | {p.output_change:.3f} | {p.largest:.3f} |"
            for p in found.noise.points
        ),
        "",
        "## Worst rotation and translation",
        "",
        f"![Worst moves]({WORST})",
        "",
        f"The worst rotation is by {rotation.degrees[worst]:.1f} degrees: turned back, the map differs by "
        f"{rotation.scores[worst]:.3f}; a map that is only turned and turned back differs by "
        f"{rotation.reference[worst]:.3f} there.  Quarter turns, where nothing is interpolated, change it by "
        f"{max(_at_quarter_turns(found)):.2g} at most.  Compared is the largest disc less {found.margin} pixels.",
        "",
        f"The worst translation by up to {_reach(found)} pixels is by {_words(translation.shifts[moved])}: moved back, "
        f"the map differs by {translation.scores[moved]:.3f}.",
        "",
        *(("## Filters of the first layer", "", f"![Filters]({FILTERS})", "") if filters else ()),
    ]
    return "\n".join(lines)


def _expansion(found: Examination) -> list[str]:
    shown = f"Gradients show an expansion of {found.estimate:.3g} (images of {found.estimate_side} pixels a side)."
    if found.bound is None:
        return [f"No bound is known for one of its layers.  {shown}"]
    side = found.bound.shape[-1]
    largest = sorted(found.bound.stages, key=lambda stage: -stage.constant)[:5]
    return [
        f"Logits of two images of {side} x {side} pixels are at most {found.bound.constant:.3g} times as far apart as "
        f"the images: the bound that the layers' norms give, far above the truth.  {shown}",
        "",
        "| layers with the largest norms | norm |",
        "|---|---|",
        *(f"| {stage.name} ({stage.kind}) | {stage.constant:.2f} |" for stage in largest),
    ]


def _at_quarter_turns(found: Examination) -> list[float]:
    scores = zip(found.rotation.angles, found.rotation.mean_scores, strict=True)
    return [score for angle, score in scores if angle % 90 == 0]


def _reach(found: Examination) -> int:
    return max(max(abs(dy), abs(dx)) for dy, dx in found.translation.grid)


def _words(shift: tuple[int, int]) -> str:
    down, right = shift
    vertical = f"{abs(down)} {'down' if down >= 0 else 'up'}"
    return f"{vertical} and {abs(right)} to the {'right' if right >= 0 else 'left'}"


def draw_stability(path: Path, found: Examination) -> None:
    """Changes against the size of a deformation, and against noise; both axes logarithmic."""
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    deformed, noisy = found.deformations.points, found.noise.points
    sizes = [p.size for p in deformed]
    left.plot(sizes, [p.input_change for p in deformed], ":", color=GREY, label="image")
    left.plot(sizes, [p.output_change for p in deformed], "o-", color=VERMILLION, label="map")
    left.plot(sizes, [p.beyond_moving or 0 for p in deformed], "s--", color=BLUE, label="map, beyond moving along")
    left.set(xlabel="largest gradient of the displacement", title="smooth deformation")
    levels = [p.size for p in noisy]
    right.plot(levels, [p.input_change for p in noisy], ":", color=GREY, label="image")
    right.plot(levels, [p.output_change for p in noisy], "o-", color=VERMILLION, label="map")
    right.plot(levels, [p.largest for p in noisy], "^--", color=ORANGE, label="map, worst draw")
    right.set(xlabel="noise (standard deviations of the volume)", title="noise")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", ylabel="relative change")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
        axes.title.set_fontsize(10)
    figure.suptitle(f"{found.name}: stability", fontsize=10)
    save_figure(figure, path)


def draw_worst(path: Path, found: Examination) -> None:
    """Change of the map against the angle, beside what interpolation does; and against the shift."""
    rotation, translation = found.rotation, found.translation
    figure = new_figure(10.0, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    left.plot(rotation.angles, rotation.mean_scores, "o-", markersize=3, color=VERMILLION, label="map, turned back")
    left.plot(rotation.angles, rotation.mean_reference, ":", color=GREY, label="interpolation alone")
    left.plot(rotation.degrees, rotation.scores, "*", markersize=10, color=BLUE, label="worst of each image")
    left.set(xlabel="rotation (degrees)", ylabel="relative change", title="rotation", ylim=(0, None))
    left.set_xticks(range(0, 361, 45))
    left.grid(alpha=0.25)
    left.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    line = sorted({dy for dy, _ in translation.grid})
    scores = np.asarray(translation.mean_scores).reshape(len(line), len(line))
    picture = right.imshow(scores, cmap="viridis", vmin=0)
    right.set_xticks(range(len(line)), [str(s) for s in line], fontsize=8)
    right.set_yticks(range(len(line)), [str(s) for s in line], fontsize=8)
    right.set(xlabel="shift to the right (pixels)", ylabel="shift down (pixels)", title="translation")
    figure.colorbar(picture, ax=right, label="relative change")
    for axes in (left, right):
        axes.title.set_fontsize(10)
    figure.suptitle(f"{found.name}: worst rotation and translation", fontsize=10)
    save_figure(figure, path)
