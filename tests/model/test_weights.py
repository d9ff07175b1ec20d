import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from emboundary.model.inception import Segmenter, SegmenterSpec
from emboundary.model.weights import SPEC_KEY, WeightsError, load_segmenter, save_segmenter

SPEC = SegmenterSpec("d4", stem=8, a=8, b=8, c=8, blocks=(1, 1, 1), decoder=8, head=8, mix=8)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_segmenter(Segmenter(SPEC), path)
    return path


def rewrite(path: Path, metadata: dict[str, str] | None) -> None:
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, safe_open is no mapping
    save_file(state, path, metadata=metadata)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    net = Segmenter(SPEC)
    net(torch.randn(2, 1, 16, 16))  # moves the running statistics
    save_segmenter(net, tmp_path / "w.safetensors")
    loaded = load_segmenter(tmp_path / "w.safetensors")
    assert loaded.spec == SPEC
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_weights_from_before_there_was_context_are_of_single_sections(stored: Path) -> None:
    old = asdict(SPEC)
    del old["context"]
    rewrite(stored, {SPEC_KEY: json.dumps(old)})
    assert load_segmenter(stored).spec == SPEC
    assert load_segmenter(stored).spec.context == 0


def test_weights_are_stored_unexpanded(stored: Path) -> None:
    with safe_open(stored, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert shapes["stem.first.conv.filters.trivial"] == (1, 1, 9)
    assert "stem.first.norm.running_mean" in shapes


def test_loaded_weights_can_be_trained_on(stored: Path) -> None:
    net = load_segmenter(stored)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none.safetensors cannot be read \(.*\); give a file written by save_segm"):
        load_segmenter(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", [b"", b"not a safetensors file"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w.safetensors cannot be read \("):
        load_segmenter(tmp_path / "w.safetensors")


def test_weights_of_another_program_are_refused(stored: Path) -> None:
    rewrite(stored, None)
    with pytest.raises(WeightsError, match=rf"has no metadata '{SPEC_KEY}'; only files written by save_segmenter"):
        load_segmenter(stored)


def test_an_unknown_field_of_the_spec_is_named(stored: Path) -> None:
    rewrite(stored, {SPEC_KEY: json.dumps(asdict(SPEC) | {"depth": 3})})
    with pytest.raises(WeightsError, match=r"has a spec with unknown fields \['depth'\]; another version wrote it"):
        load_segmenter(stored)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"symmetry": "d5"}), json.dumps({"stem": 7})])
def test_an_invalid_spec_is_refused(stored: Path, text: str) -> None:
    rewrite(stored, {SPEC_KEY: text})
    with pytest.raises(WeightsError, match=r"has an invalid spec|does not fit its own spec"):
        load_segmenter(stored)


def test_weights_that_do_not_fit_their_spec_are_refused(stored: Path) -> None:
    rewrite(stored, {SPEC_KEY: json.dumps(asdict(replace(SPEC, a=16)))})
    with pytest.raises(WeightsError, match=r"does not fit its own spec: .*size mismatch"):
        load_segmenter(stored)
