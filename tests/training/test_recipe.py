from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from emboundary.training.learning.recipe import OptimiserConfig, learning_rate


def rates(**changes: Any) -> list[float]:
    config = OptimiserConfig(**({"steps": 100, "learning_rate": 1.0, "warmup": 0.0} | changes))
    return [learning_rate(config, step) for step in range(100)]


def test_an_exponential_schedule_falls_by_one_ratio_to_its_factor() -> None:
    fallen = torch.tensor(rates(schedule="exponential", factor=0.1), dtype=torch.float64)[1:]
    torch.testing.assert_close(fallen[1:] / fallen[:-1], torch.full((98,), 0.1 ** (1 / 99), dtype=torch.float64))
    assert fallen[-1] == pytest.approx(0.1, rel=0.03)


def test_a_schedule_in_steps_falls_at_its_milestones() -> None:
    fallen = rates(schedule="steps", factor=0.5, milestones=(0.3, 0.6))
    assert fallen[:30] == [1.0] * 30
    assert fallen[30:60] == [0.5] * 30
    assert fallen[60:] == [0.25] * 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "steps"}, "milestones belong to the schedule 'steps', which needs at least one"),
        ({"milestones": (0.5,)}, "milestones belong to the schedule 'steps', which needs at least one"),
        ({"schedule": "steps", "milestones": (0.5, 0.5)}, "milestones must be fractions of all steps in ascending"),
        ({"momentum": 1.0}, "less than 1"),
        ({"factor": 0.0}, "greater than 0"),
    ],
)
def test_a_recipe_that_breaks_a_rule_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rates(**changes)
