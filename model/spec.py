"""What a segmenter is made of: its widths, and the choice of its stem, its trunk and its pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from emboundary.model.groups import C1, C2, C4, D1, D2, D4, Group, find_group
from emboundary.model.pooling import Kind as PoolingKind
from emboundary.model.pooling import PoolSpec
from emboundary.model.symmetric import LEVEL_GROUPS

Symmetry = Literal["plain", "paper", "d4", "custom"]
Trunk = Literal["C1", "C2", "C4", "D1", "D2", "D4", "symmetric"]
StemKind = Literal[
    "ordinary",
    "group",
    "symmetric",
    "rotation-maxout",
    "flip-maxout",
    "rotation-flip",
    "d4-maxout",
    "copies",
    "scattering",
]
Maxout = Literal["none", "skip", "beside", "first", "both"]
Last = Literal["max", "max-mean"]

STRIDE = 8
_ROTATED = ("rotation-maxout", "rotation-flip", "copies")
_WITH_EXPONENT = ("lp", "gaussian-lp", "learned-lp")


@dataclass(frozen=True)
class SegmenterSpec:
    """Everything that determines a network's shape.

    Widths are channels of the ordinary (``plain``) network; over a group G each is divided by |G| into regular
    fields, which keeps the number of floating-point operations.

    Attributes:
        symmetry: ``plain`` (ordinary), ``paper`` (rotation maxout and flip maxout in the stem, ordinary
            behind it) or ``d4`` (exactly equivariant); ``custom``: what ``trunk`` and ``stem_kind`` say.
        angles: rotations of a stem with rotated kernels, 2, 4 or 8; orientations of a scattering stem, even.
        maxout: where a stem over a group takes the maximum over its elements. ``skip``: on the stem's way
            to the decoder, while the trunk goes on with all orientations; ``beside``: the same, and the
            orientations go to the decoder too; ``first``: behind the first layer; ``both``: behind each of
            the two layers; ``none``: nowhere (plain p4m), for comparison.
        stem, a, b, c: width of the stem and of one branch of Inception A, B, C.
        blocks: how many Inception A, B and C blocks follow each other.
        decoder: width of each deconvolved map.
        head: width of the 3x3 layer that joins them.
        mix: width of the 1x1 layer before the maximum over the group.
        last: what the logit is a linear map of: ``max``, the maxima over the group, or ``max-mean``, those and
            the means, through which the gradient reaches every orientation.
        context: neighbouring sections on each side; the image has 2 context + 1 channels, sections z - context to
            z + context in this order, and the logit is that of section z.  Rotations and flips turn every section
            alike, so the channels are trivial fields and the symmetry stays exact.
        trunk: of ``custom``: the group of all convolutions behind the stem, or ``symmetric``: ordinary channels,
            kernels of the symmetry ``level``; None: C1.
        stem_kind: of ``custom``: the stem's two layers.  ``ordinary`` convolutions; ``group``: a lifting and a group
            convolution over the trunk's group; ``symmetric`` kernels of the symmetry ``level``; the maximum over
            turned copies of each kernel: over ``angles`` rotations in both layers (``rotation-maxout``), over the
            published set of flips in both (``flip-maxout``), rotations first and flips second (``rotation-flip``,
            the published stem), or all 8 elements in both (``d4-maxout``); ``copies``: rotated copies side by side,
            without a maximum; ``scattering``: fixed wavelets of ``angles`` orientations and ``scales`` scales and
            moduli, order 2, at full resolution, then a learned 1x1 layer.  None: like the trunk.
        level: of symmetric kernels, 0 (none) to 4.
        scales: of a scattering stem, which averages over 2^scales pixels; 1 to 3.
        pooling: what halves the resolution, behind the stem and in the reductions; see ``model/pooling.py``.  Windows
            are 2x2; those of ``gaussian-lp`` overlap and are 4x4.  ``heterogeneous`` and ``side-by-side`` are of
            maximum and average.  The average pooling inside of Inception modules stays.
        pooling_p: exponent of ``lp`` and ``gaussian-lp``, and the one that ``learned-lp`` begins with; None: 4.

    Raises:
        ValueError: a width that is not a positive multiple of 8, fewer than one block, a context below 0, or choices
            that do not go together.
    """

    symmetry: Symmetry = "plain"
    angles: int = 4
    maxout: Maxout = "skip"
    stem: int = 16
    a: int = 32
    b: int = 48
    c: int = 64
    blocks: tuple[int, int, int] = (1, 2, 1)
    decoder: int = 16
    head: int = 32
    mix: int = 32
    last: Last = "max"
    context: int = 0
    trunk: Trunk | None = None
    stem_kind: StemKind | None = None
    level: int = 0
    scales: int = 2
    pooling: PoolingKind = "max"
    pooling_p: float | None = None

    def __post_init__(self) -> None:
        for name in ("stem", "a", "b", "c", "decoder", "head", "mix"):
            width = getattr(self, name)
            if width < 8 or width % 8:
                raise ValueError(f"{name} is {width}; a width must be a positive multiple of 8, the order of D4")
        if min(self.blocks) < 1:
            raise ValueError(f"blocks is {self.blocks}; each of Inception A, B and C needs at least one block")
        if self.context < 0:
            raise ValueError(f"context is {self.context}; it must be 0 (one section) or a number of neighbours above 0")
        self._check_choices()

    def _check_choices(self) -> None:
        for name, known in (("trunk", get_args(Trunk)), ("stem_kind", get_args(StemKind))):
            chosen = getattr(self, name)
            if chosen is not None and chosen not in known:
                raise ValueError(f"{name} is {chosen!r}; it must be one of {', '.join(known)}")
            if chosen is not None and self.symmetry != "custom":
                raise ValueError(
                    f"{name} is {chosen!r}; symmetry {self.symmetry!r} settles it already: leave it out, or give "
                    "symmetry 'custom'"
                )
        if self.stem_kind == "group" and self.trunk in (None, "C1", "symmetric"):
            raise ValueError(
                f"stem_kind is 'group'; the trunk {self.chosen_trunk!r} has no group to lift to: give trunk C2, C4, "
                "D1, D2 or D4, or stem_kind 'ordinary'"
            )
        if not 0 <= self.level <= 4:
            raise ValueError(f"level is {self.level}; symmetric kernels have levels 0 (none) to 4")
        if self.level and "symmetric" not in (self.trunk, self.stem_kind):
            raise ValueError(
                f"level is {self.level}; it is that of symmetric kernels: give trunk or stem_kind 'symmetric', or "
                "leave it out"
            )
        self._check_angles()
        if not 1 <= self.scales <= 3:
            raise ValueError(f"scales is {self.scales}; a scattering stem has 1 to 3 of them")
        if self.stem_kind == "scattering" and self.maxout == "first":
            raise ValueError(
                "maxout is 'first'; the first layer of a scattering stem has no copies to take it over: give 'none', "
                "'skip', 'beside' or 'both'"
            )
        if self.pooling_p is not None and self.pooling not in _WITH_EXPONENT:
            raise ValueError(
                f"pooling_p is {self.pooling_p}; pooling {self.pooling!r} has no exponent: leave it out, or give one "
                f"of {', '.join(_WITH_EXPONENT)}"
            )
        try:
            _ = self.pool
        except ValueError as error:
            raise ValueError(f"pooling is {self.pooling!r}: {error}") from error

    def _check_angles(self) -> None:
        if self.chosen_stem in _ROTATED and self.angles not in (2, 4, 8):
            raise ValueError(
                f"angles is {self.angles}; the 3x3 kernels of stem_kind {self.chosen_stem!r} have 2, 4 or 8 rotations"
            )
        if self.chosen_stem == "scattering" and (self.angles < 2 or self.angles % 2):
            raise ValueError(
                f"angles is {self.angles}; a scattering stem has an even number of orientations, so that quarter turns "
                "permute them"
            )

    @property
    def pool(self) -> PoolSpec:
        """The pooling that halves the resolution."""
        exponent = PoolSpec.p if self.pooling_p is None else self.pooling_p
        # An even window with padding: its grid lies symmetrically on even sides.
        kernel, padding = (4, 1) if self.pooling == "gaussian-lp" else (2, 0)
        return PoolSpec(self.pooling, kernel=kernel, padding=padding, p=exponent)

    @property
    def computes_with_values(self) -> bool:
        """Whether a layer divides, multiplies or takes roots of what it is given, as no plain CNN does."""
        return self.chosen_stem == "scattering" or self.pooling not in (
            "max",
            "average",
            "heterogeneous",
            "side-by-side",
        )

    @property
    def chosen_trunk(self) -> Trunk:
        """What the trunk is made of, after ``symmetry`` or ``trunk``."""
        return "D4" if self.symmetry == "d4" else self.trunk or "C1"

    @property
    def chosen_stem(self) -> StemKind:
        """What the stem is made of, after ``symmetry`` or ``stem_kind``."""
        if self.symmetry == "paper":
            return "rotation-flip"
        if self.stem_kind is not None:
            return self.stem_kind
        if self.chosen_trunk == "symmetric":
            return "symmetric"
        return "ordinary" if self.group == C1 else "group"

    @property
    def group(self) -> Group:
        """The group whose regular fields the trunk's maps are; C1 for ordinary channels."""
        return C1 if self.chosen_trunk == "symmetric" else find_group(self.chosen_trunk)

    @property
    def trunk_level(self) -> int:
        """Level of the trunk's kernels; 0: they are not tied."""
        return self.level if self.chosen_trunk == "symmetric" else 0

    @property
    def law(self) -> Group:
        """The largest group that the whole map commutes with, exactly: ``f(g x) = g f(x)``.

        It is what the laws of the stem and of the trunk have in common; pooling keeps every one of them.
        """
        trunk = LEVEL_GROUPS[self.level] if self.chosen_trunk == "symmetric" else self.group
        common = set(trunk.elements).intersection(self._stem_law.elements)
        return next(group for group in (C1, C2, C4, D1, D2, D4) if set(group.elements) == common)

    @property
    def _stem_law(self) -> Group:
        match self.chosen_stem:
            case "group" | "scattering":
                return self.group
            case "symmetric":
                return LEVEL_GROUPS[self.level]
            case "rotation-maxout":
                return C2 if self.angles == 2 else C4
            case "d4-maxout":
                return D4
            case _:
                return C1

    @property
    def channels(self) -> int:
        """Channels of the image: the section that is mapped amid its neighbours."""
        return 2 * self.context + 1

    def with_symmetry(self, symmetry: Symmetry) -> SegmenterSpec:
        """The same shape with another symmetry."""
        return replace(self, symmetry=symmetry)
