"""What a campaign trains, how far each model is, and what is to be done next.

    goal = 2_000_000_000                 # pixels of crops that each model sees
    slice = 1000                         # steps before it is another's turn
    milestones = [150_000_000]           # annealed there as well as at the goal
    starts = "../starts/campaign"        # weights to begin with where there is no state; random ones if not given

    [models]                             # relative to the campaign's file
    d4 = "../configs/flagship/d4.toml"

Each model has a trunk, whose learning rate stays at its peak, and branches, each of which leaves the trunk and lets the
rate fall to zero over the last ``optimiser.decay`` of its own steps: a branch is the training that would have been, had
its end been the goal from the beginning.  So a campaign can go on for as long as there is time, and its state at any
moment can be made into a model.

The folder of a campaign is its whole state:

``NAME/trunk/checkpoint.pt``
    the trunk
``NAME/annealed-STEPS/``
    a branch: a run as ``fit`` leaves it, with ``weights.safetensors`` once it is finished

Source of the schedule: Hägele et al. 2024, Scaling laws and compute-optimal training beyond fixed training durations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from emboundary.training.config import TrainConfig, load_config
from emboundary.training.learning.checkpoint import steps_done
from emboundary.training.learning.loop import CHECKPOINT
from emboundary.training.learning.runs import WEIGHTS
from emboundary.training.strict import ConfigError, PositiveInt, Strict, read_table, validated

CAMPAIGNS = Path(__file__).parents[1] / "campaigns"
TRUNK, ANNEALED = "trunk", "annealed-"


class CampaignConfig(Strict):
    """A campaign's file; see the module."""

    goal: PositiveInt
    slice: PositiveInt = 1000
    milestones: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()
    starts: str | None = None
    models: Annotated[dict[str, str], Field(min_length=1)]


@dataclass(frozen=True)
class Branch:
    """A training that leaves the trunk to be annealed.

    Attributes:
        steps: its end, counted from the trunk's beginning.
        leaves: the trunk's step at which it begins.
    """

    steps: int
    leaves: int


@dataclass(frozen=True)
class Contestant:
    """One model of a campaign.

    Attributes:
        config: of the trunk; ``optimiser.steps`` are those of the goal.
        folder: of its trunk and branches.
    """

    name: str
    config: TrainConfig
    folder: Path

    @property
    def pixels_per_step(self) -> int:
        """Of crops, their margins counted."""
        return self.config.sampling.pixels

    @property
    def trunk(self) -> Path:
        """Its folder."""
        return self.folder / TRUNK

    def branch_at(self, steps: int) -> Branch:
        """The branch that ends there."""
        return Branch(steps, round(steps * (1 - self.config.optimiser.decay)))

    def folder_of(self, branch: Branch) -> Path:
        """The run of a branch."""
        return self.folder / f"{ANNEALED}{branch.steps}"

    def config_of(self, branch: Branch) -> TrainConfig:
        """What a branch trains by: the trunk's configuration with another end."""
        optimiser = self.config.optimiser.model_copy(update={"steps": branch.steps})
        return self.config.model_copy(update={"optimiser": optimiser})

    def steps_done(self) -> int:
        """Of the trunk.

        Raises:
            CheckpointError: a checkpoint that cannot be read.
        """
        checkpoint = self.trunk / CHECKPOINT
        return steps_done(checkpoint) if checkpoint.exists() else 0


@dataclass(frozen=True)
class Piece:
    """Work for one process: a trunk up to a step, or a branch to its end.

    Attributes:
        until: of the trunk; None for a branch.
        branch: None for the trunk.
    """

    contestant: Contestant
    until: int | None = None
    branch: Branch | None = None


@dataclass(frozen=True)
class Campaign:
    """All models, and where each is to be annealed.

    Attributes:
        slice: steps before it is another model's turn.
        starts: folder of weights to begin with where there is no state, if the file names one.
        branches: by model, in the order of their ends; the last ends at the goal.
    """

    slice: int
    starts: Path | None
    contestants: tuple[Contestant, ...]
    branches: dict[str, tuple[Branch, ...]]

    def next_piece(self, busy: Collection[str]) -> Piece | None:
        """What is best done next by a process that is free; None: nothing, now or for good.

        Branches first, since somebody waits for them; then the trunk that is least far.

        Args:
            busy: names of the models that are being trained now.
        """
        free = [c for c in self.contestants if c.name not in busy]
        done = {c.name: c.steps_done() for c in free}
        for contestant in free:
            for branch in self._due(contestant, done[contestant.name]):
                return Piece(contestant, branch=branch)
        trunks = [c for c in free if done[c.name] < self.branches[c.name][-1].leaves]
        if not trunks:
            return None
        least = min(trunks, key=lambda c: done[c.name] * c.pixels_per_step)
        here = done[least.name]
        fork = next(b.leaves for b in self.branches[least.name] if b.leaves > here)
        return Piece(least, until=min(here + self.slice, fork))

    def _due(self, contestant: Contestant, done: int) -> Iterator[Branch]:
        """Branches that have begun, or that begin where the trunk is, and are not finished."""
        for branch in self.branches[contestant.name]:
            folder = contestant.folder_of(branch)
            begun = (folder / CHECKPOINT).exists() or branch.leaves == done
            if begun and not (folder / WEIGHTS).exists():
                yield branch


def load_campaign(path: Path, folder: Path) -> Campaign:
    """Read a campaign's file; ``folder`` is that of its state.

    Raises:
        ConfigError: an unreadable file, a key that breaks a rule, a milestone behind the goal, or a model whose
            schedule is not ``constant``.
    """
    config = validated(CampaignConfig, read_table(path), origin=f"campaign {path}")
    late = [m for m in config.milestones if m >= config.goal]
    if late:
        raise ConfigError(f"campaign {path}: milestones has {late[0]:,}; all must lie before the goal, {config.goal:,}")
    contestants, branches = [], {}
    for name, file in config.models.items():
        contestant = _contestant(name, load_config(path.parent / file), config.goal, folder, origin=f"campaign {path}")
        contestants.append(contestant)
        named = [_steps(pixels, contestant) for pixels in (*config.milestones, config.goal)]
        asked = [int(f.name.removeprefix(ANNEALED)) for f in contestant.folder.glob(f"{ANNEALED}*")]
        branches[name] = tuple(contestant.branch_at(steps) for steps in sorted({*named, *asked}))
    starts = None if config.starts is None else path.parent / config.starts
    return Campaign(config.slice, starts, tuple(contestants), branches)


def _contestant(name: str, config: TrainConfig, goal: int, folder: Path, *, origin: str) -> Contestant:
    if config.optimiser.schedule != "constant":
        raise ConfigError(
            f"{origin}: the schedule of {name} is {config.optimiser.schedule!r}; it must be 'constant', which can be "
            "annealed at any moment"
        )
    unlimited = Contestant(name, config, folder / name)
    optimiser = config.optimiser.model_copy(update={"steps": _steps(goal, unlimited)})
    return Contestant(name, config.model_copy(update={"optimiser": optimiser}), folder / name)


def _steps(pixels: int, contestant: Contestant) -> int:
    return -(-pixels // contestant.pixels_per_step)
