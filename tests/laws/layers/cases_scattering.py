"""Scattering and what is read from it."""

from __future__ import annotations

from typing import Any

from case import IMAGE, Case
from torch import nn

from emboundary.model.equivariance import Action
from emboundary.model.group_conv import Fields, GroupConv2d
from emboundary.model.groups import C2, C4, D1, D2, D4, Group
from emboundary.model.scattering import InvariantScattering, OrientationFields, Scattering2d

RGB = Fields(trivial=3)


def _permuted(scattering: Scattering2d) -> Action:
    return lambda group, place, y: scattering.act(group.elements[place], y)


def _case(name: str, inputs: Fields, scales: int, angles: int, order: int, **options: Any) -> Case:
    def build(_: Group) -> Scattering2d:
        return Scattering2d(inputs.trivial, scales, angles, order, **options)

    probe = build(D4)
    coefficients = Fields(trivial=inputs.trivial * probe.coefficients)
    sides = (3 * 2**scales, 4 * 2**scales)
    return Case(f"scattering {name}", build, inputs, coefficients, sides, act_out=_permuted(probe))


def _read(name: str, angles: int, order: int) -> Case:
    """Scattering at full resolution, and a group convolution behind it."""

    def build(group: Group) -> nn.Module:
        scattering = Scattering2d(1, 2, angles, order, stride=1)
        fields = OrientationFields(scattering, group)
        return nn.Sequential(scattering, fields, GroupConv2d(group, fields.fields, 2, 3))

    return Case(f"scattering {name} and a group convolution", build, IMAGE, Fields(regular=2))


def _invariant(_: Group) -> nn.Module:
    scattering = Scattering2d(1, 2, 4, stride=2)
    return nn.Sequential(scattering, InvariantScattering(scattering))


def _unturned(_: Group) -> nn.Module:
    return Scattering2d(1, 2, 4)


CASES = [
    _case("J=1 L=2", IMAGE, 1, 2, 2),
    _case("J=2 L=4", IMAGE, 2, 4, 2),
    _case("J=2 L=6 of three channels, order 1", RGB, 2, 6, 1),
    _case("J=2 L=4 at full resolution", IMAGE, 2, 4, 2, stride=1),
    _case("J=3 L=4 at half resolution", IMAGE, 3, 4, 2, stride=2),
    _case("J=2 L=4 reflected", IMAGE, 2, 4, 2, padding="reflect"),
    _read("J=2 L=4 order 1", 4, 1),
    _read("J=2 L=8", 8, 2),
    Case("invariant scattering", _invariant, IMAGE, Fields(trivial=6)),
    Case(
        "scattering with its orientations left in place",
        _unturned,
        IMAGE,
        Fields(trivial=25),
        groups=(C4, D1, D2, D4),
        violation=0.01,
        onnx=False,
        gradients=False,
    ),
    Case(
        "scattering by 4 of sides that are no multiples of 4",
        _unturned,
        IMAGE,
        Fields(trivial=25),
        sides=(9, 13),
        groups=(C2, C4, D1, D2, D4),
        violation=0.01,
        onnx=False,
        gradients=False,
        act_out=_permuted(Scattering2d(1, 2, 4)),
    ),
]
