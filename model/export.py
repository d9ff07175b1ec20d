"""From a trained segmenter to a published model folder: plain ONNX, description, card, weights.

    model.onnx             the expanded, folded network with the sigmoid inside
    description.json       what the file promises (``ModelDescription``)
    weights.safetensors    the network as it was trained, for fine-tuning and exporting again
    CARD.md                the description for people

A folder appears under its name only when all four are written and the file has been held to the network.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import CheckerPass, ClearMetadataAndDocStringPass, NameFixPass, RemoveUnusedNodesPass
from torch import Tensor, nn

from emboundary.model.card import render_card
from emboundary.model.description import (
    METADATA_KEY,
    ModelDescription,
    Storage,
    Symmetry,
    TensorDescription,
    TrainingData,
    Validation,
)
from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import count_parameters, flops_per_pixel, receptive_field
from emboundary.model.inception import STRIDE, Segmenter
from emboundary.model.lowering import lower
from emboundary.model.operators import COMPUTING_OPERATORS, PLAIN_OPERATORS
from emboundary.model.parity import Parity, measure_parity
from emboundary.model.repository import DESCRIPTION_FILE, MODEL_FILE
from emboundary.model.storage import one_digit_above, store_in_half
from emboundary.model.weights import save_segmenter

OPSET = 20
TOLERANCE = 1e-5
# Weights rounded to 11 bits cost a few 1e-3 in probability; far more means weights that float16 does not suit.
HALF_TOLERANCE = 0.03
_TRACED = (3 * STRIDE, 5 * STRIDE)
# By its extent, the name of a map's side: a whole, a half, a quarter or an eighth of the image's.
_SIDES = tuple(
    {whole // p: axis if p == 1 else f"{axis}/{p}" for p in (1, 2, 4, 8)}
    for axis, whole in zip("yx", _TRACED, strict=True)
)
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "CARD.md"


class ExportError(RuntimeError):
    """A network that may not be published: its file differs from it, or is not what it says."""


class _Probability(nn.Module):
    """The network with the sigmoid that turns its logit into a probability."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.net(image))


def build_onnx(net: Segmenter) -> onnx.ModelProto:
    """Write a segmenter as a plain ONNX graph: ``image`` (n, c, y, x) -> ``probability`` (n, 1, y, x).

    The c channels are the section that is mapped amid its neighbours, ``net.spec.channels``.  n, y and x are
    dynamic, y and x multiples of the stride.

    Raises:
        ExportError: the graph holds operators other than those of a plain CNN.
    """
    model = _trace(_Probability(expand_and_fold(copy.deepcopy(net).cpu().float())), net.spec.channels)
    lower(model.graph)
    Sequential(RemoveUnusedNodesPass(), ClearMetadataAndDocStringPass(), NameFixPass(), CheckerPass())(model)
    known = PLAIN_OPERATORS | COMPUTING_OPERATORS if net.spec.computes_with_values else PLAIN_OPERATORS
    # anything else means that a pass no longer recognises what it should rewrite
    foreign = {node.op_type for node in model.graph} - known
    if foreign:
        raise ExportError(f"the graph holds {sorted(foreign)}; a plain CNN has only {sorted(known)}")
    _name_extents(model.graph)
    model.graph.name, model.producer_name, model.producer_version = "segmenter", "emboundary", ""
    return ir.to_proto(model)


def _trace(net: nn.Module, channels: int) -> ir.Model:
    """Record the graph at one size; none of ``PLAIN_OPERATORS`` holds a size, so that it serves all of them."""
    with _quiet_exporter():
        program = torch.onnx.export(
            net,
            (torch.zeros(2, channels, *_TRACED),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probability"],
            verbose=False,
        )
    assert program is not None
    return program.model


def export_model(
    net: Segmenter,
    folder: Path,
    *,
    name: str,
    version: str,
    summary: str,
    voxel_sizes_nm: Sequence[tuple[float, float, float]],
    training: Sequence[TrainingData],
    validation: Sequence[Validation],
    weights_licence: str,
    storage: Storage = "float32",
) -> ModelDescription:
    """Publish a segmenter as a model folder, normally ``REPOSITORY/NAME/VERSION``.

    Everything that can be computed or measured is: only provenance is asked for.  ``voxel_sizes_nm`` are
    (z, y, x), one for each data set.  ``storage="float16"`` halves the file: weights are rounded, arithmetic stays
    float32, and the description states the difference from the network that was measured after rounding.

    Raises:
        ExportError: the folder exists, the graph differs from the network by more than 1e-5 in probability at any
            of three sizes in any of eight orientations, a network violates the law of its group by more than 1e-5,
            the graph is not plain, or float16 does not suit the weights.  Nothing is left behind.
    """
    if folder.exists():
        raise ExportError(f"{folder} exists; published models do not change: give another version or remove it")
    net = copy.deepcopy(net).cpu().float().eval()
    model = build_onnx(net)
    parity, tolerance = _checked_parity(net, model), TOLERANCE
    field = receptive_field(model)
    if storage == "float16":
        model = _halved(model)
        parity = _checked_parity(net, model, HALF_TOLERANCE)
        tolerance = one_digit_above(parity.torch_difference)
    description = ModelDescription(
        name=name,
        version=version,
        summary=summary,
        input=TensorDescription(name="image"),
        output=TensorDescription(name="probability"),
        opset=OPSET,
        trained_voxel_sizes_nm=tuple(voxel_sizes_nm),
        receptive_field_radius=(field.context, field.radius, field.radius),
        halo=field.footprint.halo,
        stride=field.footprint.stride,
        symmetry=Symmetry.model_validate({"group": net.spec.law.name, "error": parity.symmetry_error}),
        precisions={"float32": tolerance},
        storage=storage,
        training=tuple(training),
        weights_licence=weights_licence,
        validation=tuple(validation),
        parameters=count_parameters(net),
        flops_per_pixel=flops_per_pixel(expand_and_fold(net), field.stride, net.spec.channels),
        sha256=None,
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: description.model_dump_json()})
    content = model.SerializeToString(deterministic=True)
    description = description.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    with _appearing_whole(folder) as partial:
        (partial / MODEL_FILE).write_bytes(content)
        save_segmenter(net, partial / WEIGHTS_FILE)
        (partial / CARD_FILE).write_text(render_card(description), encoding="utf-8")
        (partial / DESCRIPTION_FILE).write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return description


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return store_in_half(model)
    except ValueError as error:
        raise ExportError(str(error)) from error


def _checked_parity(net: Segmenter, model: onnx.ModelProto, allowed: float = TOLERANCE) -> Parity:
    parity = measure_parity(net, model.SerializeToString())
    if parity.torch_difference > allowed:
        lost = "the export has lost something" if allowed == TOLERANCE else "store the weights as float32"
        raise ExportError(
            f"the exported file differs from the network by {parity.torch_difference:.2g} in probability; "
            f"at most {allowed:g} may be published: {lost}"
        )
    if parity.law_error > TOLERANCE:
        raise ExportError(
            f"the {net.spec.law.name} network violates its symmetry by {parity.law_error:.2g} in probability; at most "
            f"{TOLERANCE:g} may be published: one of its layers is not equivariant, or its weights are far too large"
        )
    return parity


def _name_extents(graph: ir.Graph) -> None:
    """Declare n, y and x dynamic: ``y``, ``y/2`` and so on; drop the exporter's notes on values.

    Maps of other sizes, inside of poolings, are left to the runtime: it plans its memory by equal names.
    """
    computed = [value for node in graph for value in node.outputs]
    for value in [*graph.inputs, *graph.initializers.values(), *computed]:
        value.metadata_props.clear()
    for value in [*graph.inputs, *computed]:
        if value.shape is not None and value.shape.rank() == 4:
            _, channels, *sides = (int(str(extent)) for extent in value.shape)
            named = [_SIDES[axis].get(side) for axis, side in enumerate(sides)]
            value.shape = ir.Shape(["n", channels, *named])


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's remarks about itself (deprecations inside torch, packages it misses) from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """Give a folder to write in that gets its name only if the block ends without an error."""
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
