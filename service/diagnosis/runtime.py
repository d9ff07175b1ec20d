"""ONNX Runtime: which build is installed, and which of its providers compute."""

from __future__ import annotations

from collections.abc import Iterator

from emboundary.service.diagnosis.apart import ProbeError, ask
from emboundary.service.finding import Finding, State
from emboundary.service.gpus.explain import REINSTALL
from emboundary.service.gpus.failures import essence
from emboundary.service.gpus.runtime import CUDA_PROVIDER, TENSORRT_PROVIDER, Runtime

# A first session on a GPU loads some 3 GB of libraries, perhaps from a slow disk.
_PATIENCE_S = 60.0
# It sends what it computes over a network; nothing here uses it.
_REMOTE = "AzureExecutionProvider"


def check_runtime(runtime: Runtime) -> Finding:
    """Which build of ONNX Runtime is installed, and what it can run on."""
    facts = {
        "packages": runtime.packages,
        "providers": list(runtime.providers),
        "cuda_version": None if runtime.cuda_version is None else list(runtime.cuda_version),
    }
    if len(runtime.packages) > 1:
        both = " and ".join(sorted(runtime.packages))
        found = f"{both} are both installed; they overwrite each other's files"
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu, then install emboundary[cpu] or emboundary[gpu]"
        return Finding("ONNX Runtime", "failed", found, remedy, facts)
    if runtime.error is not None and not runtime.packages:
        return Finding(
            "ONNX Runtime", "failed", "not installed", "pip install emboundary[cpu] or emboundary[gpu]", facts
        )
    name, version = next(iter(runtime.packages.items()), ("onnxruntime", "of unknown version"))
    if runtime.error is not None:
        remedy = f"pip install --force-reinstall {name}"
        return Finding("ONNX Runtime", "failed", f"{name} {version}: {essence(runtime.error)}", remedy, facts)
    short = ", ".join(_short(provider) for provider in runtime.providers)
    return Finding("ONNX Runtime", "ok", f"{name} {version} for {short}", facts=facts)


def check_providers(runtime: Runtime, device: str, *, gpu: bool) -> Iterator[Finding]:
    """Run a tiny network on each provider, each in a process of its own.

    Args:
        runtime: what is installed.
        device: that serving is asked to use.
        gpu: whether there is one that this build can use: without it CUDA and TensorRT need not be tried.
    """
    for provider in reversed(runtime.providers):  # ONNX Runtime names them from the fastest on
        if provider != _REMOTE and (gpu or provider not in (CUDA_PROVIDER, TENSORRT_PROVIDER)):
            yield _check_provider(provider, device)


def _check_provider(provider: str, device: str) -> Finding:
    subject = f"on {_short(provider)}"
    try:
        answer = ask("provider", {"provider": provider}, _PATIENCE_S)
        missing = answer.pop("missing", None)
        fault, remedy = (missing["what"], missing["remedy"]) if missing else ("", "")
    except ProbeError as error:
        answer, fault, remedy = {}, str(error), REINSTALL if provider == "CPUExecutionProvider" else ""
    facts = {"provider": provider, "works": not fault, **answer}
    if not fault:
        found = f"a convolution runs, {answer['run_seconds'] * 1000:.2f} ms; ready after {answer['open_seconds']:.1f} s"
        return Finding(subject, "ok", found, facts=facts)
    if provider == TENSORRT_PROVIDER:  # an option that nobody misses
        return Finding(subject, "ok", f"not there: {fault}; optional ({remedy})", facts=facts)
    return Finding(subject, _state(provider, device), fault, remedy, facts)


def _state(provider: str, device: str) -> State:
    needed = {"cpu": "CPUExecutionProvider", "cuda": CUDA_PROVIDER}.get(device, "CPUExecutionProvider")
    return "failed" if provider == needed else "note"


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").replace("Tensorrt", "TensorRT")
