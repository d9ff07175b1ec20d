"""What a model file promises: ``description.json``, written by the export, checked before every use.

The same object stands beside the file and inside its ONNX metadata (key ``emboundary``), so that a file
copied alone still says what it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from emboundary.model.geometry import Footprint

FORMAT_VERSION: Literal[1] = 1
METADATA_KEY = "emboundary"
# Beside that copy: the precision of the file that it is in.  Files without this key are float32.
PRECISION_KEY = "emboundary.precision"

Triple = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Precision = Literal["float32", "float16", "int8"]
Storage = Literal["float32", "float16"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorDescription(_Strict):
    """An ONNX input or output; axes name its dimensions, ``n``, ``y`` and ``x`` are dynamic."""

    name: str
    dtype: Literal["float32"] = "float32"
    axes: tuple[Literal["n", "c", "y", "x"], ...] = ("n", "c", "y", "x")


class Normalisation(_Strict):
    """How voxel values become network input: ``(value - mean) / std`` over the whole volume.

    Attributes:
        rule: ``zscore``, the only rule today.
        inside_graph: whether the ONNX graph does it itself; False: the caller does.
    """

    rule: Literal["zscore"] = "zscore"
    inside_graph: bool = False


class Symmetry(_Strict):
    """The group that the map commutes with, and how far from it the file was measured to be.

    Attributes:
        group: of the rotations and flips that the network commutes with exactly: ``D4`` all 8, ``C4`` the rotations by
            90 degrees, ``D2`` both mirrors, ``C2`` the rotation by 180 degrees, ``D1`` the mirror in x, ``C1`` none.
        error: largest ``|f(g x) - g f(x)|`` over the 8 elements, whatever the group, in probability, measured on the
            exported file.
    """

    group: Literal["C1", "C2", "C4", "D1", "D2", "D4"]
    error: Annotated[float, Field(ge=0)]


class Variant(_Strict):
    """The same network in another precision: a file that lies beside ``model.onnx``.

    Attributes:
        file: its name.
        sha256: of that file.
        symmetry_error: largest ``|f(g x) - g f(x)|`` over the 8 elements, in probability, measured on that file.
    """

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")]
    sha256: Sha256
    symmetry_error: Annotated[float, Field(ge=0)]


class TrainingData(_Strict):
    """What the weights were learned from, and what they have never seen."""

    name: str
    sections: str
    citation: str


class Spread(_Strict):
    """Figures over runs that differ in their seed alone.

    Attributes:
        seeds: how many runs.
        roc_auc, average_precision, v_rand: mean over the runs and sample standard deviation.
    """

    seeds: Annotated[int, Field(ge=2)]
    roc_auc: tuple[float, float]
    average_precision: tuple[float, float]
    v_rand: tuple[float, float] | None = None


class Validation(_Strict):
    """Measured figures of this file with the protocol that gives them.

    Attributes:
        v_rand: of the thinned map at ``v_rand_threshold``, which was chosen on the sections that the protocol names; on
            the scored ones themselves where it names none.
        spread: the same figures of this model trained with several seeds, where that was done.
    """

    protocol: str
    roc_auc: float
    average_precision: float
    v_rand: float | None = None
    v_rand_threshold: float | None = None
    spread: Spread | None = None


class ModelDescription(_Strict):
    """Everything a caller must know to use a model file rightly.

    Triples are (z, y, x); voxel sizes in nm, halo and stride in voxels.

    Attributes:
        receptive_field_radius: furthest input voxel, in each direction, that an output voxel can depend on.
        halo: that radius rounded up to a multiple of the stride.  In z it is the context: a model that is given c
            neighbouring sections on each side has radius c and halo c in z, stride 1, and 2 c + 1 input channels,
            sections z - c to z + c in this order; sections outside the volume are reflected as rows and columns are.
        border: what stands outside the volume: ``reflect`` (at the outermost voxel centres).
        outputs: the named output channels, in order.
        precisions: for each precision on offer, by how much a probability may differ from float32 in torch: what the
            export measured, rounded up; for other precisions than float32, twice that.
        variants: the file of each precision on offer but float32, which is ``model.onnx``.  Empty in the copies inside
            the files: no file can hold its own hash.
        storage: how the file holds its filter banks; float16 ones are cast once, on loading, and change no arithmetic.
        flops_per_pixel: multiplications and additions of all convolutions, per pixel of the image.
        sha256: of the file ``model.onnx``.  None only in the copies inside the files.

    Raises:
        pydantic.ValidationError: a missing or unknown field, a halo that is no multiple of its stride, or a variant
            whose precision has no tolerance.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9]+$")]
    summary: str
    input: TensorDescription
    output: TensorDescription
    opset: int
    trained_voxel_sizes_nm: tuple[tuple[float, float, float], ...]
    normalisation: Normalisation = Normalisation()
    border: Literal["reflect"] = "reflect"
    receptive_field_radius: Triple
    halo: Triple
    stride: Triple
    outputs: tuple[str, ...] = ("boundary",)
    symmetry: Symmetry
    precisions: dict[Precision, float]
    variants: dict[Precision, Variant] = {}
    storage: Storage = "float32"
    training: tuple[TrainingData, ...]
    weights_licence: str
    validation: tuple[Validation, ...] = ()
    parameters: Annotated[int, Field(ge=0)]
    flops_per_pixel: Annotated[float, Field(ge=0)]
    sha256: Sha256 | None

    @model_validator(mode="after")
    def _footprint_is_consistent(self) -> ModelDescription:
        footprint = self.footprint
        if any(h < r for h, r in zip(footprint.halo, self.receptive_field_radius, strict=True)):
            raise ValueError(
                f"halo {self.halo} is smaller than the receptive field radius {self.receptive_field_radius}; "
                "it must be that radius rounded up to a multiple of the stride"
            )
        return self

    @model_validator(mode="after")
    def _variants_are_consistent(self) -> ModelDescription:
        if "float32" in self.variants:
            raise ValueError("variants names float32, which is model.onnx itself; only other precisions are variants")
        untold = sorted(set(self.variants) - set(self.precisions))
        if untold:
            raise ValueError(f"variants names {', '.join(untold)}, for which precisions states no tolerance")
        files = [variant.file for variant in self.variants.values()]
        if len({"model.onnx", *files}) <= len(files):
            raise ValueError(f"variants have files {files}; each must have one of its own, and not model.onnx")
        return self

    def embedded(self) -> ModelDescription:
        """The copy that stands inside each file: the same but for the hashes, which no file can hold."""
        return self.model_copy(update={"sha256": None, "variants": {}})

    @property
    def footprint(self) -> Footprint:
        """Halo and stride as the tiler wants them."""
        return Footprint(self.halo, self.stride)

    @property
    def context(self) -> int:
        """Neighbouring sections on each side that stand in the input's channels; 0: each section by itself."""
        return self.footprint.context
