"""Which checks there are, and in which order: the cheap ones first, each whatever became of those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emboundary.service.diagnosis.access import check_keys, check_port
from emboundary.service.diagnosis.folders import check_data_root, check_state
from emboundary.service.diagnosis.gpu import check_gpu
from emboundary.service.diagnosis.machine import check_cores, check_memory
from emboundary.service.diagnosis.models import check_models
from emboundary.service.diagnosis.packages import check_packages, check_python
from emboundary.service.diagnosis.question import Question
from emboundary.service.diagnosis.runtime import check_providers, check_runtime
from emboundary.service.diagnosis.serving import check_inference
from emboundary.service.errors import EmboundaryError, first_line
from emboundary.service.finding import Finding
from emboundary.service.gpus.runtime import CUDA_PROVIDER, Runtime, installed

if TYPE_CHECKING:
    from emboundary.service.settings import Settings


_Check = tuple[str, Callable[[], Finding | Iterator[Finding]]]


def diagnose(question: Question | None = None) -> Iterator[Finding]:
    """Run all checks; their findings come as they are made.

    Args:
        question: the settings that serving would be given; None: those of the environment.
    """
    question = question or Question()
    yield from _run(_installation())
    settings, finding = _read(question)
    yield finding
    device = question.device if settings is None else settings.device
    runtime = installed()
    gpu = False
    for found in _run(_machine(settings, device, runtime)):
        gpu = gpu or (found.subject == "GPU" and bool(found.facts.get("usable")))
        yield found
    yield from _run([("providers", lambda: check_providers(runtime, device, gpu=gpu))])
    if settings is None:
        repository = question.options.get("repository")
        yield from _run([("models", lambda: check_models(Path(repository) if repository else None))])
    else:
        yield from _run(_serving(question, settings, gpu=gpu))


def _run(checks: Iterable[_Check]) -> Iterator[Finding]:
    for subject, check in checks:
        try:
            result = check()
            yield from (result,) if isinstance(result, Finding) else result
        except Exception as error:  # what is checked may be broken in any way
            yield Finding(subject, "failed", f"this check itself failed: {first_line(error)}", "mend what failed above")


def _installation() -> Iterator[_Check]:
    yield "Python", check_python
    yield "packages", check_packages


def _machine(settings: Settings | None, device: str, runtime: Runtime) -> Iterator[_Check]:
    yield "cores", check_cores
    if settings is not None:
        yield "memory", lambda: check_memory(settings.queue_bytes)
    yield "ONNX Runtime", lambda: check_runtime(runtime)
    yield "GPU", lambda: check_gpu(device, gpu_build=CUDA_PROVIDER in runtime.providers)


def _serving(question: Question, settings: Settings, *, gpu: bool) -> Iterator[_Check]:
    yield "models", lambda: check_models(settings.repository, settings.model)
    if settings.device == "cuda" and not gpu:
        yield "inference", lambda: Finding("inference", "failed", "not tried: see GPU", facts={"works": False})
    else:
        yield "inference", lambda: check_inference(question)
    yield "API keys", lambda: check_keys(settings)
    yield "port", lambda: check_port(settings.host, settings.port)
    yield from _folders(settings)


def _folders(settings: Settings) -> Iterator[_Check]:
    import platformdirs

    state = settings.state_dir or platformdirs.user_state_path("emboundary")
    used = bool(settings.data_roots or settings.url_prefixes)
    yield "state folder", lambda: check_state(state, used=used)
    for root in settings.data_roots:
        yield "data root", lambda root=root: check_data_root(root)  # type: ignore[misc]


def _read(question: Question) -> tuple[Settings | None, Finding]:
    """The settings; None where they cannot be read, and why."""
    try:
        settings = question.settings()
    except EmboundaryError as error:
        return None, Finding("settings", "failed", str(error), "mend it, then run this again: the rest was not checked")
    except Exception as error:  # a package is missing or broken
        remedy = "mend what failed above: the rest was not checked"
        return None, Finding("settings", "failed", f"cannot be read: {first_line(error)}", remedy)
    given = sorted(settings.model_fields_set)
    found = f"valid; set: {', '.join(given)}" if given else "valid; all are defaults"
    return settings, Finding("settings", "ok", found, facts={"set": given, "device": settings.device})
