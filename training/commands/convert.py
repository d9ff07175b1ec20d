"""``emboundary-train convert``."""

from __future__ import annotations

from collections.abc import Sequence

from emboundary.model.description import ModelDescription, Precision
from emboundary.model.repository import ModelError
from emboundary.model.variants import VARIANTS, VariantError, add_variants
from emboundary.model.weights import WeightsError
from emboundary.service.engine import find_model
from emboundary.service.errors import OutputError, UsageError, first_line
from emboundary.training.commands.shared import console, parse_sections
from emboundary.training.samples import Source, made_up_samples, read_samples


def sources(images: Sequence[str], sections: Sequence[str]) -> tuple[Source, ...]:
    """The volumes that were named, each with its sections.

    Raises:
        UsageError: sections that are no range, or neither one for all volumes nor one for each.
    """
    ranges = [parse_sections(text) for text in sections]
    if len(ranges) not in {0, 1, len(images)} or (ranges and not images):
        raise UsageError(
            f"--sections is given {len(ranges)} times and --images {len(images)} times; give it once for all volumes "
            "or once for each, in the same order"
        )
    if not ranges:
        return tuple(Source(path) for path in images)
    return tuple(Source(path, ranges[-1 if len(ranges) == 1 else n]) for n, path in enumerate(images))


def convert(
    model: str, precisions: Sequence[str], images: Sequence[str], sections: Sequence[str], *, overwrite: bool
) -> None:
    """Give a model that is exported already files of other precisions, measured on images."""
    named = sources(images, sections)
    wanted = tuple(_read(text) for text in precisions) or (VARIANTS if named else VARIANTS[:1])
    entry = find_model(model)
    context = entry.description.context
    if named:
        samples = read_samples(named, context)
    else:
        samples = made_up_samples(context)
        console.print("no --images: tolerances are measured on synthetic membranes")
    try:
        described = add_variants(entry.path.parent, wanted, samples, overwrite=overwrite)
    except (VariantError, WeightsError, ModelError, OSError) as error:
        raise OutputError(f"model {model} cannot be converted: {first_line(error)}") from error
    for line in precision_lines(described):
        console.print(line)


def _read(text: str) -> Precision:
    found = next((precision for precision in VARIANTS if precision == text), None)
    if found is None:
        raise UsageError(f"--precision is {text!r}; model.onnx itself is float32: give {' or '.join(VARIANTS)}")
    return found


def precision_lines(description: ModelDescription) -> list[str]:
    """What is on offer beside float32, one line each."""
    return [
        f"{precision}: {variant.file}, within {description.precisions[precision]:g} of float32 in probability, "
        f"symmetry violated by {variant.symmetry_error:.1e} at most"
        for precision, variant in description.variants.items()
    ]
