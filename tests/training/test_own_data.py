"""Users' own volumes: what they name becomes a configuration, and that a model that maps their volume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from emboundary.model.repository import load_model
from emboundary.model.weights import load_segmenter
from emboundary.service import console
from emboundary.service.cli import create_cli as create_service_cli
from emboundary.service.errors import UsageError
from emboundary.service.volumes import open_volume
from emboundary.training.cli import NAME, create_cli
from emboundary.training.config import load_config
from emboundary.training.crops.data import DataError
from emboundary.training.own_data import Told, own_config, split
from emboundary.training.synthetic import membranes

RAW, MEMBRANES = membranes((6, 64, 72), seed=5)


def ids() -> NDArray[np.uint64]:
    """Neuron ids that fill the sections, as CREMI's do: a membrane belongs to one of its two neurons."""
    cells = np.stack([ndimage.label(section == 0)[0] for section in MEMBRANES]).astype(np.uint64)
    nearest = [ndimage.distance_transform_edt(c == 0, return_distances=False, return_indices=True) for c in cells]
    filled = np.stack([c[tuple(place)] for c, place in zip(cells, nearest, strict=True)])
    return (filled + np.uint64(2**40)).astype(np.uint64)


def write_cremi(path: Path, labels: NDArray[np.uint64]) -> None:
    with h5py.File(path, "w") as file:
        for name, voxels in (("volumes/raw", RAW), ("volumes/labels/neuron_ids", labels)):
            dataset = file.create_dataset(name, data=voxels, chunks=(1, 32, 32), compression="gzip")
            dataset.attrs["resolution"] = np.array([40.0, 4.0, 4.0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands, with a volume in several formats."""
    write_cremi(tmp_path / "sample_A.hdf", ids())
    stacks = {
        "raw.tif": RAW,
        "membranes.tif": MEMBRANES,
        "few.tif": RAW[:3],
        "ids.tif": ids().astype(np.uint16),
        "probability.tif": MEMBRANES.astype(np.float32) / 255,
    }
    for name, voxels in stacks.items():
        tifffile.imwrite(tmp_path / name, voxels, photometric="minisblack", metadata={"axes": "ZYX"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(**changes: object) -> Told:
    plain = Told(raw=("raw.tif",), membranes=("membranes.tif",), voxel_sizes_nm=((50.0, 4.0, 4.0),))
    return replace(plain, **changes)  # type: ignore[arg-type]


def command(*words: object) -> int:
    return console.run(create_cli(), NAME, [str(word) for word in words])


def test_a_cremi_file_becomes_a_model_that_maps_it(
    folder: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, labels = (f"sample_A.hdf::/volumes/{name}" for name in ("raw", "labels/neuron_ids"))
    words = ("fit", "--raw", raw, "--labels", labels, "--out", "mine", "--start", published, "--steps", 2)
    assert command(*words, "--device", "cpu", "--threads", 1, "--citation", "me") == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "model in mine/model: emboundary predict INPUT OUTPUT --model mine/model"
    assert [line.partition(":")[0] for line in said[-4:-1]] == ["sample_A sections 5", "float16", "int8"]
    assert said[-4].startswith("sample_A sections 5:6: AUC ")
    model = folder / "mine" / "model"
    assert {path.name for path in model.iterdir()} == {
        "model.onnx", "float16.onnx", "int8.onnx", "description.json", "CARD.md", "weights.safetensors",
    }  # fmt: skip
    described = load_model(model).description
    assert (described.name, described.trained_voxel_sizes_nm) == ("mine", ((40.0, 4.0, 4.0),))
    assert [(t.name, t.sections) for t in described.training] == [("synthetic", "0:4"), ("sample_A", "0:5")]
    assert (folder / "mine" / "weights.safetensors").read_bytes() == (model / "weights.safetensors").read_bytes()

    mapped = console.run(create_service_cli(), "emboundary", ["predict", raw, "map.tif", "--model", "mine/model"])
    assert mapped == 0, capsys.readouterr().err
    with open_volume("map.tif") as volume:
        assert volume.shape == RAW.shape


def test_a_finished_fit_is_not_trained_again_and_an_unpublished_one_is_published(
    folder: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--raw", "raw.tif", "--membranes", "membranes.tif", "--out", "mine", "--start", published]
    words += ["--steps", 2, "--voxel-size", "50,4,4", "--device", "cpu", "--threads", 1]
    assert command(*words) == 0
    before = (folder / "mine/model/model.onnx").read_bytes()
    assert command(*words) == 0
    for path in (folder / "mine/model").iterdir():
        path.unlink()
    (folder / "mine/model").rmdir()
    capsys.readouterr()
    assert command(*words) == 0
    assert "step" not in capsys.readouterr().err
    assert (folder / "mine/model/model.onnx").read_bytes() == before
    assert command(*words, "--seed", 1) == 1
    assert "mine holds a run of another configuration; give another --out" in capsys.readouterr().err


def test_the_bundled_model_goes_on_learning_with_every_augmentation(folder: Path) -> None:
    config = own_config(told(), name="my model")
    assert (config.name, config.start) == ("my-model", "d4")
    assert config.model.spec() == load_segmenter(load_model("d4").path.with_name("weights.safetensors")).spec
    changed = config.augment
    assert changed.symmetry
    assert changed.rotate
    assert all(
        getattr(changed, name) > 0
        for name in ("scale", "elastic", "contrast", "brightness", "gamma", "noise", "blur", "defects")
    )
    (volume,) = config.data
    assert (volume.raw, volume.membranes) == (str(folder / "raw.tif"), str(folder / "membranes.tif"))
    assert (volume.name, volume.sections, volume.validation) == ("raw", (0, 5), (5, 6))
    assert (volume.voxel_size_nm, volume.citation) == ((50.0, 4.0, 4.0), "no citation given")
    assert config.sampling.crop == 64, "no crop is larger than a section"


def test_several_volumes_are_told_in_the_same_order(folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "raw.tif").rename(folder / "b" / "raw.tif")
    (folder / "raw.tif").write_bytes((folder / "b" / "raw.tif").read_bytes())
    config = own_config(
        told(
            raw=("raw.tif", "b/raw.tif"),
            membranes=("membranes.tif", "membranes.tif"),
            sections=((0, 2), (1, 3)),
            citations=("one", "two"),
        ),
        name="two",
    )
    assert [(d.name, d.sections, d.validation, d.citation) for d in config.data] == [
        ("raw", (0, 2), (2, 6), "one"),
        ("raw-2", (1, 3), (3, 6), "two"),
    ]


@pytest.mark.parametrize(
    ("start", "model", "starts", "symmetry"),
    [
        (None, "plain", "plain", "plain"),
        (None, "plain-small", "plain", "plain"),
        ("none", "paper", None, "paper"),
        ("none", None, None, "d4"),
        (None, "d4-base", None, "d4"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_network_is_chosen_by_name(start: str | None, model: str | None, starts: str | None, symmetry: str) -> None:
    config = own_config(told(start=start, model=model, steps=7, learning_rate=0.01), name="mine")
    assert (config.start, config.model.symmetry) == (starts, symmetry)
    assert (config.optimiser.steps, config.optimiser.learning_rate) == (7, 0.01)


@pytest.mark.parametrize(
    ("depth", "sections", "validation", "expected"),
    [
        (1, None, None, ((0, 1), None)),
        (2, None, None, ((0, 1), (1, 2))),
        (10, None, None, ((0, 8), (8, 10))),
        (125, None, None, ((0, 100), (100, 125))),
        (10, (0, 6), None, ((0, 6), (6, 10))),
        (10, (4, 10), None, ((4, 10), (0, 4))),
        (10, (0, 10), None, ((0, 10), None)),
        (10, None, (8, 10), ((0, 8), (8, 10))),
        (10, None, (1, 3), ((3, 10), (1, 3))),
        (10, (2, 5), (7, 8), ((2, 5), (7, 8))),
    ],
)
def test_what_is_not_told_is_split_off(
    depth: int,
    sections: tuple[int, int] | None,
    validation: tuple[int, int] | None,
    expected: tuple[tuple[int, int], tuple[int, int] | None],
) -> None:
    assert split(depth, sections, validation, volume="v") == expected


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"membranes": ()}, UsageError, "--raw is given 1 times, --labels or --membranes 0 times; every raw volume"),
        ({"labels": ("ids.tif",)}, UsageError, "give either --labels (neuron ids) or --membranes (boundary maps)"),
        ({"voxel_sizes_nm": ()}, UsageError, "raw.tif does not say its voxel size; give --voxel-size Z,Y,X in nm"),
        ({"sections": ((0, 1),) * 3}, UsageError, "--sections is given 3 times for 1 volumes; give it once, or"),
        ({"sections": ((0, 9),)}, UsageError, "--sections is 0:9, but raw.tif has 6 sections; it must be within 0:6"),
        ({"validation": ((5, 7),)}, UsageError, "--validation is 5:7, but raw.tif has 6 sections; it must be within"),
        ({"validation": ((0, 6),)}, UsageError, "--validation 0:6 leaves no section of raw.tif to train on; it has 6"),
        (
            {"sections": ((0, 4),), "validation": ((3, 6),)},
            UsageError,
            "--sections 0:4 and --validation 3:6 overlap; a model must not be scored on what it was trained on",
        ),
        ({"raw": ("none.tif",)}, DataError, "none.tif does not exist; check the path"),
        ({"raw": ("http://h/raw.zarr",)}, UsageError, "http://h/raw.zarr is a URL; training reads its volumes again"),
        ({"raw": ("sample_A.hdf",)}, DataError, "sample_A.hdf is an HDF5 file: name a dataset inside it as sample_A"),
        ({"membranes": ("few.tif",)}, DataError, "raw.tif has shape (6, 64, 72), few.tif has (3, 64, 72); they must"),
        (
            {"membranes": (), "labels": ("probability.tif",)},
            DataError,
            "probability.tif has voxels of type float32; neuron ids must be integers: give a boundary map as --memb",
        ),
        ({"model": "d5"}, UsageError, "--model is d5; it must be one of d4, plain, paper, d4-base, plain-base, paper"),
        (
            {"start": "d4", "model": "d4-base"},
            UsageError,
            "--start is d4, which is another network than --model d4-base; give --start none, or leave --model out",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_does_not_fit_is_refused(change: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as refused:
        own_config(told(**change), name="mine")
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("", 2, "neither CONFIG nor --raw is given; give CONFIG with --data DIR, or --raw VOLUME with --labels or"),
        ("tiny.toml", 2, "--data is missing; CONFIG needs the folder that its paths are relative to"),
        ("tiny.toml --data . --steps 3", 2, "--steps and CONFIG exclude each other; write it into tiny.toml, or"),
        ("--raw raw.tif --membranes membranes.tif --data .", 2, "--data goes with CONFIG; --raw names its volume by"),
        ("--raw raw.tif --membranes membranes.tif --sections 4", 2, "sections is '4'; it must be FIRST:STOP"),
        ("--raw raw.tif --membranes membranes.tif --validation x", 2, "validation is 'x'; it must be FIRST:STOP"),
        ("--raw raw.tif --membranes membranes.tif --voxel-size 4", 2, "voxel size is '4'; it must be Z,Y,X in nm"),
        ("--raw raw.tif --membranes membranes.tif --voxel-size 9,4,4 --start d5", 1, "model 'd5' not found; give a"),
        (
            "--raw raw.tif --membranes membranes.tif --voxel-size 9,4,4 --learning-rate 0",
            1,
            "config of the volumes given: optimiser.learning_rate is 0.0: Input should be greater than 0",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, message: str
) -> None:
    before = set(folder.iterdir())
    assert command("fit", *words.split(), "--out", "mine", "--device", "cpu") == code
    (line,) = [s for s in capsys.readouterr().err.splitlines() if s.startswith(NAME)]
    assert line.removeprefix(f"{NAME}: error: ").startswith(message)
    assert set(folder.iterdir()) == before


def test_voxels_without_a_label_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ids()
    labels[1, 3:, 7] = np.uint64(2**64 - 1)
    write_cremi(folder / "part.hdf", labels)
    words = ("fit", "--raw", "part.hdf::volumes/raw", "--labels", "part.hdf::volumes/labels/neuron_ids")
    assert command(*words, "--out", "mine", "--device", "cpu") == 1
    assert (
        "has no label at 61 voxels, the first at (1, 3, 7), id 18446744073709551615; every voxel must have one: give "
        "sections that are labelled throughout (4 of these are, from 0 to 4), or crop both volumes"
    ) in capsys.readouterr().err


def test_the_card_s_configuration_names_no_folder_of_this_machine(
    folder: Path, published: Path, make_model: Callable[[Path], Path]
) -> None:
    model = make_model(published)
    card = (model / "CARD.md").read_text(encoding="utf-8")
    assert str(folder) not in card
    stated = json.loads(card.partition("```json\n")[2].partition("```")[0])
    assert (stated["data"][0]["raw"], stated["data"][0]["membranes"]) == ("raw.tif", "membranes.tif")
    assert load_config(model.parent / "config.json").data[0].raw == str(folder / "raw.tif")


@pytest.fixture
def make_model(folder: Path) -> Callable[[Path], Path]:
    def make(start: Path) -> Path:
        words = ("fit", "--raw", "raw.tif", "--membranes", "membranes.tif", "--voxel-size", "50,4,4", "--steps", 1)
        assert command(*words, "--start", start, "--out", folder / "run", "--device", "cpu", "--threads", 1) == 0
        return folder / "run" / "model"

    return make
