"""A published model in other precisions: ``float16.onnx`` for GPUs and ``int8.onnx`` for CPUs beside ``model.onnx``.

Each is made from the graph of ``model.onnx``, and measured against the network in torch on images that it was not
calibrated on: the largest difference in probability and the largest violation of the symmetry.  float16 is measured as
GPUs compute it (``half.imitate``) and as the file runs on a CPU; the larger difference counts.

Every file of the folder carries the same description but for the hashes, so that all of them change together: they are
written into a new folder, which then takes the place of the old one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from emboundary.model.card import render_card
from emboundary.model.description import METADATA_KEY, PRECISION_KEY, ModelDescription, Precision, Variant
from emboundary.model.export import CARD_FILE, HALF_TOLERANCE, TOLERANCE, WEIGHTS_FILE
from emboundary.model.half import imitate, to_half
from emboundary.model.parity import Images, Reference
from emboundary.model.quantise import quantise
from emboundary.model.repository import DESCRIPTION_FILE, MODEL_FILE, ModelEntry, load_model
from emboundary.model.storage import one_digit_above, restore_whole
from emboundary.model.weights import load_segmenter

VARIANTS: tuple[Precision, ...] = ("float16", "int8")
_OLD = ".replaced"


class VariantError(ValueError):
    """A precision that a model cannot be given, or a folder that cannot take one."""


# Samples hold far fewer pixels than the volumes to come, and the largest difference of more pixels is larger.
_MARGIN = 2.0


@dataclass(frozen=True)
class Samples:
    """Normalised images (n, c, y, x) like those that the network was trained on, sides multiples of the stride.

    Attributes:
        calibration: the ranges of maps in int8 are those on them; without any there is no int8.
        probes: what variants are measured on.
    """

    calibration: tuple[Images, ...]
    probes: tuple[Images, ...]


@dataclass(frozen=True)
class _Measured:
    model: onnx.ModelProto
    tolerance: float
    symmetry_error: float


def add_variants(
    folder: Path, precisions: Sequence[Precision], samples: Samples, *, overwrite: bool = False
) -> ModelDescription:
    """Give a published model folder files of other precisions; the folder changes as a whole or not at all.

    Args:
        folder: with ``model.onnx``, ``description.json``, ``weights.safetensors``, and ``CARD.md`` if there is one.
        precisions: ``float16``, ``int8`` or both.
        samples: what they are calibrated and measured on.
        overwrite: make a variant again that is there already.

    Raises:
        ValueError: a precision that is no variant.
        VariantError: a precision that is there already, or that does not suit the network; no images to calibrate
            int8 with; a card that was changed by hand.
        ModelError: the folder's files are not what its description says.
        WeightsError: its weights are missing or unreadable.
    """
    _recover(folder)
    entry = load_model(folder)
    _check(entry, precisions, samples, overwrite=overwrite)
    net = load_segmenter(folder / WEIGHTS_FILE).eval()
    reference = Reference(net, samples.probes)
    graph = restore_whole(onnx.load(entry.path))
    made: dict[Precision, _Measured] = {}
    for precision in precisions:
        if precision == "float16":
            made[precision] = _half(graph, reference)
        else:
            made[precision] = _integers(graph, reference, samples.calibration)
    described, files = _described(entry, made)
    card = _card(folder, entry.description, described)
    texts = {DESCRIPTION_FILE: described.model_dump_json(indent=2) + "\n", CARD_FILE: card}
    _replace(folder, files | {name: text.encode() for name, text in texts.items()})
    return described


def _described(entry: ModelEntry, made: dict[Precision, _Measured]) -> tuple[ModelDescription, dict[str, bytes]]:
    """The new description, and all ONNX files with it inside, by their names."""
    before = entry.description
    tolerances = before.precisions | {p: m.tolerance for p, m in made.items()}
    errors = {p: v.symmetry_error for p, v in before.variants.items()} | {p: m.symmetry_error for p, m in made.items()}
    carried = before.model_copy(
        update={"precisions": {p: tolerances[p] for p in ("float32", *VARIANTS) if p in tolerances}}
    )
    offered = [p for p in VARIANTS if p in errors]
    models = {p: made[p].model if p in made else onnx.load(entry.file(p)) for p in offered}
    files = {_file(p): _carrying(model, carried, p) for p, model in models.items()}
    whole = _carrying(onnx.load(entry.path), carried, "float32")
    variants = {p: Variant(file=_file(p), sha256=_sha256(files[_file(p)]), symmetry_error=errors[p]) for p in offered}
    described = carried.model_copy(update={"sha256": _sha256(whole), "variants": variants})
    return described, files | {MODEL_FILE: whole}


def _half(graph: onnx.ModelProto, reference: Reference) -> _Measured:
    try:
        half = to_half(graph)
    except ValueError as error:
        raise VariantError(f"float16 does not suit this network: {error}") from error
    # on the CPU the file itself runs without most roundings; what both show together is a bound for either
    imitated, itself = (reference.compare(model.SerializeToString()) for model in (imitate(half), half))
    difference = max(imitated.torch_difference, itself.torch_difference)
    if difference > HALF_TOLERANCE:
        raise VariantError(
            f"float16 does not suit this network: it changes probabilities by {difference:.2g}, and at most "
            f"{HALF_TOLERANCE:g} may be published: offer the model without"
        )
    return _Measured(half, one_digit_above(_MARGIN * difference), max(imitated.symmetry_error, itself.symmetry_error))


def _integers(graph: onnx.ModelProto, reference: Reference, calibration: Sequence[Images]) -> _Measured:
    try:
        model = quantise(graph, calibration)
    except ValueError as error:
        raise VariantError(f"int8 does not suit this network: {error}") from error
    parity = reference.compare(model.SerializeToString())
    if parity.law_error > TOLERANCE:
        raise VariantError(
            f"int8 violates the symmetry of this network by {parity.law_error:.2g} in probability; at most "
            f"{TOLERANCE:g} may be published: give images that are like those it was trained on"
        )
    return _Measured(model, one_digit_above(_MARGIN * parity.torch_difference), parity.symmetry_error)


def _check(entry: ModelEntry, precisions: Sequence[Precision], samples: Samples, *, overwrite: bool) -> None:
    for precision in precisions:
        if precision not in VARIANTS:
            raise ValueError(f"precision is {precision!r}; a variant is one of {VARIANTS}")
        if precision in entry.description.variants and not overwrite:
            raise VariantError(
                f"{entry.path.parent} has {precision} already; --overwrite makes it again, and changes the hashes of "
                "all its files"
            )
    if "int8" in precisions and not samples.calibration:
        raise VariantError(
            "int8 needs images: the ranges of its maps are measured on them; give some of the training sections with "
            "--images"
        )
    if not samples.probes:
        raise VariantError("no images to measure the variants on; give some that the network was made for")


def _carrying(model: onnx.ModelProto, described: ModelDescription, precision: Precision) -> bytes:
    """The file's bytes with the description inside."""
    properties = {METADATA_KEY: described.embedded().model_dump_json()}
    if precision != "float32":
        properties[PRECISION_KEY] = precision
    onnx.helper.set_model_props(model, properties)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _file(precision: Precision) -> str:
    return f"{precision}.onnx"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _card(folder: Path, before: ModelDescription, after: ModelDescription) -> str:
    """The card of the new description; what its makers added to the old one still follows."""
    path = folder / CARD_FILE
    if not path.exists():
        return render_card(after)
    card, described = path.read_text(encoding="utf-8"), render_card(before).rstrip("\n")
    if not card.startswith(described):
        raise VariantError(
            f"{path} does not begin with what {DESCRIPTION_FILE} says, so that it cannot be brought up to date; move "
            "it away, convert, and put what was added to it behind the new one"
        )
    return render_card(after).rstrip("\n") + card[len(described) :]


def _replace(folder: Path, written: dict[str, bytes]) -> None:
    """Put a copy of the folder with some files changed in its place."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + _OLD)
    shutil.rmtree(new, ignore_errors=True)
    try:
        shutil.copytree(folder, new, ignore=shutil.ignore_patterns(*written))
        for name, content in written.items():
            (new / name).write_bytes(content)
        folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            old.rename(folder)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old)


def _recover(folder: Path) -> None:
    """Give a folder its name back that was killed between the two renamings; clear what a killed one left."""
    old = folder.with_name(folder.name + _OLD)
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
