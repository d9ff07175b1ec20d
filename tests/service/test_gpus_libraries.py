from __future__ import annotations

import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from emboundary.service.gpus import libraries
from emboundary.service.gpus.elf import needed
from emboundary.service.gpus.libraries import missing, package_of, wanted_libraries
from emboundary.service.gpus.missing import Missing
from emboundary.service.gpus.runtime import CUDA_PROVIDER, TENSORRT_PROVIDER, Runtime, installed, preload


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A build whose provider libraries list what 1.31's list; of those the loader finds what ``there`` holds."""
    folder = tmp_path / "capi"
    folder.mkdir()
    for name in ("cuda", "tensorrt", "shared"):
        (folder / f"libonnxruntime_providers_{name}.so").touch()
    lists = {
        "cuda": (
            "libcublasLt.so.13",
            "libcublas.so.13",
            "libcurand.so.10",
            "libcudart.so.13",
            "libcuda.so.1",
            "libm.so.6",
        ),
        "tensorrt": ("libcublas.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10", "libcudnn.so.9"),
    }
    monkeypatch.setattr(libraries, "needed", lambda path: lists[path.stem.rpartition("_")[2]])
    monkeypatch.setattr(libraries, "preload", lambda: None)
    return Runtime(
        {"onnxruntime-gpu": "1.31.0"}, (TENSORRT_PROVIDER, CUDA_PROVIDER, "CPUExecutionProvider"), (13, 0), folder
    )


def loader(monkeypatch: pytest.MonkeyPatch, *absent: str, **broken: str) -> None:
    def load(name: str, mode: int = 0) -> None:  # noqa: ARG001
        if name in absent:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        for part, words in broken.items():
            if part in name:
                raise OSError(words)

    monkeypatch.setattr(libraries.ctypes, "CDLL", load)


def test_what_is_needed_is_read_from_the_provider_itself(wheel: Runtime) -> None:
    cuda = ("libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1")
    assert wanted_libraries(CUDA_PROVIDER, wheel) == (*cuda, "libcudnn.so.9")


def test_libraries_that_do_not_load_are_named_with_their_packages(
    wheel: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader(monkeypatch, "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9", "libcuda.so.1")
    assert missing(CUDA_PROVIDER, wheel) == Missing(
        "cuda",
        "CUDA libraries are missing: libcublasLt.so.13, libcublas.so.13, libcudnn.so.9",
        "pip install nvidia-cublas nvidia-cudnn-cu13; emboundary[gpu] brings them",
    )


def test_cudnn_alone_is_called_by_its_name(wheel: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(monkeypatch, "libcudnn.so.9")
    found = missing(CUDA_PROVIDER, wheel)
    assert found is not None
    assert (found.link, found.what) == ("cudnn", "cuDNN is missing: libcudnn.so.9")


def test_tensorrt_is_asked_for_in_the_version_that_the_build_wants(
    wheel: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader(monkeypatch, "libnvinfer.so.10", "libnvonnxparser.so.10")
    assert missing(TENSORRT_PROVIDER, wheel) == Missing(
        "tensorrt",
        "TensorRT is not whole: libnvinfer.so.10, libnvonnxparser.so.10",
        "pip install 'tensorrt-cu13==10.*'",
    )
    assert missing(CUDA_PROVIDER, wheel) is None


def test_a_library_that_another_one_misses_is_the_one_that_is_named(
    wheel: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "libnvrtc.so.13: cannot open shared object file: No such file or directory"
    loader(monkeypatch, libcudnn=words)
    found = missing(CUDA_PROVIDER, wheel)
    assert found is not None
    assert found.what == "CUDA libraries are missing: libnvrtc.so.13"
    assert found.remedy.startswith("pip install nvidia-cuda-nvrtc;")


def test_only_the_driver_can_be_missing(wheel: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "libcuda.so.1: cannot open shared object file: No such file or directory"
    loader(monkeypatch, "libcuda.so.1", providers_cuda=words)
    found = missing(CUDA_PROVIDER, wheel)
    assert found is not None
    assert (found.link, found.remedy) == ("driver", "install the NVIDIA driver")


def test_a_provider_that_does_not_fit_its_libraries_says_so(wheel: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(monkeypatch, providers_cuda="libcublas.so.13: version `libcublas.so.13' not found")
    found = missing(CUDA_PROVIDER, wheel)
    assert found is not None
    assert (
        found.what == "libonnxruntime_providers_cuda.so does not load: libcublas.so.13: version `libcublas.so.13' not "
        "found"
    )


def test_a_build_without_the_provider_has_no_libraries_to_miss() -> None:
    found = missing(CUDA_PROVIDER, Runtime({"onnxruntime": "1.31.1"}, ("CPUExecutionProvider",)))
    assert found is not None
    assert found.what == "this ONNX Runtime has no CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("library", "cuda", "package"),
    [
        ("libcublas.so.12", (12, 8), "nvidia-cublas-cu12"),
        ("libcudart.so.13", (13, 0), "nvidia-cuda-runtime"),
        ("libcudnn.so.9", (12, 8), "nvidia-cudnn-cu12"),
        ("libfoo.so.1", (13, 0), None),
    ],
)
def test_packages_are_those_of_the_builds_cuda(library: str, cuda: tuple[int, int], package: str | None) -> None:
    assert package_of(library, cuda) == package


def test_nothing_that_preloading_prints_reaches_a_commands_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = types.SimpleNamespace(preload_dlls=lambda: sys.stdout.write("Failed to load libcublasLt.so.13"))
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)  # type: ignore[arg-type]
    preload()
    assert capsys.readouterr().out == ""


def test_the_installed_build_is_described() -> None:
    found = installed()
    assert "CPUExecutionProvider" in found.providers
    assert found.packages
    assert found.folder is not None


def test_a_build_that_does_not_import_is_described_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = installed()
    assert isinstance(found.error, ImportError)
    assert found.providers == ()


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        (["onnxruntime", "onnxruntime_gpu"], ["onnxruntime", "onnxruntime-gpu"]),
        (["onnxruntime", "onnxruntime_extensions"], ["onnxruntime"]),
    ],
)
def test_what_installs_the_module_counts_as_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], counted: list[str]
) -> None:
    for name in names:
        info = tmp_path / f"{name}-1.31.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.0\n")
        module = name if name.endswith("extensions") else "onnxruntime"
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{module}/capi/__init__.py,,\n")
        # From Python 3.12 on, files that are recorded and do not exist are not listed.
        (tmp_path / module / "capi").mkdir(parents=True, exist_ok=True)
        for folder in (tmp_path / module, tmp_path / module / "capi"):
            (folder / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert sorted(installed().packages) == counted


def test_the_list_of_a_real_library_is_read(tmp_path: Path) -> None:
    import _ctypes

    listed = needed(Path(_ctypes.__file__))
    readelf = shutil.which("readelf")
    if readelf is not None:
        text = subprocess.run([readelf, "-d", _ctypes.__file__], capture_output=True, text=True, check=True).stdout
        expected = tuple(line.partition("[")[2].rstrip("]") for line in text.splitlines() if "(NEEDED)" in line)
        assert listed == expected
    assert any(name.startswith("libc.so") for name in listed)
    other = tmp_path / "other.so"
    other.write_bytes(b"no library" * 10)
    assert needed(other) == ()
