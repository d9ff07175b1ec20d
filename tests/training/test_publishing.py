"""From a run to a model folder: what is scored, what the weights began with, and a card that reproduces both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from emboundary.model import variants
from emboundary.model.description import Validation
from emboundary.model.repository import load_model
from emboundary.service import console
from emboundary.service.errors import InputError, OutputError
from emboundary.training.cli import NAME, create_cli
from emboundary.training.comparing.records import Results
from emboundary.training.config import TrainConfig
from emboundary.training.learning import arithmetic
from emboundary.training.learning.arithmetic import slow_precision
from emboundary.training.learning.runs import load_run
from emboundary.training.origins import origin_of
from emboundary.training.publishing import Provenance, held_out, portable, publish, read_results, with_figures
from emboundary.training.strict import ConfigError

MakeConfig = Callable[..., TrainConfig]

PROVENANCE = Provenance("One line.", "CC0")


def test_validation_sections_are_scored_where_nothing_is_told(make_config: MakeConfig) -> None:
    kept = make_config({"data": [volume("a", [4, 6]), volume("b"), volume("c", [0, 2], sections=[2, 3])]})
    assert [(d.name, s) for d, s in held_out(kept, None, None, origin="x")] == [("a", (4, 6)), ("c", (0, 2))]
    assert [(d.name, s) for d, s in held_out(kept, None, "c", origin="x")] == [("c", (0, 2))]
    assert [(d.name, s) for d, s in held_out(kept, (5, 6), "b", origin="x")] == [("b", (5, 6))]
    with pytest.raises(ConfigError, match=r"^x: no volume has validation sections; give --sections FIRST:STOP$"):
        held_out(kept, None, "b", origin="x")


def volume(name: str, validation: list[int] | None = None, sections: list[int] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "raw": "raw.tif",
        "membranes": "membranes.tif",
        "sections": sections or [0, 4],
        "validation": validation,
        "voxel_size_nm": [50.0, 4.6, 4.6],
        "citation": "made up",
    }


def test_the_card_s_configuration_gives_the_same_weights_and_figures(
    data: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    config = make_config({"data": [volume("synthetic", [4, 6])], "optimiser.steps": 2})
    (tmp_path / "first.json").write_text(config.model_dump_json())
    fitted(tmp_path / "first.json", data, tmp_path / "first")
    first = tmp_path / "first" / "model"
    card = (first / "CARD.md").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(card.partition("```json\n")[2].partition("```")[0])
    fitted(tmp_path / "config.json", data, tmp_path / "again")
    for name in ("model.onnx", "weights.safetensors", "CARD.md", "description.json"):
        assert (tmp_path / "again" / "model" / name).read_bytes() == (first / name).read_bytes(), name
    assert load_model(first).description.validation[0].protocol.startswith("synthetic sections 4:6, never trained on")


def fitted(config: Path, data: Path, out: Path) -> None:
    words = ["fit", str(config), "--data", str(data), "--out", str(out), "--device", "cpu", "--threads", "1"]
    assert console.run(create_cli(), NAME, words) == 0


def test_what_came_before_is_said_of_a_model_that_goes_on(
    trained: Path, published: Path, data: Path, tmp_path: Path
) -> None:
    run = load_run(trained)
    went_on = replace(run, config=run.config.model_copy(update={"start": str(published), "name": "next"}))
    described = publish(went_on, tmp_path / "next", version="3", provenance=PROVENANCE, data=data, chosen=())
    assert [(t.name, t.sections) for t in described.training] == [("synthetic", "0:4")], "said once, seen twice"
    assert described.weights_licence == (
        "CC0; training began with tiny, version 1: not stated: ask whoever gave you the weights"
    )
    assert (described.name, described.version, described.validation) == ("next", "3", ())


def test_the_origin_of_weights_is_found_out(trained: Path, published: Path, tmp_path: Path) -> None:
    assert origin_of(None) is None
    for start in (published, published / "weights.safetensors", trained / "weights.safetensors"):
        origin = origin_of(str(start))
        assert origin is not None
        assert [(t.name, t.sections) for t in origin.training] == [("synthetic", "0:4")], start
    alone = origin_of(str(shutil.copy(trained / "weights.safetensors", tmp_path / "alone.safetensors")))
    assert alone is not None
    assert [(t.name, t.sections) for t in alone.training] == [("alone.safetensors", "unknown")]
    assert alone.joined_to("CC0") == (
        "CC0; training began with alone.safetensors: not stated: ask whoever gave you the weights"
    )
    shipped = origin_of("starts/plain.safetensors")
    assert shipped is not None
    assert [(t.name, t.sections) for t in shipped.training] == [("vnc", "0:13")]
    assert "CC BY-NC-SA" in shipped.licence
    assert shipped.joined_to(shipped.licence) == shipped.licence


def test_nothing_is_left_of_a_model_that_cannot_be_published(trained: Path, data: Path, tmp_path: Path) -> None:
    run = load_run(trained)
    chosen = ((run.config.data[0], (3, 5)),)
    with pytest.raises(ConfigError, match="overlap the training sections"):
        publish(run, tmp_path / "m", version="1", provenance=PROVENANCE, data=data, chosen=chosen)
    pictured = replace(PROVENANCE, pictures=(tmp_path / "none.png",))
    with pytest.raises(OutputError, match="which is no file"):
        publish(run, tmp_path / "m", version="1", provenance=pictured, data=data, chosen=())
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_does_not_suit_is_left_out_and_said(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "HALF_TOLERANCE", 0.0)
    said: list[str] = []
    described = publish(
        load_run(trained),
        tmp_path / "m",
        version="1",
        provenance=PROVENANCE,
        data=data,
        chosen=(),
        report=said.append,
    )
    assert set(described.variants) == {"int8"}
    assert load_model(tmp_path / "m").description == described
    (line,) = said
    assert line.startswith("not offered in float16: float16 does not suit this network: it changes probabilities by ")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_text_and_pictures_stand_on_the_card(trained: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "worst-regions.png").write_bytes(b"")
    said = replace(PROVENANCE, used_for="They chose it.", fails="Folds.", pictures=(tmp_path / "worst-regions.png",))
    run = load_run(trained)
    chosen = ((run.config.data[0], (4, 6)),)
    publish(run, tmp_path / "zoo/m/1", version="1", provenance=said, data=data, chosen=chosen)
    card = (tmp_path / "zoo/m/1/CARD.md").read_text(encoding="utf-8")
    assert "![worst regions](../../../worst-regions.png)" in card
    assert "## Where it fails\n\nFolds.\n" in card
    assert "## What the figures stand on\n\nsynthetic sections 4:6.\n\nThey chose it.\n" in card
    assert "; threshold of V_rand chosen on sections 0:4 |" in card


def test_absolute_paths_become_relative_to_what_they_share(make_config: MakeConfig) -> None:
    paths = {"raw": "/home/me/em/a.hdf::/volumes/raw", "membranes": "/home/me/em/truth/b.tif"}
    config = make_config({"data": [volume("a") | paths], "start": "/home/me/models/old"})
    moved = portable(config)
    assert (moved.data[0].raw, moved.data[0].membranes) == ("a.hdf::/volumes/raw", "truth/b.tif")
    assert moved.start == "old"
    assert portable(make_config()) == make_config()


def test_the_spread_over_seeds_comes_from_the_study(tmp_path: Path) -> None:
    aucs, precisions, v_rands = (0.97, 0.98, 0.985), (0.9, 0.93, 0.95), (0.8, 0.9, 0.85)
    results = study([(seed, *scores) for seed, scores in enumerate(zip(aucs, precisions, v_rands, strict=True))])
    (tmp_path / "results.json").write_text(json.dumps(results))
    stated = Validation(protocol="vnc sections 13:16, never trained on", roc_auc=0.97, average_precision=0.9)
    other = stated.model_copy(update={"protocol": "vnc sections 13:15, never trained on"})
    spread, none = with_figures((stated, other), read_results(tmp_path / "results.json"), "d4")
    assert spread.spread is not None
    assert spread.spread.seeds == 3
    for found, values in (
        (spread.spread.roc_auc, aucs),
        (spread.spread.average_precision, precisions),
        (spread.spread.v_rand, v_rands),
    ):
        assert found == pytest.approx((fmean(values), stdev(values)))
    assert none.spread is None, "other sections"
    assert with_figures((stated,), read_results(tmp_path / "results.json"), "paper") == (stated,)
    single = Results.model_validate_json(json.dumps(study([(0, 0.9, 0.9, 0.9)])))
    assert with_figures((stated,), single, "d4") == (stated,), "one seed has no spread"
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds no records of compare; give its results\.json"):
        read_results(tmp_path / "results.json")


def study(runs: list[tuple[int, float, float, float]]) -> dict[str, Any]:
    environment = {"versions": {}, "processor": "p", "cores": 1, "device": "cpu"}
    series = {
        "key": "all", "title": "All", "models": ["d4", "paper"], "seeds": [seed for seed, *_ in runs], "steps": 1,
        "pixels": 1, "train": {"vnc": [0, 13]}, "score": {"vnc": [13, 16]}, "limited": False,
    }  # fmt: skip
    records = []
    for seed, auc, precision, v_rand in runs:
        halves = {"split": v_rand, "merge": v_rand, "f": v_rand, "threshold": 0.5}
        scored = {
            "volume": "vnc", "sections": [13, 16], "passes": 1, "roc_auc": auc, "average_precision": precision,
            "best_f1": 0.5, "best_f1_threshold": 0.5, "cross_entropy": 0.5, "v_rand": halves, "v_info": halves,
            "seconds": 1.0,
            "curve": {"false_positive_rate": [], "recall": [], "precision": []},
        }  # fmt: skip
        scores = {"protocol": 1, "weights_sha256": "0", "environment": environment, "maps": [scored]}
        loss = {"steps": [], "losses": []}
        records.append({"series": "all", "model": "d4", "seed": seed, "scores": scores, "loss": loss})
    return {"question": "?", "study": "s", "series": [series], "runs": records, "missing": [], "timing": None}


@pytest.mark.parametrize(
    ("precision", "device", "capable", "warned"),
    [
        ("bfloat16", "cpu", (), True),
        ("bfloat16", "cpu", ("avx512_bf16",), False),
        ("bfloat16", "cpu", ("amx_bf16",), False),
        ("bfloat16", "cuda", (), False),
        ("float32", "cpu", (), False),
    ],
)
def test_a_cpu_that_only_imitates_bfloat16_is_named(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    device: str,
    capable: tuple[str, ...],
    warned: bool,
) -> None:
    monkeypatch.setattr(
        arithmetic.torch.cpu, "get_capabilities", lambda: {"avx2": True, **dict.fromkeys(capable, True)}
    )
    said = slow_precision(make_config({"precision": precision}), torch.device(device))
    assert (said is not None) == warned
    if said is not None:
        assert said.startswith("warning: precision is bfloat16, for which this CPU has no instructions: ")
