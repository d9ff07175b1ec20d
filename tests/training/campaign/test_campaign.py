"""A campaign: whose turn it is, and that nothing is lost however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from rich.console import Console

from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import flops_per_pixel
from emboundary.model.groups import C1, D4
from emboundary.model.inception import STRIDE, Segmenter
from emboundary.service import console as edge
from emboundary.training.campaign.plan import Campaign, load_campaign
from emboundary.training.campaign.running import BusyError, alone, run_campaign
from emboundary.training.campaign.working import begin
from emboundary.training.cli import NAME, create_cli
from emboundary.training.commands.campaign import FLAGSHIP
from emboundary.training.config import TrainConfig, refuse_seen
from emboundary.training.crops.data import training_volumes
from emboundary.training.learning.checkpoint import load_checkpoint, save_checkpoint
from emboundary.training.learning.loop import CHECKPOINT
from emboundary.training.learning.recipe import learning_rate
from emboundary.training.learning.runs import WEIGHTS, fit, load_run
from emboundary.training.learning.state import TrainState, new_state
from emboundary.training.learning.train import Segmentation, train
from emboundary.training.strict import ConfigError

MakeConfig = Callable[..., TrainConfig]

CPU = torch.device("cpu")
QUIET = Console(quiet=True)
PIXELS = 2 * 32 * 32  # of a step of the tiny configuration
GOAL, MILESTONE = 12, 8  # steps
TINY = {"optimiser.schedule": "constant", "optimiser.decay": 0.25, "optimiser.warmup": 0.25}


@pytest.fixture
def file(tmp_path: Path, make_config: MakeConfig) -> Path:
    """A campaign of two tiny models."""
    for name, symmetry in (("d4", "d4"), ("plain", "plain")):
        config = make_config({**TINY, "name": name, "model.symmetry": symmetry})
        (tmp_path / f"{name}.json").write_text(config.model_dump_json())
    path = tmp_path / "campaign.toml"
    path.write_text(
        f"goal = {GOAL * PIXELS}\nslice = 7\nmilestones = [{MILESTONE * PIXELS}]\n"
        '[models]\nd4 = "d4.json"\nplain = "plain.json"\n'
    )
    return path


@pytest.fixture
def short(file: Path) -> Path:
    """A campaign of one of them, annealed at its goal alone: every process takes seconds to begin."""
    path = file.with_name("short.toml")
    path.write_text(f'goal = {GOAL * PIXELS}\nslice = 7\n[models]\nd4 = "d4.json"\n')
    return path


def run(file: Path, folder: Path, data: Path, *, starts: Path | None = None, jobs: int = 2) -> None:
    run_campaign(file, folder, data, QUIET, starts=starts, device="cpu", jobs=jobs, threads=1)


def weights(folder: Path, loaded: Campaign) -> dict[str, bytes]:
    """Of every finished branch."""
    found = {}
    for contestant in loaded.contestants:
        for path in contestant.folder.glob(f"annealed-*/{WEIGHTS}"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, data: Path, make_config: MakeConfig) -> dict[str, bytes]:
    """What a campaign leaves that nobody interrupted: each branch as one run from its beginning to its end."""
    folder = tmp_path_factory.mktemp("straight")
    found = {}
    for name, symmetry in (("d4", "d4"), ("plain", "plain")):
        for steps in (MILESTONE, GOAL):
            # the warm-up is that of the goal
            warmup = TINY["optimiser.warmup"] * GOAL / steps
            changes = {**TINY, "name": name, "model.symmetry": symmetry, "optimiser.warmup": warmup}
            config = make_config({**changes, "optimiser.steps": steps})
            made = fit(config, data, folder / name / str(steps), device=CPU)
            found[f"{name}/annealed-{steps}/{WEIGHTS}"] = (made.folder / WEIGHTS).read_bytes()
    return found


def test_every_model_ends_as_one_run_to_each_milestone_would(
    tmp_path: Path, file: Path, data: Path, straight: dict[str, bytes]
) -> None:
    folder = tmp_path / "state"
    run(file, folder, data)
    assert weights(folder, load_campaign(file, folder)) == straight
    run(file, folder, data)  # and has nothing more to do
    finished = load_run(folder / "d4" / f"annealed-{GOAL}")
    assert finished.config.optimiser.steps == GOAL


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_in_any_way_it_goes_on_to_the_same_bytes(
    tmp_path: Path, short: Path, data: Path, straight: dict[str, bytes], how: signal.Signals
) -> None:
    folder = tmp_path / "state"
    for _ in range(2):
        before = steps(folder)
        with begun(short, folder, data) as process:
            until(lambda: steps(folder) > before or process.poll() is not None)  # noqa: B023
            process.send_signal(how)
            asked = time.monotonic()
            assert process.wait(timeout=30) == (-how if how == signal.SIGKILL else 0)
            assert time.monotonic() - asked < 10
        until(lambda: not any(str(folder) in " ".join(line) for line in command_lines()))
    run(short, folder, data)
    made = weights(folder, load_campaign(short, folder))
    assert made == {name: straight[name] for name in [f"d4/annealed-{GOAL}/{WEIGHTS}"]}


@contextmanager
def begun(file: Path, folder: Path, data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, at work."""
    words = ["campaign", str(file), "--data", str(data), "--runs", str(folder), "--jobs", "2", "--threads", "1"]
    # what runs in the background may have been told to ignore Ctrl-C
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from emboundary.training.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def steps(folder: Path) -> int:
    """All steps whose checkpoints are there."""
    return sum(
        int(torch.load(path, weights_only=True)["step"]) for path in folder.glob(f"*/*/{CHECKPOINT}") if path.exists()
    )


def command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process.cmdline()
        except psutil.NoSuchProcess:
            pass


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_can_be_annealed_where_it_is(tmp_path: Path, short: Path, data: Path) -> None:
    folder = tmp_path / "state"
    (d4,) = load_campaign(short, folder).contestants
    train(d4.config, training_volumes(data, d4.config), d4.trunk, device=CPU, stop_after=3)
    assert edge.run(create_cli(), NAME, ["campaign", str(short), "--runs", str(folder), "--anneal"]) == 0
    run(short, folder, data)
    ended = load_run(folder / "d4" / "annealed-4")
    rates = [learning_rate(ended.config.optimiser, step) for step in (3,)]
    assert rates == pytest.approx([ended.config.optimiser.learning_rate])
    assert load_run(folder / "d4" / f"annealed-{GOAL}").config.optimiser.steps == GOAL


def test_the_model_that_is_least_far_is_next_and_branches_go_first(tmp_path: Path, file: Path) -> None:
    loaded = load_campaign(file, tmp_path / "state")
    first = loaded.next_piece(())
    assert first is not None
    assert (first.contestant.name, first.until, first.branch) == ("d4", 6, None)
    second = loaded.next_piece({"d4"})
    assert second is not None
    assert second.contestant.name == "plain"
    assert loaded.next_piece({"d4", "plain"}) is None
    d4, plain = loaded.contestants
    put(d4.trunk / CHECKPOINT, d4.config, step=5)
    put(plain.trunk / CHECKPOINT, plain.config, step=4)
    third = loaded.next_piece(())
    assert third is not None
    assert (third.contestant.name, third.until) == ("plain", 6)
    put(d4.trunk / CHECKPOINT, d4.config, step=6)  # where the branch to the milestone leaves
    fourth = loaded.next_piece(())
    assert fourth is not None
    assert (fourth.contestant.name, fourth.branch and fourth.branch.steps) == ("d4", MILESTONE)


def put(path: Path, config: TrainConfig, *, step: int) -> TrainState:
    """A checkpoint of a step."""
    state = new_state(Segmentation(config, ()), CPU)
    state.step = step
    save_checkpoint(path, state, config)
    return state


def test_weights_at_half_precision_begin_on_another_machine(
    tmp_path: Path, file: Path, short: Path, data: Path
) -> None:
    here, there, kept = tmp_path / "here", tmp_path / "there", tmp_path / "kept"
    d4 = load_campaign(file, here).contestants[0]
    before = put(d4.trunk / CHECKPOINT, d4.config, step=8)
    assert edge.run(create_cli(), NAME, ["campaign", str(file), "--runs", str(here), "--keep-starts", str(kept)]) == 0
    run(short, there, data, starts=kept)
    begun_there = new_state(Segmentation(d4.config, ()), CPU)
    trunk = load_campaign(file, there).contestants[0].trunk / CHECKPOINT
    load_checkpoint(trunk, begun_there, d4.config)
    assert begun_there.step == 9  # where the branch to the goal leaves: one step on
    weight, old = (s.average.state_dict()["logit.of_max.weight"] for s in (begun_there, before))
    assert 0 < (weight - old).abs().max() < 0.1


def test_only_one_process_works_in_a_folder(tmp_path: Path, file: Path, data: Path) -> None:
    with alone(tmp_path / "state"), pytest.raises(BusyError, match=r"is being trained in by another process; stop"):
        run(file, tmp_path / "state", data)


def test_it_says_how_far_each_is(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "state"
    d4 = load_campaign(file, folder).contestants[0]
    put(d4.trunk / CHECKPOINT, d4.config, step=5)
    words = ["campaign", str(file), "--runs", str(folder), "--status"]
    assert edge.run(create_cli(), NAME, [*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said[0] == {"model": "d4", "steps": 5, "of": GOAL, "pixels": 5 * PIXELS}
    assert edge.run(create_cli(), NAME, words) == 0
    assert "d4: step 5 of 12, 0 million pixels; annealed at nowhere yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("goal = 9\nmilestones = [9]", "milestones has 9; all must lie before the goal, 9"),
        ("goal = 0", "goal is 0"),
        ("goal = 9\nslices = 3", "slices is not a key"),
    ],
)
def test_a_campaign_that_breaks_a_rule_is_refused(tmp_path: Path, file: Path, text: str, said: str) -> None:
    file.write_text(f'{text}\n[models]\nd4 = "d4.json"\n')
    with pytest.raises(ConfigError, match=said):
        load_campaign(file, tmp_path)


def test_a_schedule_that_has_an_end_is_refused(tmp_path: Path, file: Path, make_config: MakeConfig) -> None:
    (file.parent / "d4.json").write_text(make_config().model_dump_json())
    with pytest.raises(ConfigError, match=r"schedule of d4 is 'cosine'; it must be 'constant'"):
        load_campaign(file, tmp_path)


def test_the_flagships_models_differ_in_their_networks_alone(tmp_path: Path) -> None:
    loaded = load_campaign(FLAGSHIP, tmp_path)
    assert {c.name: c.config.name for c in loaded.contestants} == {n: n for n in ("d4", "plain", "d4-1.6x")}
    d4, plain, large = (c.config.model_dump(exclude={"name", "model"}) for c in loaded.contestants)
    assert d4 == plain == large
    for volume in loaded.contestants[0].config.data:
        assert volume.validation is not None
        refuse_seen(loaded.contestants[0].config, volume, volume.validation, origin="the flagship")


def test_the_flagships_models_cost_what_is_said_of_them(tmp_path: Path) -> None:
    networks = [Segmenter(c.config.model.spec()).eval() for c in load_campaign(FLAGSHIP, tmp_path).contestants]
    d4, plain, _ = (flops_per_pixel(expand_and_fold(network), STRIDE) for network in networks)
    assert abs(d4 / plain - 1) < 0.05
    assert d4 < 135e3
    assert [network.spec.law for network in networks] == [D4, C1, D4]


def test_the_flagship_names_weights_that_its_models_can_begin_with(tmp_path: Path) -> None:
    loaded = load_campaign(FLAGSHIP, tmp_path)
    assert loaded.starts is not None
    for contestant in loaded.contestants:
        begin(contestant, loaded.starts, CPU)
        assert contestant.steps_done() > 0


def test_a_campaign_begins_with_the_weights_that_its_file_names(tmp_path: Path, file: Path) -> None:
    assert load_campaign(file, tmp_path).starts is None
    file.write_text('starts = "kept"\n' + file.read_text())
    assert load_campaign(file, tmp_path).starts == file.parent / "kept"
