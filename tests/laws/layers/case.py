"""What a layer's law is stated as; every ``cases_TOPIC.py`` beside this file has a list of them, ``CASES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from emboundary.model.equivariance import Action, on_fields
from emboundary.model.group_conv import Fields, act_on_fields
from emboundary.model.groups import GROUPS, Group


@dataclass(frozen=True)
class Case:
    """A layer, the kind of map it takes and gives, and where its law ``layer(L_g x) = L_g layer(x)`` is stated.

    Attributes:
        name: of the case, in the test's name.
        build: makes the layer for a group, in the mode (training or evaluation) that the law is stated for.
        inputs, outputs: fields of its maps; ``outputs`` also says how many channels it must give.
        sides: (y, x) of the input.
        groups: those that the case is stated for.
        violation: None, the law holds; a number, it does not, and the relative violation of every one of the groups
            must exceed this.
        onnx: whether the layer is exported, and the file compared with it.
        gradients: whether its gradients are compared with finite differences.
        act_in, act_out: L_g where it is another than that on fields.
        vector: the output is (N, C): it has no pixels, regular fields of it are permuted.
    """

    name: str
    build: Callable[[Group], nn.Module]
    inputs: Fields
    outputs: Fields
    sides: tuple[int, int] = (8, 12)
    groups: tuple[Group, ...] = tuple(GROUPS.values())
    violation: float | None = None
    onnx: bool = True
    gradients: bool = True
    act_in: Action | None = None
    act_out: Action | None = None
    vector: bool = False

    @property
    def on_input(self) -> Action:
        """``L_g`` of what the layer is given."""
        return self.act_in or on_fields(self.inputs)

    @property
    def on_output(self) -> Action:
        """``L_g`` of what the layer gives."""
        return self.act_out or (_on_vector(self.outputs) if self.vector else on_fields(self.outputs))


def _on_vector(fields: Fields) -> Action:
    return lambda group, place, y: act_on_fields(group, place, y[..., None, None], fields)[..., 0, 0]


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def give_statistics(module: nn.Module) -> None:
    """Give every batch norm statistics as if it had been trained."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in ((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 2.0)):
                assert values is not None
                values.uniform_(low, high)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 2.0)
                nn.init.uniform_(norm.bias, -0.5, 0.5)


IMAGE = Fields(trivial=1)
REGULAR, MIXED, THREE = Fields(regular=2), Fields(regular=2, trivial=3), Fields(regular=3)
