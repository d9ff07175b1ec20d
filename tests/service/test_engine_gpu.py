"""Opening networks on GPUs, by sessions that claim to run there."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from emboundary.model.description import METADATA_KEY, PRECISION_KEY
from emboundary.model.repository import ModelEntry, load_model
from emboundary.service.engine import GpuOptions, OnnxEngine, Part, gpu
from emboundary.service.engine.place import Memory, Place
from emboundary.service.errors import DeviceError, ModelUnavailableError, UsageError
from emboundary.service.gpus.driver import Driver, Gpu
from emboundary.service.gpus.missing import Missing

GIBIBYTE = 1 << 30
CARD = Gpu(0, "a card", 80 * GIBIBYTE, 40 * GIBIBYTE, (9, 0))
ALL = slice(None)


class HostPlace(Place):
    """A GPU whose memory is the host's."""

    def reserve(self, values: int) -> Memory:
        return Place().reserve(values)


class Runtime:
    """Opens sessions on the CPU that claim what a test wants, and notes how.

    Args:
        providers: that sessions say they have.
        refuses: error on opening a session with some provider's options.
        fails: error of a run with some provider's options.
    """

    def __init__(self, providers: list[str], refuses: Any, fails: Any) -> None:
        self.providers, self.refuses, self.fails = providers, refuses, fails
        self.opened: list[tuple[str, Any, Any]] = []
        self._real = ort.InferenceSession

    def __call__(self, path: str, options: Any, providers: list[Any], enable_fallback: int) -> Any:
        assert enable_fallback == 0
        self.opened.append((Path(path).name, options, providers))
        on_cpu = providers == ["CPUExecutionProvider"]
        chosen = {} if on_cpu else providers[0][1]
        if not on_cpu and (error := self.refuses(chosen)):
            raise error
        # The CPU's session knows nothing of a GPU's options.
        session = self._real(path, providers=["CPUExecutionProvider"])
        return session if on_cpu else Claiming(session, self.providers, lambda: self.fails(chosen))

    @property
    def networks(self) -> list[tuple[Any, Any]]:
        """Options and providers of the model's sessions on the GPU."""
        return [(o, p) for name, o, p in self.opened if name == "model.onnx" and p != ["CPUExecutionProvider"]]


class Claiming:
    def __init__(self, session: Any, providers: list[str], fails: Any) -> None:
        self._session, self._providers, self._fails = session, providers, fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return self._providers

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        if error := self._fails():
            raise error
        self._session.run_with_iobinding(binding, options)


@pytest.fixture
def entry(repository: Path) -> ModelEntry:
    return load_model("d4", repository)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Install a runtime that has CUDA, as far as it says, and cards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu, "preload", lambda: None)
    monkeypatch.setattr(gpu, "Place", HostPlace)
    monkeypatch.setattr(gpu, "why_no_cuda", lambda error=None: Missing("other", f"of this: {error}", "mend it"))

    def install(*providers: str, cards: int = 1, refuses: Any = lambda _: None, fails: Any = lambda _: None) -> Runtime:
        runtime = Runtime(list(providers), refuses, fails)
        found = tuple(Gpu(n, CARD.name, CARD.memory_bytes, CARD.free_bytes, (9, 0)) for n in range(cards))
        monkeypatch.setattr(gpu, "visible", lambda: Driver("580", (13, 0), found, None, ""))
        monkeypatch.setattr(ort, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "InferenceSession", runtime)
        return runtime

    return install


def test_auto_without_cuda_takes_the_cpu_and_says_why(entry: ModelEntry) -> None:
    if gpu.CUDA in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    found = OnnxEngine.open(entry, "auto")
    assert found.device == "cpu"
    assert found.device_reason.startswith("CPU: onnxruntime ")
    assert found.device_reason.endswith("without CUDA (`emboundary doctor` says more)")


def test_cuda_without_cuda_fails(entry: ModelEntry) -> None:
    if gpu.CUDA in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(
        DeviceError, match=r"device is cuda, but onnxruntime .* without CUDA; .*emboundary\[gpu\].*--device cpu runs"
    ):
        OnnxEngine.open(entry, "cuda")


def test_a_gpu_that_works_is_taken_in_full_precision_without_fallback(entry: ModelEntry, fake: Any) -> None:
    runtime = fake("CUDAExecutionProvider")
    found = OnnxEngine.open(entry, "auto")
    assert (found.device, found.device_reason, found.lanes) == ("cuda", "GPU: a session on it works", 2)
    assert len(runtime.networks) == 2
    options, ((provider, chosen),) = runtime.networks[0]
    assert provider == "CUDAExecutionProvider"
    assert chosen == {
        "device_id": "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1",
        "prefer_nhwc": "0",
        "gpu_mem_limit": str(18 * GIBIBYTE),  # half of nine tenths of what is free
    }
    assert options.use_deterministic_compute
    assert all(
        o.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        for _, o, p in runtime.opened
        if p != ["CPUExecutionProvider"]
    )


def test_its_map_is_the_cpus(entry: ModelEntry, fake: Any) -> None:
    fake("CUDAExecutionProvider")
    images = np.random.default_rng(0).normal(size=(2, 1, 24, 36)).astype(np.float32)
    expected = OnnxEngine.open(entry, "cpu").run(images)
    np.testing.assert_array_equal(OnnxEngine.open(entry, "cuda").run(images), expected)


def test_every_card_gets_its_lanes(entry: ModelEntry, fake: Any) -> None:
    runtime = fake("CUDAExecutionProvider", cards=3)
    found = OnnxEngine.open(entry, "cuda", gpu=GpuOptions(memory_bytes=6 * GIBIBYTE, lanes=2))
    assert found.lanes == 6
    chosen = [providers[0][1] for _, providers in runtime.networks]
    assert [options["device_id"] for options in chosen] == ["0", "1", "2", "0", "1", "2"]
    assert {options["gpu_mem_limit"] for options in chosen} == {str(3 * GIBIBYTE)}


def test_half_precision_takes_the_layout_of_tensor_cores(repository: Path, fake: Any, tmp_path: Path) -> None:
    entry = with_variant(repository, tmp_path, "float16")
    runtime = fake("CUDAExecutionProvider")
    found = OnnxEngine.open(entry, "cuda", "float16")
    assert found.precision == "float16"
    (name, _, ((_, chosen),)) = runtime.opened[0]
    assert (name, chosen["prefer_nhwc"]) == ("float16.onnx", "1")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_half_precision_on_a_cpu_says_that_it_gains_nothing(
    repository: Path, tmp_path: Path, device: Any, fake: Any
) -> None:
    fake()
    found = OnnxEngine.open(with_variant(repository, tmp_path, "float16"), device, "float16")
    assert found.device == "cpu"
    assert found.device_reason.endswith("CPUs compute float16 in float32 and gain nothing by it")


def test_eight_bits_run_on_a_cpu_alone(repository: Path, tmp_path: Path, fake: Any) -> None:
    entry = with_variant(repository, tmp_path, "int8")
    runtime = fake("CUDAExecutionProvider")
    found = OnnxEngine.open(entry, "auto", "int8")
    assert (found.device, found.device_reason) == ("cpu", "CPU: int8 runs there alone")
    assert not runtime.networks
    with pytest.raises(UsageError, match="precision is int8; model d4 runs on a GPU in float32: give --precision"):
        OnnxEngine.open(entry, "cuda", "int8")


def with_variant(repository: Path, folder: Path, precision: Any, marked_as: str | None = None) -> ModelEntry:
    """A copy of the tiny model with a file for another precision, which holds the same graph."""
    copy = Path(shutil.copytree(repository / "d4" / "1", folder / "variant"))
    model = onnx.load(copy / "model.onnx")
    card = json.loads((copy / "description.json").read_text())
    card["precisions"] |= {precision: 0.001}
    embedded = json.dumps(card | {"sha256": None, "variants": {}})
    digests = []
    for name, marked in (("model", {}), (marked_as or precision, {PRECISION_KEY: marked_as or precision})):
        del model.metadata_props[:]
        helper.set_model_props(model, {METADATA_KEY: embedded, **marked})
        file = copy / f"{name if name == 'model' else precision}.onnx"
        file.write_bytes(model.SerializeToString())
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    variant = {"file": f"{precision}.onnx", "sha256": digests[1], "symmetry_error": 0.0}
    card |= {"sha256": digests[0], "variants": {precision: variant}}
    (copy / "description.json").write_text(json.dumps(card))
    return load_model(copy)


@pytest.mark.parametrize(
    ("providers", "behaviour", "reason"),
    [
        (["CUDAExecutionProvider"], {"refuses": lambda _: RuntimeError("too old\nstack")}, "of this: too old"),
        (["CUDAExecutionProvider"], {"fails": lambda _: RuntimeError("no kernel image")}, "of this: no kernel image"),
    ],
)
def test_a_gpu_that_does_not_work_is_never_replaced_in_silence(
    entry: ModelEntry, fake: Any, providers: list[str], behaviour: dict[str, Any], reason: str
) -> None:
    fake(*providers, **behaviour)
    with pytest.raises(DeviceError, match=rf"^device is cuda, but {reason}[^;]*; mend it, and --device cpu runs"):
        OnnxEngine.open(entry, "cuda")
    found = OnnxEngine.open(entry, "auto")
    assert found.device == "cpu"
    assert found.device_reason.startswith(f"CPU: {reason}")


def test_a_session_that_lands_elsewhere_is_refused(entry: ModelEntry, fake: Any) -> None:
    runtime = fake("CUDAExecutionProvider")
    runtime.providers = ["CPUExecutionProvider"]
    with pytest.raises(DeviceError, match="device is cuda, but of this: None; mend it"):
        OnnxEngine.open(entry, "cuda")


def test_where_recording_fails_the_gpu_is_used_without_and_that_is_said(entry: ModelEntry, fake: Any) -> None:
    runtime = fake(
        "CUDAExecutionProvider",
        fails=lambda chosen: RuntimeError("capture failed") if chosen["enable_cuda_graph"] == "1" else None,
    )
    found = OnnxEngine.open(entry, "cuda")
    assert found.device_reason == "GPU, as asked; CUDA graphs do not work here"
    assert runtime.networks[-1][1][0][1]["enable_cuda_graph"] == "0"
    quiet = OnnxEngine.open(entry, "cuda", gpu=GpuOptions(recording=False))
    assert quiet.device_reason == "GPU, as asked"


def test_a_replay_that_differs_is_not_trusted(entry: ModelEntry, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("CUDAExecutionProvider")
    calls = iter(range(100))
    real = gpu.Lanes.map

    def drifting(lanes: Any, parts: Any, side: Any = None) -> Any:
        answers = real(lanes, parts, side)
        answers[0].stored[...] += np.float32(next(calls)) / 1000
        return answers

    monkeypatch.setattr(gpu.Lanes, "map", drifting)
    with pytest.raises(DeviceError, match="it gives another map for the same image each time"):
        OnnxEngine.open(entry, "cuda")


def test_a_damaged_file_is_no_matter_of_the_device(entry: ModelEntry, fake: Any, tmp_path: Path) -> None:
    fake("CUDAExecutionProvider")
    folder = Path(shutil.copytree(entry.path.parent, tmp_path / "damaged"))
    (folder / "model.onnx").write_bytes(b"no model")
    card = json.loads((folder / "description.json").read_text())
    card["sha256"] = hashlib.sha256(b"no model").hexdigest()
    (folder / "description.json").write_text(json.dumps(card))
    with pytest.raises(ModelUnavailableError, match="is not a model that ONNX Runtime can load"):
        OnnxEngine.open(load_model(folder), "cuda")


def test_tensorrt_goes_first_and_keeps_its_engines(repository: Path, fake: Any, tmp_path: Path) -> None:
    entry = with_variant(repository, tmp_path, "float16")
    runtime = fake("TensorrtExecutionProvider", "CUDAExecutionProvider")
    found = OnnxEngine.open(entry, "cuda", "float16", GpuOptions(tensorrt=True))
    assert found.runtime.endswith(" TensorRT")
    (_, _, ((first, chosen), (second, cuda))) = runtime.opened[0]
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert chosen["trt_engine_cache_enable"] == "True"
    assert Path(chosen["trt_engine_cache_path"]).is_dir()
    assert cuda["enable_cuda_graph"] == "0"


def test_tensorrt_in_full_precision_is_refused(entry: ModelEntry, fake: Any) -> None:
    fake("TensorrtExecutionProvider", "CUDAExecutionProvider")
    with pytest.raises(UsageError, match=r"tensorrt with precision float32: .* TF32; give --precision float16"):
        OnnxEngine.open(entry, "cuda", gpu=GpuOptions(tensorrt=True))


def test_tensorrt_that_is_not_there_is_told(repository: Path, fake: Any, tmp_path: Path) -> None:
    fake("CUDAExecutionProvider")
    with pytest.raises(DeviceError, match=r"device is cuda, but .*Tensorrt"):
        OnnxEngine.open(with_variant(repository, tmp_path, "float16"), "cuda", "float16", GpuOptions(tensorrt=True))


@pytest.mark.parametrize(
    ("options", "told"), [({"lanes": 0}, "gpu_lanes is 0; it must"), ({"memory_bytes": 0}, "gpu_memory is 0 bytes")]
)
def test_options_out_of_range_are_refused(options: dict[str, int], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        GpuOptions(**options)  # type: ignore[arg-type]


def test_the_largest_tile_that_fits_is_found_and_remembered(
    entry: ModelEntry, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("CUDAExecutionProvider")
    tried: list[int] = []
    real = gpu.Lanes.warm

    def warm(lanes: Any, n: int, y: int, x: int) -> None:
        tried.append(y)
        if y * x > 600**2:
            raise DeviceError("out of memory")
        real(lanes, n, 8, 8)

    monkeypatch.setattr(gpu.Lanes, "warm", warm)
    found = OnnxEngine.open(entry, "cuda")
    assert found.largest_tile() == found.largest_tile() == 512
    assert tried == [side + 16 for side in (2048, 1536, 1024, 768, 512)]
    tried.clear()
    assert OnnxEngine.open(entry, "cuda").largest_tile() == 512
    assert tried == [528]
    assert OnnxEngine.open(entry, "cuda", gpu=GpuOptions(lanes=1)).largest_tile() == 512  # other facts: tried anew
    assert len(tried) == 6
    part = Part(np.zeros((1, 1, 8, 8), np.uint8), 0.0, 1.0, ALL, ALL)
    assert found.mapper is not None
    assert found.mapper.map([part])[0].finite


def test_no_tile_that_fits_is_an_error(entry: ModelEntry, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("CUDAExecutionProvider")

    def warm(*_: Any) -> None:
        raise DeviceError("cuda failed: out of memory")

    monkeypatch.setattr(gpu.Lanes, "warm", warm)
    with pytest.raises(DeviceError, match="out of memory"):
        OnnxEngine.open(entry, "cuda").largest_tile()


def test_a_cpu_has_no_largest_tile(entry: ModelEntry) -> None:
    assert OnnxEngine.open(entry, "cpu").largest_tile() is None


def test_a_file_of_another_precision_is_refused(repository: Path, fake: Any, tmp_path: Path) -> None:
    fake()
    entry = with_variant(repository, tmp_path, "float16", marked_as="int8")
    with pytest.raises(ModelUnavailableError, match=r"float16\.onnx computes in int8, and the description .* float16"):
        OnnxEngine.open(entry, "cpu", "float16")
