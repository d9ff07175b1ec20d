"""``emboundary-train`` as a user meets it: files in, files out, exit codes, and one line per failure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from emboundary.model.footprint import count_parameters
from emboundary.model.repository import load_model
from emboundary.service import console
from emboundary.training.cli import NAME, create_cli
from emboundary.training.learning.runs import load_run

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of a command line."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = console.run(create_cli(), NAME, [str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_fit_says_what_it_does(run: Run, trained: Path, data: Path, tmp_path: Path) -> None:
    config = trained.parent / "tiny.toml"
    code, out, err = run("fit", config, "--data", data, "--out", tmp_path, "--device", "cpu", "--threads", 1)
    assert (code, out) == (0, "")
    device, last, done, scored, half, integers, made = err.splitlines()
    assert device == "device: cpu (asked for)"
    assert last.startswith("tiny: step 6 of 6, loss ")
    parameters = count_parameters(load_run(trained).network)
    assert done == f"tiny: {parameters:,} parameters, weights in {tmp_path}"
    assert scored == "not scored: no sections were kept for validation"
    described = load_model(tmp_path / "model").description
    for line, precision, variant in zip(
        (half, integers), ("float16", "int8"), described.variants.values(), strict=True
    ):
        assert line.startswith(f"{precision}: {variant.file}, within ")
        assert line.endswith(f" of float32 in probability, symmetry violated by {variant.symmetry_error:.1e} at most")
    assert made == f"model in {tmp_path / 'model'}: emboundary predict INPUT OUTPUT --model {tmp_path / 'model'}"
    assert load_model(tmp_path / "model").description.validation == ()
    for name in ("weights.safetensors", "loss.csv"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_an_exported_run_says_what_it_learned_from(published: Path) -> None:
    description = load_model(published).description
    assert (description.name, description.version, description.summary) == ("tiny", "1", "a tiny one")
    assert [(t.name, t.sections, t.citation) for t in description.training] == [("synthetic", "0:4", "made up")]
    assert description.trained_voxel_sizes_nm == ((50.0, 4.6, 4.6),)
    assert description.validation[0].protocol == (
        "synthetic sections 4:6, never trained on; every pixel of the whole sections; one pass; "
        "6 training steps, seed 0; threshold of V_rand chosen on sections 0:4"
    )
    assert description.symmetry.group == "D4"
    assert description.weights_licence == "not stated: ask whoever gave you the weights"
    assert 0 < description.validation[0].v_rand < 1
    assert description.validation[0].spread is None


def test_evaluate_gives_the_score_that_the_export_wrote(run: Run, trained: Path, published: Path, data: Path) -> None:
    words = ("--data", data, "--sections", "4:6", "--config", trained.parent / "tiny.toml")
    code, out, err = run("evaluate", published / "model.onnx", *words)
    assert (code, err) == (0, "")
    result = json.loads(out)
    (row,) = result["volumes"]
    stated = load_model(published).description.validation[0]
    assert row["roc_auc"] == pytest.approx(stated.roc_auc, abs=1e-4)
    assert row["average_precision"] == pytest.approx(stated.average_precision, abs=1e-4)
    assert row["v_rand"] == pytest.approx(stated.v_rand, abs=1e-3)
    assert (row["volume"], row["sections"]) == ("synthetic", [4, 6])
    assert (result["model"], result["tta"]) == ("tiny", False)
    assert result["mean"] == {name: row[name] for name in ("roc_auc", "average_precision", "best_f1", "v_rand")}
    code, out, _ = run("evaluate", published, *words, "--tta")
    averaged = json.loads(out)
    assert averaged["tta"] is True
    assert averaged["mean"]["roc_auc"] == pytest.approx(row["roc_auc"], abs=1e-3), "d4 gains nothing by 8 passes"


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_evaluate_scores_the_precision_that_it_is_asked_for(
    run: Run, trained: Path, published: Path, data: Path, precision: str
) -> None:
    words = ("--data", data, "--sections", "4:6", "--config", trained.parent / "tiny.toml", "--precision", precision)
    code, out, _ = run("evaluate", published, *words)
    result = json.loads(out)
    assert (code, result["precision"]) == (0, precision)
    stated = load_model(published).description.validation[0]
    assert result["mean"]["roc_auc"] != stated.roc_auc
    assert result["mean"]["roc_auc"] == pytest.approx(stated.roc_auc, abs=0.02)


def test_every_volume_with_validation_sections_is_scored(
    run: Run, trained: Path, published: Path, data: Path, tmp_path: Path
) -> None:
    tiny = (trained.parent / "tiny.toml").read_text()
    volume = tiny[tiny.index("[[data]]") : tiny.index("[sampling]")]
    kept = volume.replace("sections = [0, 4]", "sections = [0, 4]\nvalidation = [5, 6]")
    config = tmp_path / "two.toml"
    config.write_text(
        tiny.replace(volume, kept + volume.replace('"synthetic"', '"other"') + kept.replace('"s', '"more-s'))
    )
    words = ("evaluate", published, "--data", data, "--config", config)
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert [(row["volume"], row["sections"]) for row in result["volumes"]] == [
        ("synthetic", [5, 6]),
        ("more-synthetic", [5, 6]),
    ]
    code, out, _ = run(*words, "--volume", "other", "--sections", "4:5")
    assert [(row["volume"], row["sections"]) for row in json.loads(out)["volumes"]] == [("other", [4, 5])]
    assert failure(run(*words, "--sections", "4:5"), 1) == (
        f"config {config}: --sections is of one volume, here are synthetic, other, more-synthetic; name one with "
        "--volume"
    )
    assert failure(run(*words, "--volume", "third"), 1) == (
        f"config {config}: --volume is third; the volumes are synthetic, other, more-synthetic: give one of them"
    )


def test_a_model_is_not_scored_on_what_it_says_it_has_seen(
    run: Run, trained: Path, published: Path, data: Path
) -> None:
    words = ("--data", data, "--config", trained.parent / "tiny.toml", "--sections", "3:5")
    assert failure(run("evaluate", published, *words), 1) == (
        "model tiny was trained on sections 0:4 of synthetic, and is to be scored on 3:5; give sections that it has "
        "never seen"
    )


def test_an_experiment_is_trained_scored_and_scored_again(run: Run, trained: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "which.toml"
    file.write_text(
        f'question = "Which?"\nbase = "{trained.parent / "tiny.toml"}"\nsections = [4, 6]\n'
        'set = { "optimiser.steps" = 2 }\n'
        '[[variant]]\nlabel = "exact"\nset = {}\n'
        '[[variant]]\nlabel = "not exact"\nset = { "model.symmetry" = "plain" }\n'
    )
    words = ("experiment", file, "--data", data, "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    code, out, err = run(*words, "--device", "cpu", "--threads", 1)
    assert (code, out) == (0, "")
    assert "exact: step 2 of 2" in err
    assert sorted(path.name for path in (tmp_path / "runs" / "which").iterdir()) == ["exact", "not-exact"]
    record = json.loads((tmp_path / "out" / "which.json").read_text())
    exact, inexact = record["outcomes"]
    assert (exact["variant"], inexact["variant"]) == ("exact", "not exact")
    assert sorted(exact["scores"]) == ["synthetic AP", "synthetic AUC", "synthetic V_rand at 0.5"]
    assert inexact["scores"]["synthetic AUC, 8 passes"] != inexact["scores"]["synthetic AUC"]
    assert inexact["parameters"] > 4 * exact["parameters"]
    assert record["configs"]["not-exact"]["model"]["symmetry"] == "plain"
    page = (tmp_path / "out" / "which.md").read_text()
    assert page.startswith("# Which?\n")
    assert "Trained on sections synthetic 0:4; scored on sections synthetic 4:6, one pass; 2 steps; seed 0." in page
    one = exact["scores"]
    shown = f"{one['synthetic AUC']:.5f} | {one['synthetic AP']:.4f} | {one['synthetic V_rand at 0.5']:.4f}"
    assert f"| {shown} | exact: the same | exact: the same | exact: the same |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1

    written = (tmp_path / "out" / "which.json").read_bytes()
    code, _, err = run(*words, "--device", "cpu", "--threads", 1)
    assert (code, "step" in err) == (0, False)
    assert (tmp_path / "out" / "which.json").read_bytes() == written


def failure(result: tuple[int, str, str], code: int) -> str:
    """The one line of a command that must fail, without a traceback."""
    found, out, err = result
    assert "Traceback" not in err
    assert "defect" not in err
    lines = [line for line in err.splitlines() if line.startswith(f"{NAME}: error: ")]
    assert (found, out, len(lines)) == (code, "", 1)
    assert err.splitlines()[-1] == lines[0]
    return lines[0].removeprefix(f"{NAME}: error: ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("fit none.toml --data . --out out", 1, "config none.toml cannot be read: No such file or directory"),
        ("fit wrong.toml --data . --out out", 1, "config wrong.toml: optimiser.steps is 0: Input should be"),
        ("fit tiny.toml --data . --out out", 1, "raw.tif does not exist; give the folder of the training data with"),
        ("fit tiny.toml --data DATA --out tiny.toml", 1, "tiny.toml/config.json cannot be written: File exists"),
        ("fit tiny.toml --data DATA --out out --threads 0", 2, "Invalid value for '--threads': "),
        ("fit tiny.toml --data DATA --out out --device gpu", 2, "Invalid value for '--device': "),
        ("fit tiny.toml --data DATA", 2, "Missing option '--out'"),
        ("export . --to zoo --summary s --data DATA --sections 4:6", 1, ". holds no config.json; give the --out"),
        ("export RUN --to zoo --summary s --data DATA --sections 4", 2, "sections is '4'; it must be FIRST:STOP, e.g."),
        ("export RUN --to zoo --summary s --data DATA --sections 6:4", 2, "sections is '6:4'; it needs 0 <= FIRST < S"),
        ("export RUN --to zoo --summary s --data DATA --sections 3:5", 1, "run RUN: scored sections [3, 5] overlap"),
        ("export RUN --to zoo --summary s --data DATA --sections 5:7", 1, "sections 5:7 are not all in synthetic"),
        (
            "evaluate none --data DATA --sections 4:6 --config tiny.toml",
            1,
            "model 'none' not found; give a name (here:",
        ),
        ("evaluate MODEL --data DATA --config tiny.toml", 1, "config tiny.toml: no volume has validation sections; gi"),
        ("export RUN --to zoo --summary s --data DATA", 1, "run RUN: no volume has validation sections; give --sect"),
        ("export RUN --to zoo --summary s --data DATA --sections 4:6 --fails none", 1, "--fails is none, which cannot"),
        ("export RUN --to zoo --summary s --data DATA --sections 4:6 --picture none", 1, "--picture is none, which is"),
        ("export RUN --to zoo --summary s --data DATA --sections 4:6 --figures none", 1, "--figures is none, which ho"),
        ("evaluate MODEL --data DATA --sections 4:9 --config tiny.toml", 1, "sections 4:9 are not all in synthetic"),
        (
            "compare --data DATA --runs r --study none.toml --out out",
            1,
            "config none.toml cannot be read: No such file",
        ),
        ("compare --data DATA --runs r --study tiny.toml --out out", 1, "study tiny.toml: question is missing; it has"),
        ("compare --data DATA --runs r --out out --rounds 0", 2, "Invalid value for '--rounds': "),
        ("compare --data DATA --runs r --out out --jobs 0", 2, "Invalid value for '--jobs': "),
        ("experiment none.toml --data DATA --runs r --out out", 1, "config none.toml cannot be read: No such file"),
        ("experiment tiny.toml --data DATA --runs r --out out", 1, "experiment tiny.toml: question is missing; it has"),
        (
            "convert MODEL --precision float64",
            2,
            "--precision is 'float64'; model.onnx itself is float32: give float16",
        ),
        (
            "convert MODEL --sections 0:4",
            2,
            "--sections is given 1 times and --images 0 times; give it once for all vo",
        ),
        ("convert MODEL --images a.tif --sections 4", 2, "sections is '4'; it must be FIRST:STOP, e.g. 13:16"),
        ("convert MODEL --images none.tif", 1, "none.tif does not exist"),
        ("convert none", 1, "model 'none' not found; give a name (here: d4, paper, plain)"),
        ("learn", 2, "No such command 'learn'"),
    ],
)
def test_bad_input_gives_one_line_and_leaves_nothing(
    run: Run,
    trained: Path,
    published: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    code: int,
    message: str,
) -> None:
    tiny = (trained.parent / "tiny.toml").read_text()
    (tmp_path / "tiny.toml").write_text(tiny)
    (tmp_path / "wrong.toml").write_text(tiny.replace("steps = 6", "steps = 0"))
    monkeypatch.chdir(tmp_path)
    places = {"DATA": data, "RUN": trained, "MODEL": published}
    result = run(*(places.get(word, word) for word in words.split()))
    assert failure(result, code).startswith(message.replace("RUN", str(trained)))
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml", "wrong.toml"}


def test_a_published_version_is_not_replaced(run: Run, trained: Path, published: Path, data: Path) -> None:
    before = (published / "model.onnx").read_bytes()
    words = ("export", trained, "--to", published.parents[1], "--summary", "again", "--data", data)
    line = failure(run(*words, "--sections", "4:6"), 1)
    assert line == (
        f"run {trained} cannot be exported: {published} exists; published models do not change: give another version "
        "or remove it"
    )
    assert (published / "model.onnx").read_bytes() == before


def test_a_damaged_checkpoint_is_one_line(run: Run, trained: Path, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "checkpoint.pt").write_bytes(b"nothing")
    line = failure(run("fit", trained.parent / "tiny.toml", "--data", data, "--out", folder, "--device", "cpu"), 1)
    assert line.startswith(f"{folder / 'checkpoint.pt'} cannot be read as a checkpoint: ")


def test_cuda_without_a_gpu_is_refused(
    run: Run, trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ("fit", trained.parent / "tiny.toml", "--data", data, "--out", tmp_path / "run", "--device", "cuda")
    assert failure(run(*words), 1) == (
        "device is cuda, but torch sees no GPU here; give --device cpu, or install a CUDA build"
    )
    assert not (tmp_path / "run").exists()


def test_help_names_the_commands(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(
        command in out for command in ("fit", "evaluate", "compare", "export", "convert", "examine", "experiment")
    )
